// Keys, and the panel that lists them.

const KEYS = [
  ["↑ ↓  or  p n", "previous and next episode of the list"],
  ["Enter", "open the episode; in the overview, the one that has the focus"],
  ["Esc  or  o", "back to the overview"],
  ["k", "mark: keep (again: remove the mark)"],
  ["d", "mark: drop (again: remove the mark)"],
  ["u", "undo the last mark"],
  ["← →", "previous and next scored prefix"],
  [",  .", "one frame back and on"],
  ["Home End", "first and last frame"],
  ["Space", "play and pause"],
  ["+ − 0", "zoom in on the cursor, out, and back to the whole episode"],
  ["c", "compare: keep this episode on view beside others"],
  ["e", "write a note"],
  ["a", "go on to the next episode after a mark, or stay"],
  ["/", "search"],
  ["s", "save the decisions as a file"],
  ["?", "this panel"],
];

function drawHelp() {
  const keys = KEYS.map(([key, what]) => h("tr", {}, h("th", { scope: "row" }, ...key.split(/\s{2}|\s/).filter(Boolean).map((name) => (name === "or" ? " or " : h("kbd", {}, name)))), h("td", {}, what)));
  const terms = [
    ["Prefix", "the episode's video from its start to some frame; each dot on a curve is one that the VLM was asked about"],
    ["log P(True)", "how likely the VLM says that the task is done at the end of the prefix, in nats, at most 0"],
    ["Progress", "that value scaled to 0..1 over all episodes of the task"],
    ["Advantage", `progress gained in the ${number(data.horizon, 1)} s that follow`],
    ...metrics.map(({ label, explanation }) => [label, explanation]),
    ["Recording", "what its numbers say against themselves. Broken: training on it is wrong; suspect: look at it; a note: nothing to do"],
  ];
  $("help").replaceChildren(
    h("header", {}, h("h2", { id: "help-title" }, "Keys and terms"), h("button", { type: "button", class: "round", "aria-label": "Close", onclick: () => $("help").close() }, icon(ICONS.drop))),
    h("div", { class: "help-columns" },
      h("table", { class: "keys" }, h("tbody", {}, ...keys)),
      h("dl", { class: "terms" }, ...terms.flatMap(([term, meaning]) => [h("dt", {}, term), h("dd", {}, meaning)]))),
    h("p", { class: "faint" }, "Your marks override the rules. Save them, then make a dataset without what is dropped: ",
      h("code", {}, "lerobot-topreward curate --decisions decisions.json")));
}

function focusedEpisode() {
  if (current) return current.episode;
  const row = document.activeElement?.closest("tr[data-episode]");
  return row ? byIndex.get(Number(row.dataset.episode)) : null;
}

// The next episode of the list: on view, or focused in the overview.
function move(step) {
  if (current) {
    const next = neighbor(current.episode, step);
    if (next) go(next.index);
    return;
  }
  const here = focusedEpisode();
  const other = here ? neighbor(here, step) : shown[0];
  const link = other && findRow(other).querySelector("a");
  link?.focus();
  link?.scrollIntoView({ block: "nearest" });
}

const ACTIONS = {
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  n: () => move(1),
  p: () => move(-1),
  ArrowRight: () => current && stepPrefix(1),
  ArrowLeft: () => current && stepPrefix(-1),
  ".": () => current && (stop(), setFrame(current.frame + 1)),
  ",": () => current && (stop(), setFrame(current.frame - 1)),
  Home: () => current && (stop(), setFrame(0)),
  End: () => current && (stop(), setFrame(current.episode.frames - 1)),
  " ": () => current && togglePlay(),
  k: () => focusedEpisode() && decide(focusedEpisode().index, "keep"),
  d: () => focusedEpisode() && decide(focusedEpisode().index, "drop"),
  u: () => undo(),
  s: () => !$("download").disabled && download(),
  "+": () => zoomBy(0.5),
  "=": () => zoomBy(0.5), // + without shift
  "-": () => zoomBy(2),
  0: () => zoomBy(Infinity),
  c: () => toggleBeside(),
  e: () => $("note").focus(),
  a: () => $("advance").click(),
  o: () => visit("overview"),
  Escape: () => visit("overview"),
  "/": () => {
    visit("overview");
    $("search").focus();
  },
  "?": () => $("help").showModal(),
};
const ONLY_EPISODE = ["ArrowRight", "ArrowLeft", ".", ",", "Home", "End", " ", "+", "=", "-", "0", "c", "e", "a"];

function pressKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const { target, key } = event;
  if (target.matches("select, input:not([type=checkbox])")) {
    if (key === "Escape") target.blur();
    return;
  }
  if (key === " " && target.closest("button, a, summary, input")) return; // its own
  const name = key.length === 1 ? key.toLowerCase() : key;
  if (!Object.hasOwn(ACTIONS, name) || (!current && ONLY_EPISODE.includes(name))) return;
  event.preventDefault();
  ACTIONS[name]();
}
