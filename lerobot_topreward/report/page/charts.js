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

const MOST_ROWS = 12; // of a histogram: the largest tasks
const limited = Object.keys(data.rules).find((rule) => rule in data.comparisons); // the first
const chart = { metric: limited ? data.comparisons[limited].metric : "success_score", by: knowsSuccess ? "outcome" : "all" };

// Rows of the histogram: name, symbol, members, and what the list is filtered by with a bar of it.
function histogramRows() {
  if (chart.by === "all") return [{ name: "episodes", kind: "good", members: episodes, filter: {} }];
  if (chart.by === "outcome") {
    return OUTCOMES.map(({ name, kind }) => ({ name, kind, members: episodes.filter((episode) => outcome(episode.success) === name), filter: { outcome: name } }))
      .filter(({ members }) => members.length);
  }
  const rows = tasks.map((task) => ({ name: task, kind: "good", members: episodes.filter((episode) => episode.task === task), filter: { task } }));
  return rows.sort((a, b) => b.members.length - a.members.length).slice(0, MOST_ROWS);
}

// Edges of bars, and the bar of a value; a limit lies in the range, too.
function binValues(values, limit, count) {
  let [low, high] = values.length ? extent(limit === null ? values : [...values, limit]) : [0, 1];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const steps = ticks(low, high, Math.max(8, Math.min(32, count)));
  const step = steps.length > 1 ? steps[1] - steps[0] : high - low;
  const first = Math.floor(low / step + 1e-6) * step;
  const bins = Math.max(1, Math.ceil((high - first) / step - 1e-6));
  const edges = [...new Array(bins + 1).keys()].map((i) => Number((first + i * step).toPrecision(12)));
  edges[0] = Math.min(edges[0], low);
  edges[bins] = Math.max(edges[bins], high);
  const bin = (value) => {
    let i = Math.max(0, Math.min(bins - 1, Math.floor((value - first) / step)));
    while (i > 0 && value < edges[i]) i--;
    while (i < bins - 1 && value >= edges[i + 1]) i++;
    return i;
  };
  return { edges, bin };
}

