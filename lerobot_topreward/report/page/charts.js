// The two charts of the overview: where the scores lie, and what time alone explains.

const OUTCOMES = [
  { name: "succeeded", kind: "good" },
  { name: "failed", kind: "bad" },
  { name: "unknown", kind: "plain" },
];

// Diagonal lines, so that failures differ from successes by more than their color.
function hatch(id) {
  const lines = svg("path", { d: "M-1 5L5 -1M-1 1L1 -1M3 5L5 3", class: "hatch-line" });
  const ground = svg("rect", { width: 4, height: 4, class: "hatch-ground" });
  const size = { width: 4, height: 4, patternUnits: "userSpaceOnUse" };
  return svg("defs", {}, svg("pattern", { id, ...size }, ground, lines));
}

function histogram(width, { values, metric, limit }) {
  const { label, digits } = metric;
  const groups = knowsSuccess
    ? OUTCOMES.filter(({ name }) => values.some(([episode]) => outcome(episode.success) === name))
    : [{ name: "episodes", kind: "good" }];
  const rowOf = (episode) => (knowsSuccess ? outcome(episode.success) : "episodes");
  const [left, right, axis, head] = [86, 18, 38, 6];
  const rowHeight = Math.round((196 - axis - head) / groups.length);
  const height = head + rowHeight * groups.length + axis;
  const all = values.map(([, value]) => value);
  const marked = limit === undefined ? all : [...all, limit];
  let [low, high] = [Math.min(...marked), Math.max(...marked)];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const steps = ticks(low, high, Math.max(8, Math.min(32, width / 18)));
  const step = steps.length > 1 ? steps[1] - steps[0] : high - low;
  const first = Math.floor(low / step + 1e-6) * step;
  const bins = Math.max(1, Math.ceil((high - first) / step - 1e-6));
  const x = scale([first, first + bins * step], [left, width - right]);
  const bin = (value) => Math.min(bins - 1, Math.floor((value - first) / step + 1e-9));
  const counts = groups.map(({ name }) => {
    const row = new Array(bins).fill(0);
    for (const [episode, value] of values) if (rowOf(episode) === name) row[bin(value)]++;
    return row;
  });
  const most = Math.max(1, ...counts.flat());
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
  root.setAttribute("aria-label", `Histogram of ${label}`);
  root.append(hatch("hatch-bars"));
  groups.forEach(({ name, kind }, row) => {
    const base = head + rowHeight * (row + 1);
    const y = scale([0, most], [base, base - rowHeight + 12]);
    const total = counts[row].reduce((a, b) => a + b, 0);
    root.append(svg("path", { class: "axis", d: `M${left} ${base + 0.5}H${width - right}` }));
    root.append(text(left - 10, base - rowHeight / 2 + 2, name, { class: "row-name", "text-anchor": "end" }));
    root.append(text(left - 10, base - rowHeight / 2 + 17, String(total), { class: "faint", "text-anchor": "end" }));
    counts[row].forEach((count, i) => {
      if (!count) return;
      const from = x(first + i * step);
      const size = { x: from + 0.5, y: y(count), width: Math.max(1, x(first + (i + 1) * step) - from - 1.5), height: base - y(count) };
      const span = `${number(first + i * step, digits)} to ${number(first + (i + 1) * step, digits)}`;
      root.append(hover(svg("rect", { class: `bar-${kind}`, ...size }), `${span}: ${count} ${name}`));
    });
  });
  const bottom = head + rowHeight * groups.length;
  const marksX = ticks(first, first + bins * step, width / 90);
  for (const value of marksX) {
    root.append(svg("path", { class: "axis", d: `M${x(value).toFixed(1)} ${bottom}v4` }));
    root.append(text(x(value), bottom + 16, number(value, tickDigits(marksX)), { class: "tick", "text-anchor": "middle" }));
  }
  root.append(text((left + width - right) / 2, height - 4, metric.unit ? `${metric.explanation}, ${metric.unit}` : metric.explanation, { class: "axis-name", "text-anchor": "middle" }));
  if (limit !== undefined) {
    root.append(svg("path", { class: "limit", d: `M${x(limit)} ${head}V${bottom}` }));
    const side = x(limit) > width - 50 ? [-4, "end"] : [4, "start"];
    root.append(text(x(limit) + side[0], head + 9, "rule", { class: "limit-name", "text-anchor": side[1] }));
  }
  return root;
}

