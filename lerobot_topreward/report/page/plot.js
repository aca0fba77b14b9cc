// The few pieces of a plot.

function scale(from, to) {
  const [a, b] = from;
  const factor = b === a ? 0 : (to[1] - to[0]) / (b - a);
  const map = (value) => to[0] + (value - a) * factor;
  map.invert = (place) => (factor === 0 ? a : a + (place - to[0]) / factor);
  return map;
}

function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-6); i * step <= high + step * 1e-6; i++) found.push(i * step);
  return found;
}

function tickDigits(values) {
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) : 1;
  for (let digits = 0; digits < 4; digits++) {
    if (Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) < 1e-6) return digits;
  }
  return 4;
}

function line(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`).join("");
}

function text(x, y, content, attributes = {}) {
  return svg("text", { x, y, ...attributes }, content);
}

function hover(node, title) {
  node.append(svg("title", {}, title));
  return node;
}

// One value of a curve of an episode: straight between knots, never across segments.
function valueAt(episode, name, frame) {
  const knots = episode.curve.frame;
  let low = 0;
  let high = knots.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (knots[middle] <= frame) low = middle;
    else high = middle - 1;
  }
  const values = episode.curve[name];
  if (knots[low] === frame || low + 1 === knots.length) return values[low];
  const part = (frame - knots[low]) / (knots[low + 1] - knots[low]);
  return values[low] + part * (values[low + 1] - values[low]);
}

// The knots of a curve, a list for each segment.
function runs(episode, name) {
  const found = [];
  let at = 0;
  for (const part of episode.parts) {
    const run = [];
    for (; at < episode.curve.frame.length && episode.curve.frame[at] < part.start + part.length; at++) {
      run.push([episode.curve.frame[at], episode.curve[name][at]]);
    }
    found.push(run);
  }
  return found;
}

function sparkline(episode, width, height) {
  const x = scale([0, Math.max(1, episode.frames - 1)], [2, width - 3]);
  const y = scale([0, 1], [height - 3, 3]);
  const lines = runs(episode, "progress").map((run) => line(run.map(([f, v]) => [x(f), y(v)])));
  const last = episode.curve.progress.length - 1;
  return svg(
    "svg",
    { class: "spark", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    svg("path", { class: "spark-base", d: `M0 ${y(0)}H${width}M0 ${y(1)}H${width}` }),
    svg("path", { class: "spark-line", d: lines.join("") }),
    svg("circle", { class: "spark-end", cx: x(episode.frames - 1), cy: y(episode.curve.progress[last]), r: 2.2 }),
  );
}
