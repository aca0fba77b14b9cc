// The episodes, what rules and marks say of them, and which of them are listed in which order.

const episodes = data.episodes.map((episode) => ({
  ...episode,
  media: data.media[episode.index] ?? { strip: null, reason: null, thumbnail: null },
}));
const byIndex = new Map(episodes.map((episode) => [episode.index, episode]));
const tasks = [...new Set(episodes.map((episode) => episode.task))];
const knowsSuccess = episodes.some((episode) => episode.success !== null);
const hasThumbnails = episodes.some((episode) => episode.media.thumbnail);

const listeners = [];
function notify(what, indices = []) {
  for (const listener of listeners) listener(what, indices);
}

// Limits that were moved in the page: they replace those of the rules.

const moved = new Map(); // rule -> limit; null: the rule is not used

function limitOf(rule) {
  return (moved.has(rule) ? moved.get(rule) : data.rules[rule]) ?? null;
}

// As `Comparison` in judging/rules.py: what equals the limit is kept, and so is what is undefined.
function breaks(rule, limit, episode) {
  const { metric, sign } = data.comparisons[rule];
  const value = episode.metrics[metric] ?? null;
  return value !== null && limit !== null && (sign === "<" ? value < limit : value > limit);
}

function reasonsOf(episode) {
  const fixed = Object.keys(episode.drops).filter((rule) => !moved.has(rule)).map((rule) => episode.drops[rule]);
  const own = [...moved].filter(([rule, limit]) => breaks(rule, limit, episode)).map(([rule, limit]) => {
    const { metric, name, sign, unit } = data.comparisons[rule];
    return `${name} ${number(episode.metrics[metric], 3)} ${sign} ${number(limit, 3)}${unit}`;
  });
  return [...fixed, ...own];
}

function ruling(episode) {
  return reasonsOf(episode).length ? "drop" : "keep";
}

function verdict(episode) {
  return marks.get(episode.index) ?? ruling(episode);
}

function moveLimit(rule, limit) {
  if (limit === (data.rules[rule] ?? null)) moved.delete(rule);
  else moved.set(rule, limit);
  notify("limits");
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

const UNFILTERED = { task: "", verdict: "", outcome: "", text: "", range: null };
const list = { sort: "success_score", worstFirst: true, ...UNFILTERED };
let shown = [];

const VERDICT_FILTERS = {
  "": () => true,
  keep: (episode) => verdict(episode) === "keep",
  drop: (episode) => verdict(episode) === "drop",
  marked: (episode) => marks.has(episode.index),
  unmarked: (episode) => !marks.has(episode.index),
  noted: (episode) => notes.has(episode.index),
  overruled: (episode) => marks.has(episode.index) && marks.get(episode.index) !== ruling(episode),
};

// `range` is half open but for a last one, which holds its end.
function isInRange(value, { from, to, last }) {
  return value !== null && value >= from && (value < to || (last && value === to));
}

function isListed(episode) {
  const text = list.text.trim().toLowerCase();
  const found = () =>
    String(episode.index) === text.replace(/^#/, "") ||
    [episode.task, ...reasonsOf(episode), noteText(episode.index), ...episode.findings.map((finding) => `${finding.level} ${describeFinding(finding)}`)]
      .some((each) => each.toLowerCase().includes(text));
  return (
    (list.task === "" || episode.task === list.task) &&
    (list.outcome === "" || outcome(episode.success) === list.outcome) &&
    (list.range === null || isInRange(episode.metrics[list.range.metric] ?? null, list.range)) &&
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

function filterBy(changes) {
  Object.assign(list, changes);
  arrange();
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