function glyph(kind, x, y) {
  if (kind === "good") return svg("circle", { class: "dot-good", cx: x, cy: y, r: 4 });
  if (kind === "bad") return svg("path", { class: "dot-bad", d: `M${x - 3.6} ${y - 3.6}l7.2 7.2m0 -7.2l-7.2 7.2` });
  return svg("rect", { class: "dot-plain", x: x - 3, y: y - 3, width: 6, height: 6 });
}

function kindOf(episode) {
  return episode.success === null ? "plain" : episode.success ? "good" : "bad";
}

function staticScatter(width) {
  const points = episodes.filter((episode) => episode.metrics.voc !== null && (episode.metrics.static_voc ?? null) !== null);
  const [left, right, head, axis] = [44, 14, 18, 38];
  const height = 202;
  const low = Math.min(0, ...points.map((episode) => Math.min(episode.metrics.voc, episode.metrics.static_voc)));
  const from = Math.max(-1, Math.floor(low * 2) / 2);
  const x = scale([from, 1], [left, width - right - 6]);
  const y = scale([from, 1], [height - axis, head + 6]);
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
  root.setAttribute("aria-label", "VOC of the static control against VOC of the real videos, a point per episode");
  for (const value of ticks(from, 1, 4)) {
    root.append(svg("path", { class: "grid", d: `M${left} ${y(value).toFixed(1)}H${width - right}` }));
    root.append(text(left - 6, y(value) + 4, number(value, 1), { class: "tick", "text-anchor": "end" }));
    root.append(text(x(value), height - axis + 16, number(value, 1), { class: "tick", "text-anchor": "middle" }));
  }
  root.append(svg("path", { class: "axis", d: `M${left} ${height - axis + 0.5}H${width - right}` }));
  root.append(svg("path", { class: "equal", d: line([[x(from), y(from)], [x(1), y(1)]]) }));
  root.append(text(left, 11, "VOC of the first frame repeated", { class: "axis-name" }));
  root.append(text((left + width - right) / 2, height - 4, "VOC of the real video", { class: "axis-name", "text-anchor": "middle" }));
  for (const episode of points) {
    const place = glyph(kindOf(episode), x(episode.metrics.voc), y(episode.metrics.static_voc));
    const title = `Episode ${episode.index}: VOC ${number(episode.metrics.voc, 2)}, static ${number(episode.metrics.static_voc, 2)}`;
    root.append(hover(svg("a", { href: `#episode=${episode.index}`, tabindex: -1, "aria-label": title }, place), title));
  }
  return root;
}

function legend() {
  const sample = (kind) => svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, glyph(kind, 6, 6));
  const kinds = OUTCOMES.filter(({ name }) => episodes.some((episode) => outcome(episode.success) === name));
  return h("p", { class: "legend" }, ...kinds.map(({ name, kind }) => h("span", {}, sample(kind), name)));
}

function figure(title, note, draw, ...after) {
  const place = h("div", { class: "plot" });
  const node = h("figure", { class: "chart" }, h("figcaption", {}, h("h2", {}, title), note), place, ...after);
  let drawn = 0;
  const redraw = () => {
    const width = Math.floor(place.clientWidth);
    if (width > 0 && width !== drawn) place.replaceChildren(draw((drawn = width)));
  };
  new ResizeObserver(redraw).observe(place);
  return node;
}

function charts() {
  if (!episodes.length) return [];
  const scores = episodes.map((episode) => [episode, episode.metrics.success_score]);
  const known = data.success_origin ? h("p", { class: "faint" }, `success known from ${data.success_origin}`) : "";
  const first = figure(metricOf.success_score.label, known, (width) =>
    histogram(width, { values: scores, metric: metricOf.success_score, limit: data.rules.min_success }),
  );
  if (episodes.some((episode) => (episode.metrics.static_voc ?? null) !== null)) {
    return [first, figure("What time alone explains", knowsSuccess ? legend() : "", staticScatter)];
  }
  const vocs = episodes.filter((episode) => episode.metrics.voc !== null).map((episode) => [episode, episode.metrics.voc]);
  const hint = h("p", { class: "hint" }, "No static control: a curve can rise with time alone. To see how much, label again with ",
    h("code", {}, "--control static"), ".");
  if (!vocs.length) return [first, h("figure", { class: "chart" }, h("figcaption", {}, h("h2", {}, "VOC"), ""), h("p", { class: "hint" }, "Undefined: every curve is constant or has one point."))];
  const second = figure("VOC", "", (width) =>
    histogram(width, { values: vocs, metric: metricOf.voc, limit: data.rules.min_voc }), hint);
  return [first, second];
}
