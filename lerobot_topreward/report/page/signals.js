// Commands and readings over time, under the rewards: those of one joint together, or all of a kind.

const SIGNAL_PANE = { share: 0.3 };
const UNKNOWN = 255; // of a byte: no number was recorded
const KINDS_OF_SIGNALS = { "action.": "command", "observation.state.": "reading" };
const signal = { chosen: "" }; // joint, or "all " and a kind

function jointOf(name) {
  const prefix = Object.keys(KINDS_OF_SIGNALS).find((each) => name.startsWith(each));
  return prefix ? name.slice(prefix.length) : name;
}

function kindOfSignal(name) {
  const prefix = Object.keys(KINDS_OF_SIGNALS).find((each) => name.startsWith(each));
  return prefix ? KINDS_OF_SIGNALS[prefix] : "reading";
}

// The places in `data.signals` that a choice stands for.
function chosenSignals() {
  const all = data.signals.names.map((name, place) => ({ name, place, kind: kindOfSignal(name) }));
  if (signal.chosen.startsWith("all ")) return all.filter(({ kind }) => `all ${kind}s` === signal.chosen);
  return all.filter(({ name }) => jointOf(name) === signal.chosen);
}

function signalChoice() {
  if (!data.signals) return null;
  const { names } = data.signals;
  const joints = [...new Set(names.map(jointOf))];
  const kinds = [...new Set(names.map(kindOfSignal))].map((kind) => `all ${kind}s`);
  const node = h("select", { id: "signal", "aria-label": "Commands and readings" },
    ...[["", "No signals"], ...[...kinds, ...joints].map((name) => [name, name])].map(([value, words]) => h("option", { value, selected: value === signal.chosen }, words)));
  node.addEventListener("change", () => {
    signal.chosen = node.value;
    fitTimeline();
  });
  return node;
}

// Of every signal the values at points that lie evenly over the episode; null where unknown.
function signalRows(episode) {
  const found = window.atob($(`signals-${episode.index}`)?.textContent ?? "");
  const { low, high } = data.signals;
  const points = Math.floor(found.length / low.length);
  return low.map((from, row) => [...found.slice(row * points, (row + 1) * points)].map((character) => {
    const byte = character.charCodeAt(0);
    return byte === UNKNOWN ? null : from + ((high[row] - from) * byte) / (UNKNOWN - 1);
  }));
}

function signalPane(episode, x, top, height, width, inside) {
  const chosen = chosenSignals();
  const rowsOfAll = signalRows(episode);
  const single = !signal.chosen.startsWith("all ");
  const { low, high } = data.signals;
  const bounds = single ? [Math.min(...chosen.map(({ place }) => low[place])), Math.max(...chosen.map(({ place }) => high[place]))] : [0, 1];
  const range = bounds[0] === bounds[1] ? [bounds[0] - 0.5, bounds[1] + 0.5] : bounds;
  const y = scale(range, [top + height, top]);
  const shownAs = (place, value) => (single ? value : high[place] > low[place] ? (value - low[place]) / (high[place] - low[place]) : 0.5);
  const group = svg("g", { class: "pane signals" });
  const right = width - EDGE;
  const values = ticks(...range, Math.max(2, height / 34));
  for (const value of values) {
    group.append(svg("path", { class: "grid", d: `M${GUTTER} ${y(value).toFixed(1)}H${right}` }));
    group.append(text(GUTTER - 7, y(value) + 4, number(value, tickDigits(values)), { class: "tick", "text-anchor": "end" }));
  }
  group.append(text(GUTTER, top - 7, single ? `${signal.chosen}: ${[...new Set(chosen.map(({ kind }) => kind))].join(" and ")}` : `${signal.chosen}, each over its range`, { class: "pane-name" }));
  const readout = text(right, top - 7, "", { class: "readout", "text-anchor": "end", "data-pane": "signals" });
  const curves = svg("g", { "clip-path": inside });
  group.append(readout, curves);
  const points = rowsOfAll[0]?.length ?? 0;
  const frameAt = (i) => (points > 1 ? (i * (episode.frames - 1)) / (points - 1) : 0);
  chosen.forEach(({ name, place, kind }, i) => {
    const pieces = [[]];
    rowsOfAll[place].forEach((value, at) => (value === null ? pieces.push([]) : pieces.at(-1).push([x(frameAt(at)), y(shownAs(place, value))])));
    const color = single ? (kind === "command" ? 0 : 1) : i % 8;
    curves.append(hover(svg("path", { class: `signal signal-${color} ${kind}`, d: pieces.filter((piece) => piece.length).map(line).join("") }), name));
  });
  const show = (frame) => {
    if (!single || !points) return;
    const at = Math.round((frame * (points - 1)) / Math.max(1, episode.frames - 1));
    readout.textContent = chosen.map(({ place, kind }) => `${kind} ${number(rowsOfAll[place][at], 2)}`).join(", ");
  };
  return { group, show };
}