function histogram(width, { metric, limit, groups }) {
  const { label, digits, key } = metric;
  const rule = ruleOf[key];
  const valueOf = (episode) => episode.metrics[key] ?? null;
  const [left, right, axis, head] = [width < 330 ? 76 : 100, 18, 38, 6];
  const rowHeight = Math.max(44, Math.round((196 - axis - head) / groups.length));
  const height = head + rowHeight * groups.length + axis;
  const { edges, bin } = binValues(episodes.map(valueOf).filter((value) => value !== null), limit, width / 18);
  const bins = edges.length - 1;
  const x = scale([edges[0], edges[bins]], [left, width - right]);
  const counts = groups.map(({ members }) => {
    const row = new Array(bins).fill(0);
    for (const member of members) if (valueOf(member) !== null) row[bin(valueOf(member))]++;
    return row;
  });
  const most = Math.max(1, ...counts.flat());
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group" });
  root.setAttribute("aria-label", `Histogram of ${label}`);
  root.append(hatch("hatch-bars"));
  groups.forEach(({ name, kind, members, filter }, row) => {
    const base = head + rowHeight * (row + 1);
    const y = scale([0, most], [base, base - rowHeight + 12]);
    const gone = limit === null || !rule ? 0 : members.filter((member) => breaks(rule, limit, member)).length;
    root.append(svg("path", { class: "axis", d: `M${left} ${base + 0.5}H${width - right}` }));
    root.append(hover(text(left - 10, base - rowHeight / 2 + 2, shorten(name, (left - 12) / 6.4), { class: "row-name", "text-anchor": "end" }), name));
    root.append(text(left - 10, base - rowHeight / 2 + 17, gone ? `${members.length}, drops ${gone}` : String(members.length), { class: "faint", "text-anchor": "end" }));
    counts[row].forEach((count, i) => {
      if (!count) return;
      const [from, to] = [edges[i], edges[i + 1]];
      const size = { x: x(from) + 0.5, y: y(count), width: Math.max(1, x(to) - x(from) - 1.5), height: base - y(count) };
      const title = `${number(from, digits)} to ${number(to, digits)}: ${count} ${name}; click to list them`;
      const choose = (event) => {
        event.preventDefault();
        filterBy({ ...UNFILTERED, ...filter, range: { metric: key, from, to, last: i === bins - 1 } });
        $("count").scrollIntoView({ block: "center" });
      };
      const hit = svg("rect", { class: "hit", x: size.x, y: base - rowHeight + 4, width: size.width, height: rowHeight - 4 });
      root.append(hover(svg("a", { class: "bar-link", href: "#overview", "aria-label": title, onclick: choose }, hit, svg("rect", { class: `bar-${kind}`, ...size })), title));
    });
  });
  const bottom = head + rowHeight * groups.length;
  const marksX = ticks(edges[0], edges[bins], width / 90);
  for (const value of marksX) {
    root.append(svg("path", { class: "axis", d: `M${x(value).toFixed(1)} ${bottom}v4` }));
    root.append(text(x(value), bottom + 16, number(value, tickDigits(marksX)), { class: "tick", "text-anchor": "middle" }));
  }
  const meaning = metric.unit ? `${metric.explanation}, ${metric.unit}` : metric.explanation;
  root.append(hover(text(width / 2, height - 4, shorten(meaning, width / 6), { class: "axis-name", "text-anchor": "middle" }), meaning));
  if (limit !== null) {
    root.append(svg("path", { class: "limit", d: `M${x(limit)} ${head}V${bottom}` }));
    const side = x(limit) > width - 50 ? [-4, "end"] : [4, "start"];
    root.append(text(x(limit) + side[0], head + 9, "limit", { class: "limit-name", "text-anchor": side[1] }));
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

// Of more points than can be told apart a part, spread over all of them.
const MOST_POINTS = 1500;
function thin(points) {
  const step = Math.ceil(points.length / MOST_POINTS);
  const found = [];
  for (let at = 0; at < points.length; at += step) found.push(points[at]);
  return found;
}

function staticScatter(width) {
  const points = thin(episodes.filter((episode) => episode.metrics.voc !== null && (episode.metrics.static_voc ?? null) !== null));
  const [left, right, head, axis] = [44, 14, 18, 38];
  const height = 202;
  const low = Math.min(0, ...points.map((episode) => Math.min(episode.metrics.voc, episode.metrics.static_voc)));
  const from = Math.max(-1, Math.floor(low * 2) / 2);
  const x = scale([from, 1], [left, width - right - 6]);
  const y = scale([from, 1], [height - axis, head + 6]);
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group" });
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
  const redraw = () => drawn && place.replaceChildren(draw(drawn));
  new ResizeObserver(() => {
    const width = Math.floor(place.clientWidth);
    if (width > 0 && width !== drawn) {
      drawn = width;
      redraw();
    }
  }).observe(place);
  return { node, redraw };
}

// Any number of the episodes, by outcome or by task, with a limit on it that can be moved.
function distribution() {
  const controls = h("div", { class: "limits-place" });
  const draw = (width) => {
    const metric = metricOf[chart.metric];
    const rule = ruleOf[metric.key];
    return histogram(width, { metric, limit: rule ? limitOf(rule) : null, groups: histogramRows() });
  };
  let shownControls = null;
  const choose = () => {
    shownControls = limitControls(metricOf[chart.metric]);
    controls.replaceChildren(shownControls);
  };
  const pick = (name, label, options) => {
    const box = h("select", { id: `chart-${name}`, "aria-label": label }, ...options.map(([value, words]) => h("option", { value, selected: value === chart[name] }, words)));
    box.addEventListener("change", () => {
      chart[name] = box.value;
      choose();
      redraw();
    });
    return box;
  };
  const groups = [["all", "together"], knowsSuccess ? ["outcome", "by outcome"] : null, tasks.length > 1 ? ["task", "by task"] : null].filter(Boolean);
  const choices = h("span", { class: "choices" },
    pick("metric", "Number that is shown", metrics.map(({ key, label }) => [key, label])),
    groups.length > 1 ? pick("by", "How episodes are grouped", groups) : null);
  const known = data.success_origin ? h("p", { class: "faint" }, `success known from ${data.success_origin}`) : "";
  const { node, redraw } = figure("Distribution and limit", choices, draw, known, controls);
  choose();
  listeners.push((what) => {
    if (what === "marks" || what === "limits") shownControls.show?.();
    if (what === "limits") redraw();
  });
  return node;
}

function charts() {
  if (!episodes.length) return [];
  if (episodes.some((episode) => (episode.metrics.static_voc ?? null) !== null)) {
    return [distribution(), figure("What time alone explains", knowsSuccess ? legend() : "", staticScatter).node];
  }
  const hint = h("p", { class: "hint" }, "No static control: a curve can rise with time alone. To see how much, label again with ",
    h("code", {}, "--control static"), ".");
  return [distribution(), h("figure", { class: "chart" }, h("figcaption", {}, h("h2", {}, "What time alone explains"), ""), hint)];
}
