// What frames weigh in training, under the rewards; the same scale for all episodes.

const WEIGHT_PANE = { share: 0.25 };
const NOT_TRAINED_ON = 65535; // of two bytes

// Mean weights of spans that divide the episode evenly; null where no frame is trained on.
function weightsOf(episode) {
  const bytes = Uint8Array.from(window.atob($(`weights-${episode.index}`)?.textContent ?? ""), (character) => character.charCodeAt(0));
  return [...new Uint16Array(bytes.buffer)].map((value) => (value === NOT_TRAINED_ON ? null : (data.weights.high * value) / (NOT_TRAINED_ON - 1)));
}

function weightPane(episode, x, top, height, width, inside) {
  const values = weightsOf(episode);
  const high = Math.max(2, data.weights.high);
  // Square roots, so that what weighs little is told from what weighs nothing beside large weights.
  const place = scale([0, 1], [top + height, top]);
  const y = (value) => place(Math.sqrt(value / high));
  const group = svg("g", { class: "pane weights" });
  const right = width - EDGE;
  group.append(text(right, y(1) - 4, "average", { class: "limit-name", "text-anchor": "end" }));
  const ticksY = [0, 1, ...(high >= 4 ? [Math.round(high / 2), Math.floor(high)] : [2])];
  for (const value of ticksY) {
    group.append(svg("path", { class: value === 1 ? "equal" : "grid", d: `M${GUTTER} ${y(value).toFixed(1)}H${right}` }));
    group.append(text(GUTTER - 7, y(value) + 4, number(value, 0), { class: "tick", "text-anchor": "end" }));
  }
  group.append(text(GUTTER, top - 7, "Weight in training (√ scale)", { class: "pane-name" }));
  const readout = text(right, top - 7, "", { class: "readout", "text-anchor": "end", "data-pane": "weights" });
  const curves = svg("g", { "clip-path": inside });
  group.append(readout, curves);
  // Each value is a step as wide as its span.
  const edge = (i) => x((i * episode.frames) / values.length - 0.5);
  const steps = values.map((value, i) => (value === null ? "" : `M${edge(i).toFixed(2)} ${y(0)}V${y(value).toFixed(2)}H${edge(i + 1).toFixed(2)}V${y(0)}Z`));
  curves.append(svg("path", { class: "weight", d: steps.join("") }));
  const show = (frame) => {
    const value = values[Math.floor((frame * values.length) / episode.frames)] ?? null;
    readout.textContent = value === null ? "not trained on" : number(value, 2);
  };
  return { group, show };
}
