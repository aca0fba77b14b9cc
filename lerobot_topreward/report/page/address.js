// The address says what is on view, and how the list is sorted, filtered and judged:
// #overview or #episode=12, perhaps &beside=7, &sort=voc, &task=pour, &limit=min_voc:0.5 and so on.
// It may come from anybody, so what does not fit this page is left out.

const LIST_KEYS = ["sort", "task", "verdict", "outcome", "text", "range", "limit"];

function address(view) {
  const found = new URLSearchParams();
  if (list.sort !== "success_score" || !list.worstFirst) found.append("sort", list.worstFirst ? list.sort : `${list.sort}:best`);
  for (const key of ["task", "verdict", "outcome", "text"]) if (list[key]) found.append(key, list[key]);
  if (list.range) found.append("range", [list.range.metric, list.range.from, list.range.to, list.range.last ? "last" : ""].join(":"));
  for (const [rule, limit] of moved) found.append("limit", `${rule}:${limit ?? "none"}`);
  return `#${view}${found.size ? `&${found}` : ""}`;
}

// Takes over what an address says of the list, if it says anything.
function readAddress(found) {
  if (!LIST_KEYS.some((key) => found.has(key))) return;
  Object.assign(list, UNFILTERED, { sort: "success_score", worstFirst: true });
  moved.clear();
  const [sort, end] = (found.get("sort") ?? "").split(":");
  if (Object.hasOwn(SORTS, sort)) Object.assign(list, { sort, worstFirst: end !== "best" });
  const allowed = { task: tasks, verdict: Object.keys(VERDICT_FILTERS), outcome: OUTCOMES.map(({ name }) => name) };
  for (const [key, values] of Object.entries(allowed)) if (values.includes(found.get(key))) list[key] = found.get(key);
  list.text = (found.get("text") ?? "").slice(0, 200);
  const [metric, from, to, last] = (found.get("range") ?? "").split(":");
  if (Object.hasOwn(metricOf, metric) && from && to && Number.isFinite(Number(from)) && Number.isFinite(Number(to))) {
    list.range = { metric, from: Number(from), to: Number(to), last: last === "last" };
  }
  for (const [rule, limit] of found.getAll("limit").map((each) => each.split(":"))) {
    if (!Object.hasOwn(data.comparisons, rule)) continue;
    const { low, high } = data.comparisons[rule];
    const value = limit === "none" ? null : Number(limit || NaN);
    if (value === null || (Number.isFinite(value) && value >= (low ?? -Infinity) && value <= (high ?? Infinity))) moved.set(rule, value);
  }
  notify("limits");
}

function showAddress() {
  const view = current ? `episode=${current.episode.index}${current.beside ? `&beside=${current.beside.episode.index}` : ""}` : "overview";
  const wanted = address(view);
  if (location.hash !== wanted && !(view === "overview" && wanted === "#overview" && !location.hash)) window.history.replaceState(null, "", wanted);
}
