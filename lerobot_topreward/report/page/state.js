// The episodes, the marks that a person makes, and which episodes are isListed in which order.

const episodes = data.episodes.map((episode) => ({
  ...episode,
  media: data.media[episode.index] ?? { strip: null, reason: null, thumbnail: null },
}));
const byIndex = new Map(episodes.map((episode) => [episode.index, episode]));
const tasks = [...new Set(episodes.map((episode) => episode.task))];
const knowsSuccess = episodes.some((episode) => episode.success !== null);
const hasThumbnails = episodes.some((episode) => episode.media.thumbnail);

const listeners = [];
function notify(what, index = null) {
  for (const listener of listeners) listener(what, index);
}

// Marks: manual decisions, which override the rules.

const WORDS = ["keep", "drop"];
const marks = new Map();
const undoable = []; // episode and the mark that it had, last episode last
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

function mark(index, word) {
  undoable.push([index, marks.get(index) ?? null]);
  setMark(index, marks.get(index) === word ? null : word);
  say(`Episode ${index}: ${marks.get(index) ? `marked ${word}` : "no mark"}`);
}

function undo() {
  const last = undoable.pop();
  if (!last) {
    say("Nothing to undo");
    return;
  }
  setMark(...last);
  say(`Undone: episode ${last[0]} ${last[1] ? `marked ${last[1]}` : "has no mark"}`);
}

function setMark(index, word) {
  if (word) marks.set(index, word);
  else marks.delete(index);
  saved = false;
  try {
    localStorage.setItem(storageKey, JSON.stringify(Object.fromEntries(marks)));
  } catch {
    stored = false;
  }
  notify("marks", index);
}

function verdict(episode) {
  return marks.get(episode.index) ?? (episode.keep ? "keep" : "drop");
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
  episode: { value: (episode) => episode.index, worst: "low" },
  verdict: { value: (episode) => (verdict(episode) === "drop" ? 0 : 1), worst: "low" },
  outcome: { value: (episode) => (episode.success === null ? null : Number(episode.success)), worst: "low" },
  task: { value: (episode) => episode.task, worst: "low" },
  recording: { value: (episode) => LEVELS.reduce((sum, level) => 1e4 * sum + countOf(episode, level), 0), worst: "high" },
};
for (const metric of metrics) {
  const never = metric.undefined ? Infinity : null;
  SORTS[metric.key] = { value: (episode) => episode.metrics[metric.key] ?? never, worst: metric.worst };
}

const list = { sort: "success_score", worstFirst: true, task: "", verdict: "", outcome: "", text: "" };
let shown = [];

const VERDICT_FILTERS = {
  "": () => true,
  keep: (episode) => verdict(episode) === "keep",
  drop: (episode) => verdict(episode) === "drop",
  marked: (episode) => marks.has(episode.index),
  unmarked: (episode) => !marks.has(episode.index),
  overruled: (episode) => marks.has(episode.index) && (marks.get(episode.index) === "keep") !== episode.keep,
};

function isListed(episode) {
  const text = list.text.trim().toLowerCase();
  const found = () =>
    String(episode.index) === text.replace(/^#/, "") ||
    episode.task.toLowerCase().includes(text) ||
    episode.reasons.some((reason) => reason.toLowerCase().includes(text)) ||
    episode.findings.some((finding) => `${finding.level} ${describeFinding(finding)}`.toLowerCase().includes(text));
  return (
    (list.task === "" || episode.task === list.task) &&
    (list.outcome === "" || outcome(episode.success) === list.outcome) &&
    VERDICT_FILTERS[list.verdict](episode) &&
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
  shown = episodes.filter(isListed).sort((a, b) => compare(a, b) || a.index - b.index);
  notify("list");
}

function sortBy(key) {
  list.worstFirst = list.sort === key ? !list.worstFirst : true;
  list.sort = key;
  arrange();
}

function neighbor(episode, step) {
  const at = shown.indexOf(episode);
  return at < 0 ? shown[0] : shown[at + step];
}
