// The curves of one episode over time, and the cursor across them.

const GUTTER = 46; // px left of the plots, for their scales
const EDGE = 12; // px right of them
const HEAD = 20; // px above each plot, for its name and its value

function extent(values) {
  return [Math.min(...values), Math.max(...values)];
}

// The same scales for all episodes, so that paging through them compares.
const ranges = (() => {
  const log = episodes.map((episode) => extent(episode.static ? [...episode.curve.log_prob, ...episode.static] : episode.curve.log_prob));
  const [low, high] = log.length ? [Math.min(...log.map((r) => r[0])), Math.max(...log.map((r) => r[1]))] : [-1, 0];
  const gain = Math.max(0.1, ...episodes.map((episode) => Math.max(...episode.curve.advantage.map(Math.abs))));
  const padding = Math.max(0.05, 0.04 * (high - low));
  return { progress: [0, 1], log_prob: [low - padding, Math.min(0, high + padding)], advantage: [-gain * 1.05, gain * 1.05] };
})();

const PANES = [
  { key: "progress", name: "Progress", share: 0.44, digits: 2 },
  { key: "log_prob", name: "log P(True), nats", share: 0.31, digits: 2 },
  { key: "advantage", name: `Advantage: progress gained in ${number(data.horizon, 1)} s`, share: 0.25, digits: 2 },
];

function pane(episode, x, top, height, width, inside, { key, name, digits }) {
  const y = scale(ranges[key], [top + height, top]);
  const group = svg("g", { class: `pane ${key}` });
  const curves = svg("g", { "clip-path": inside });
  const right = width - EDGE;
  const values = key === "progress" ? [0, 0.5, 1] : ticks(...ranges[key], Math.max(2, height / 34));
  for (const value of values) {
    group.append(svg("path", { class: value === 0 && key === "advantage" ? "axis" : "grid", d: `M${GUTTER} ${y(value).toFixed(1)}H${right}` }));
    group.append(text(GUTTER - 7, y(value) + 4, number(value, tickDigits(values)), { class: "tick", "text-anchor": "end" }));
  }
  group.append(text(GUTTER, top - 7, name, { class: "pane-name" }));
  const readout = text(right, top - 7, "", { class: "readout", "text-anchor": "end", "data-pane": key });
  group.append(readout);
  const lines = runs(episode, key).map((run) => run.map(([frame, value]) => [x(frame), y(value)]));
  group.append(curves);
  if (key === "advantage") curves.append(...gains(episode, lines, y(0), top, height, width));
  if (key === "progress" && limitOf("min_final_progress") !== null) group.append(...ruleLine(limitOf("min_final_progress"), y, right));
  if (key === "log_prob" && episode.static) curves.append(...staticCurve(episode, x, y, right));
  if (key === "progress") curves.append(...otherCurves(episode, x, y));
  curves.append(svg("path", { class: "curve", d: lines.map(line).join("") }));
  if (key !== "advantage" && episode.prefixes.length < width / 6) {
    for (const frame of episode.prefixes) curves.append(svg("circle", { class: "prefix", cx: x(frame), cy: y(valueAt(episode, key, frame)), r: 2.4 }));
  }
  const bead = svg("circle", { class: "bead", r: 4.5 });
  curves.append(bead);
  const show = (frame) => {
    const value = valueAt(episode, key, frame);
    bead.setAttribute("cx", x(frame));
    bead.setAttribute("cy", y(value));
    const gained = key === "advantage" && Number(value.toFixed(digits)) > 0;
    readout.textContent = (gained ? "+" : "") + number(value, digits);
  };
  return { group, show };
}

function ruleLine(limit, y, right) {
  return [
    svg("path", { class: "limit", d: `M${GUTTER} ${y(limit)}H${right}` }),
    text(right, y(limit) - 4, `rule ${number(limit, 2)}`, { class: "limit-name", "text-anchor": "end" }),
  ];
}

function staticCurve(episode, x, y, right) {
  const points = episode.prefixes.map((frame, i) => [x(frame), y(episode.static[i])]);
  const last = points[points.length - 1];
  return [
    svg("path", { class: "static-curve", d: line(points) }),
    text(Math.min(right, last[0]), last[1] - 5, "static control", { class: "static-name", "text-anchor": "end" }),
  ];
}

// The area between the advantage and zero, in two kinds.
function gains(episode, lines, zero, top, height, width) {
  const area = lines.map((points) => `${line(points)}L${points[points.length - 1][0].toFixed(2)} ${zero}L${points[0][0].toFixed(2)} ${zero}Z`).join("");
  const clip = (id, from, size) => svg("clipPath", { id }, svg("rect", { x: 0, y: from, width, height: Math.max(0, size) }));
  return [
    svg("defs", {}, clip(`above-${episode.index}`, top - 2, zero - top + 2), clip(`below-${episode.index}`, zero, top + height - zero + 2)),
    hatch("hatch-loss"),
    svg("path", { class: "gain", d: area, "clip-path": `url(#above-${episode.index})` }),
    svg("path", { class: "loss", d: area, "clip-path": `url(#below-${episode.index})` }),
  ];
}

