// The data, the marks that a person makes, and which episodes are listed in which order.

const data = JSON.parse($("data").textContent);
const episodes = data.episodes.map((one) => ({
  ...one,
  media: data.media[one.episode] ?? { kind: "none", reason: null, thumbnail: null },
}));
const byIndex = new Map(episodes.map((one) => [one.episode, one]));
const tasks = [...new Set(episodes.map((one) => one.task))];
const knowsSuccess = episodes.some((one) => one.success !== null);
const hasThumbnails = episodes.some((one) => one.media.thumbnail);
const metrics = METRICS.filter((one) => episodes.some((e) => e.metrics[one.key] !== undefined));

const listeners = [];
function changed(what, episode = null) {
  for (const listener of listeners) listener(what, episode);
}

// Marks: a person's word, which beats the rules.

const WORDS = ["keep", "drop"];
const marks = new Map();
const history = [];
let stored = true; // whether marks survive a reload
let saved = true; // whether the marks are in a file

const storageKey = `lerobot-topreward-report/${data.fingerprint}/${checksum(JSON.stringify(data.decisions))}`;

function checksum(text) {
  let sum = 5381;
  for (let i = 0; i < text.length; i++) sum = ((sum * 33) ^ text.charCodeAt(i)) >>> 0;
  return sum.toString(36);
}

function loadMarks() {
  let kept = null;
  try {
    kept = JSON.parse(localStorage.getItem(storageKey));
    localStorage.setItem(storageKey, JSON.stringify(kept ?? data.decisions));
  } catch {
    stored = false; // some browsers keep nothing for files
  }
  for (const [name, word] of Object.entries(kept ?? data.decisions)) {
    if (byIndex.has(Number(name)) && WORDS.includes(word)) marks.set(Number(name), word);
  }
}

function mark(episode, word) {
  history.push([episode, marks.get(episode) ?? null]);
  setMark(episode, marks.get(episode) === word ? null : word);
  say(`Episode ${episode}: ${marks.get(episode) ? `marked ${word}` : "no mark"}`);
}

function undo() {
  const last = history.pop();
  if (!last) return say("Nothing to undo");
  setMark(...last);
  say(`Undone: episode ${last[0]} ${last[1] ? `marked ${last[1]}` : "has no mark"}`);
}

function setMark(episode, word) {
  if (word) marks.set(episode, word);
  else marks.delete(episode);
  saved = false;
  try {
    localStorage.setItem(storageKey, JSON.stringify(Object.fromEntries(marks)));
  } catch {
    stored = false;
  }
  changed("marks", episode);
}

function verdict(one) {
  return marks.get(one.episode) ?? (one.keep ? "keep" : "drop");
}

function decisions() {
  const sorted = [...marks].sort((a, b) => a[0] - b[0]).map(([name, word]) => [String(name), word]);
  return {
    format: 1,
    dataset: data.dataset,
    fingerprint: data.fingerprint,
    decisions: Object.fromEntries(sorted),
  };
}

function download() {
  const blob = new Blob([JSON.stringify(decisions(), null, 2) + "\n"], { type: "application/json" });
  const link = h("a", { href: URL.createObjectURL(blob), download: "decisions.json" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  saved = true;
  say(`${plural(marks.size, "decision")} saved as decisions.json`);
}

// The list.

const SORTS = {
  episode: { value: (one) => one.episode, worst: "low" },
  verdict: { value: (one) => (verdict(one) === "drop" ? 0 : 1), worst: "low" },
  outcome: { value: (one) => (one.success === null ? null : Number(one.success)), worst: "low" },
  task: { value: (one) => one.task, worst: "low" },
};
for (const metric of METRICS) {
  const never = metric.missing ? Infinity : null;
  SORTS[metric.key] = { value: (one) => one.metrics[metric.key] ?? never, worst: metric.worst };
}

const list = { sort: "success_score", worstFirst: true, task: "", verdict: "", outcome: "", text: "" };
let shown = [];

const VERDICT_FILTERS = {
  "": () => true,
  keep: (one) => verdict(one) === "keep",
  drop: (one) => verdict(one) === "drop",
  marked: (one) => marks.has(one.episode),
  unmarked: (one) => !marks.has(one.episode),
  overruled: (one) => marks.has(one.episode) && (marks.get(one.episode) === "keep") !== one.keep,
};

function listed(one) {
  const text = list.text.trim().toLowerCase();
  const found = () =>
    String(one.episode) === text.replace(/^#/, "") ||
    one.task.toLowerCase().includes(text) ||
    one.reasons.some((reason) => reason.toLowerCase().includes(text));
  return (
    (list.task === "" || one.task === list.task) &&
    (list.outcome === "" || outcome(one.success) === list.outcome) &&
    VERDICT_FILTERS[list.verdict](one) &&
    (text === "" || found())
  );
}

function compare(a, b) {
  const { value, worst } = SORTS[list.sort];
  const [left, right] = [value(a), value(b)];
  if (left === null || right === null) return (left === null) - (right === null);
  const ascending = (worst === "low") === list.worstFirst;
  return (left < right ? -1 : Number(left > right)) * (ascending ? 1 : -1);
}

function arrange() {
  shown = episodes.filter(listed).sort((a, b) => compare(a, b) || a.episode - b.episode);
  changed("list");
}

function sortBy(key) {
  list.worstFirst = list.sort === key ? !list.worstFirst : true;
  list.sort = key;
  arrange();
}

function neighbour(episode, step) {
  const at = shown.findIndex((one) => one.episode === episode);
  return at < 0 ? shown[0] : shown[at + step];
}