function partLane(episode, x, width, inside) {
  const group = svg("g", { class: "lane", "clip-path": inside });
  episode.parts.forEach((part, i) => {
    const [from, to] = [x(part.start), x(part.start + part.length - 1)];
    const next = episode.parts[i + 1];
    const end = next ? (to + x(next.start)) / 2 : width - EDGE;
    const start = i ? (from + x(episode.parts[i - 1].start + episode.parts[i - 1].length - 1)) / 2 : from;
    const room = Math.floor((end - start - 12) / 6.6);
    group.append(hover(svg("rect", { class: i % 2 ? "part-odd" : "part-even", x: start, y: 0, width: Math.max(1, end - start), height: 18 }), part.instruction));
    if (room > 2) group.append(text(start + 6, 13, shorten(part.instruction, room), { class: "part-name" }));
  });
  return group;
}

function partBorders(episode, x, height) {
  return episode.parts.slice(1).map((part, i) => {
    const before = episode.parts[i];
    const place = (x(before.start + before.length - 1) + x(part.start)) / 2;
    return svg("path", { class: "border", d: `M${place.toFixed(1)} 0V${height}` });
  });
}

function timeAxis(episode, x, top, width) {
  const seconds = spanOf(episode).map((frame) => frame / data.fps);
  const marksAt = ticks(...seconds, (width - GUTTER) / 80);
  const group = svg("g", {}, svg("path", { class: "axis", d: `M${GUTTER} ${top + 0.5}H${width - EDGE}` }));
  for (const value of marksAt) {
    const place = x(value * data.fps);
    group.append(svg("path", { class: "axis", d: `M${place.toFixed(1)} ${top}v4` }));
    group.append(text(place, top + 16, `${number(value, tickDigits(marksAt))} s`, { class: "tick", "text-anchor": "middle" }));
  }
  return group;
}

// Draws into a place as wide as it is; `moved` is told of every frame that a pointer chooses.
function timeline(episode, moved, playing) {
  const place = h("div", { class: "timeline", tabindex: 0, role: "slider", "aria-label": "Time", "aria-valuemin": 0, "aria-valuemax": episode.frames - 1 });
  const cursor = h("div", { class: "cursor", "aria-hidden": "true" });
  let [x, panes, frame, drawn] = [null, [], 0, ""];
  const draw = () => {
    const width = Math.floor(place.clientWidth);
    const height = Math.max(250, Math.min(700, Number(place.dataset.height) || 420));
    const span = spanOf(episode);
    const wanted = `${width} ${height} ${span} ${signal.chosen} ${document.readyState}`;
    if (width < 80 || drawn === wanted) return;
    drawn = wanted;
    x = scale(span, [GUTTER, width - EDGE]);
    const lane = episode.parts.length > 1 ? 22 : 0;
    const spans = spanHeight(episode);
    const plots = [...PANES, ...(data.weights ? [WEIGHT_PANE] : []), ...(signal.chosen ? [SIGNAL_PANE] : [])];
    const room = height - lane - spans - plots.length * HEAD - 24;
    const whole = plots.reduce((sum, { share }) => sum + share, 0);
    const clip = `curves-${episode.index}`;
    const inside = `url(#${clip})`;
    const root = svg("svg", { class: "curves", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    root.append(svg("defs", {}, svg("clipPath", { id: clip }, svg("rect", { x: GUTTER - 6, y: 0, width: width - GUTTER - EDGE + 12, height }))));
    if (lane) root.append(partLane(episode, x, width, inside), svg("g", { "clip-path": inside }, ...partBorders(episode, x, height - 24)));
    let top = lane;
    panes = plots.map((description) => {
      const size = Math.round((room * description.share) / whole) - 8;
      const make = new Map([[SIGNAL_PANE, signalPane], [WEIGHT_PANE, weightPane]]).get(description) ?? pane;
      const made = make(episode, x, top + HEAD, size, width, inside, description);
      top += HEAD + size + 8;
      return made;
    });
    const lanes = svg("g", { "clip-path": inside }, spanLane(episode, x, height - 24 - spans));
    root.append(...panes.map((made) => made.group), lanes, timeAxis(episode, x, height - 24, width));
    const strip = filmstrip(episode, GUTTER, width - GUTTER - EDGE, span);
    place.replaceChildren(root, strip ?? "", cursor);
    show(frame);
  };
  const show = (next) => {
    frame = Math.min(next, episode.frames - 1);
    if (!x) return;
    draw();
    cursor.style.transform = `translateX(${x(frame)}px)`;
    for (const made of panes) made.show(frame);
    place.setAttribute("aria-valuenow", frame);
    const values = PANES.map(({ key }) => `${key.replace("_", "-")} ${number(valueAt(episode, key, frame), 2)}`);
    if (data.weights) values.push(`weight ${place.querySelector("[data-pane=weights]").textContent}`);
    place.setAttribute("aria-valuetext", `${number(frame / data.fps, 1)} seconds, ${values.join(", ")}`);
  };
  const choose = (event) => {
    if (!x) return;
    const at = x.invert(event.clientX - place.getBoundingClientRect().left);
    moved(Math.max(0, Math.min(episode.frames - 1, Math.round(at))), event);
  };
  let dragging = false;
  place.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    dragging = true;
    place.setPointerCapture(event.pointerId);
    choose(event);
  });
  place.addEventListener("pointermove", (event) => {
    if (dragging || (event.pointerType === "mouse" && !playing())) choose(event);
  });
  for (const end of ["pointerup", "pointercancel"]) place.addEventListener(end, () => (dragging = false));
  place.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // what pinching on a touch pad sends, too
    event.preventDefault();
    choose(event);
    zoomBy(event.deltaY > 0 ? 1.25 : 0.8);
  }, { passive: false });
  const observer = new ResizeObserver(draw);
  observer.observe(place);
  return { node: place, show, draw, close: () => observer.disconnect() };
}
