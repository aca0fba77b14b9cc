// The overview: headline numbers, charts, and the list of episodes.

const rows = new Map(); // episode -> its row, of those that have been in the list's drawn part
const AT_ONCE = 100; // rows that are drawn together
let drawn = 0; // rows of the list that are in the document: the first ones

function verdictBadge(episode) {
  const word = verdict(episode);
  const own = marks.has(episode.index);
  return h(
    "span",
    { class: `badge ${word}${own ? " own" : ""}`, title: own ? "your mark" : reasonsOf(episode).join("; ") || "breaks no rule" },
    icon(ICONS[word]),
    h("span", {}, word),
    own ? h("span", { class: "own-note" }, "marked") : null,
  );
}

function outcomeText(episode) {
  const kind = kindOf(episode);
  return h("span", { class: `outcome ${kind}` },
    svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, glyph(kind, 6, 6)), outcome(episode.success));
}

function thumbnail(episode) {
  const source = episode.media.thumbnail;
  if (!source) return h("span", { class: "thumb none" });
  return h("img", { class: "thumb", alt: "", decoding: "async", src: `data:image/webp;base64,${source}` });
}

function judgment() {
  const { level, evidence } = data.judgment;
  const [kind, mark] = { usable: ["good", ICONS.keep], "usable with care": ["care", ICONS.care] }[level] ?? ["bad", ICONS.drop];
  const items = (found) => h("ul", {}, ...found.map(({ text }) => h("li", {}, text)));
  const decided = evidence.filter(({ grade }) => grade === kind && kind !== "good");
  const others = evidence.filter((found) => !decided.includes(found));
  return h("section", { class: `judgment ${kind}`, "aria-label": "Judgment of the reward" },
    h("h2", {}, icon(mark), `This reward: ${level}`),
    decided.length ? items(decided) : null,
    others.length ? h("details", {}, h("summary", {}, decided.length ? "What else was looked at" : "Why"), items(others)) : null);
}

function headline() {
  const minutes = episodes.reduce((sum, episode) => sum + episode.metrics.seconds, 0) / 60;
  const vocs = episodes.map((episode) => episode.metrics.voc).filter((value) => value !== null);
  const mean = vocs.length ? vocs.reduce((a, b) => a + b, 0) / vocs.length : null;
  const total = episodes.length + Object.keys(data.unlabelled).length;
  const items = [
    ["episodes", String(episodes.length), episodes.length < total ? `labelled, of ${total}` : null],
    ["tasks", String(tasks.length), null],
    ["of video", `${number(minutes, minutes < 10 ? 1 : 0)} min`, null],
    ["mean VOC", number(mean, 2), "1: always in order"],
    data.static_share === null ? null : ["static rise", percent(data.static_share), "of the real rise"],
    data.success_auc === null ? null : ["success AUC", number(data.success_auc, 2), "0.5 is chance"],
  ];
  const cells = items.filter(Boolean).map(([name, value, note]) =>
    h("div", { class: "figure" }, h("dt", {}, name), h("dd", {}, value), note ? h("dd", { class: "faint" }, note) : null));
  return h("dl", { class: "headline" }, ...cells, h("div", { class: "figure split", id: "split" }));
}

function drawSplit() {
  const place = $("split");
  if (!place) return;
  const kept = episodes.filter((episode) => verdict(episode) === "keep").length;
  const dropped = episodes.length - kept;
  const part = (kind, count) => {
    const node = h("span", { class: `part ${kind}` });
    node.style.flexGrow = count;
    return node;
  };
  place.replaceChildren(
    h("dt", {}, [moved.size ? "moved limits" : "rules", marks.size ? "marks" : ""].filter(Boolean).join(" and ")),
    h("dd", {}, h("span", { class: "keep-text" }, `keep ${kept}`), h("span", { class: "drop-text" }, `drop ${dropped}`)),
    h("dd", { class: "stack", "aria-hidden": "true" }, part("keep", kept), part("drop", dropped)),
  );
}

function about() {
  const differs = data.columns ? ` The dataset's own progress is ${data.columns}, so its values differ.` : "";
  return h("div", { class: "about" },
    h("p", { id: "rules" }),
    h("p", {}, h("b", {}, "Progress "), `is ${data.made_of}, scaled over all episodes of a task so that episodes compare.${differs}`),
    h("p", {}, h("b", {}, "Scored "), `by ${data.vlm} on ${data.scored_camera}.`),
    data.weights ? h("p", {}, h("b", {}, "Weights in training: "), `${data.weights.title}.`) : null,
    aboutRecording(),
  );
}

// The list.

function columns() {
  const found = [{ key: "episode", name: "Episode", short: "Ep.", class: "c-episode" }];
  if (hasThumbnails) found.push({ name: "Last frame", short: "End", class: "c-thumb" });
  found.push({ name: "Progress over time", short: "Progress", class: "c-spark" });
  found.push({ key: "verdict", name: "Verdict", short: "Verdict", class: "c-verdict" });
  if (knowsSuccess) found.push({ key: "outcome", name: "What happened", short: "Truth", class: "c-outcome" });
  if (inspected) found.push({ key: "recording", name: "What the recording says: its worst level, and how often", short: "Recording", class: "c-recording" });
  found.push({ key: "task", name: "Task", short: tasks.length > 1 ? "Task, reason to drop" : "Reason to drop", class: "c-task" });
  for (const metric of metrics) {
    const unit = metric.unit ? `, ${metric.unit}` : "";
    found.push({ key: metric.key, name: `${metric.label}${unit}: ${metric.explanation}`, short: metric.short, class: `number c-${metric.key}`, metric });
  }
  return found;
}

function cell(column, episode) {
  if (column.metric) return h("td", { class: column.class, "data-name": column.short }, metricText(column.metric, episode.metrics[column.key]));
  const content = {
    "c-episode": () => h("a", { href: `#episode=${episode.index}`, "aria-label": `Episode ${episode.index}` }, String(episode.index)),
    "c-thumb": () => thumbnail(episode),
    "c-spark": () => sparkline(episode, 104, 30),
    "c-verdict": () => verdictBadge(episode),
    "c-outcome": () => outcomeText(episode),
    "c-recording": () => recordingBadge(episode),
    "c-task": () => [
      tasks.length > 1 ? h("span", { class: "task", title: episode.task }, episode.task) : null,
      reasonLine(episode),
      noteLine(episode),
    ],
  }[column.class]();
  return h("td", { class: column.class, "data-name": column.short }, ...[content].flat());
}

function reasonLine(episode) {
  const reasons = reasonsOf(episode).join("; ");
  return reasons ? h("span", { class: "reason", title: reasons }, reasons) : null;
}

function noteLine(episode) {
  const note = noteText(episode.index);
  return note ? h("span", { class: "reason own-words", title: note }, note) : null;
}

function table() {
  const heads = columns().map((column) => {
    const inner = column.key
      ? h("button", { type: "button", title: column.name, onclick: () => sortBy(column.key) }, column.short, h("span", { class: "arrow", "aria-hidden": "true" }))
      : h("span", { title: column.name }, column.short);
    return h("th", { scope: "col", class: column.class, "data-key": column.key }, inner);
  });
  const end = h("div", { id: "list-end" });
  new window.IntersectionObserver((seen) => seen.some(({ isIntersecting }) => isIntersecting) && drawMore(), { rootMargin: "1500px" }).observe(end);
  return h("div", {}, h("div", { class: "scroll" }, h("table", { id: "episodes" }, h("thead", {}, h("tr", {}, ...heads)), h("tbody"))), end);
}

function rowOf(episode) {
  let row = rows.get(episode.index);
  if (!row) {
    row = h("tr", { "data-episode": episode.index, onclick: () => go(episode.index) }, ...columns().map((column) => cell(column, episode)));
    rows.set(episode.index, row);
  }
  row.querySelector("td.sorted")?.classList.remove("sorted");
  row.querySelector(`td.number.c-${list.sort}, td.c-recording.c-${list.sort}`)?.classList.add("sorted");
  return row;
}

// Thousands of rows take seconds to lay out, so they are drawn as they come into view. Until the
// end of the list is far enough away, each part that is drawn brings on the next.
function drawMore(least = drawn + 1) {
  if (drawn >= shown.length) return;
  const until = Math.max(least, drawn + AT_ONCE);
  document.querySelector("#episodes tbody").append(...shown.slice(drawn, until).map(rowOf));
  drawn = Math.min(until, shown.length);
  requestAnimationFrame(() => !$("overview").hidden && $("list-end").getBoundingClientRect().top < window.innerHeight + 1500 && drawMore());
}

// The row of an episode of the list, drawn with all before it if it was not yet.
function findRow(episode) {
  const place = shown.indexOf(episode);
  if (place >= drawn) drawMore(place + 1);
  return place < 0 ? null : rows.get(episode.index);
}

function select(name, options, value, apply) {
  const items = options.map(([key, label]) => h("option", { value: key, selected: key === value }, label));
  const node = h("select", { id: `filter-${name}`, "aria-label": `Filter by ${name}` }, ...items);
  node.addEventListener("change", () => apply(node.value));
  return node;
}

function filters() {
  const set = (key) => (value) => filterBy({ [key]: value });
  const search = h("input", { type: "search", id: "search", placeholder: "Search", "aria-label": "Search tasks, reasons and episode numbers", autocomplete: "off" });
  search.addEventListener("input", () => set("text")(search.value));
  const sorts = [...metrics.map(({ key, label }) => [key, `Worst first: ${label}`]), ["episode", "In order of episodes"]];
  if (inspected) sorts.unshift(["recording", "Worst first: Recording"]);
  const order = select("order", sorts, list.sort, (key) => filterBy({ sort: key, worstFirst: true }));
  order.setAttribute("aria-label", "Order");
  return h("div", { class: "filters" }, h("h2", {}, "Episodes"), h("span", { id: "count", class: "faint", role: "status" }),
    h("span", { class: "spacer" }), order,
    tasks.length > 1 ? select("task", [["", "All tasks"], ...tasks.map((task) => [task, shorten(task, 60)])], "", set("task")) : null,
    select("verdict", [["", "Any verdict"], ["keep", "Kept"], ["drop", "Dropped"], ["marked", "Marked"], ["unmarked", "Not marked"], ["noted", "With a note"], ["overruled", "Marked against the rules"]], "", set("verdict")),
    knowsSuccess ? select("outcome", [["", "Any outcome"], ...OUTCOMES.map(({ name }) => [name, name[0].toUpperCase() + name.slice(1)])], "", set("outcome")) : null,
    search,
    h("button", { type: "button", id: "range-off", hidden: true, onclick: () => filterBy({ range: null }) }, h("span", {}), icon(ICONS.drop)));
}

// What is done with all that are listed.
function bulk() {
  const button = (id, words, act) => h("button", { type: "button", id, onclick: act }, words);
  return h("div", { class: "bulk" }, h("span", { id: "bulk-count" }),
    button("bulk-keep", "Mark keep", () => markListed("keep")), button("bulk-drop", "Mark drop", () => markListed("drop")),
    button("bulk-none", "Remove marks", () => markListed(null)), button("bulk-undo", "Undo", undo), button("table", "Save as CSV", downloadTable));
}

// The controls say what the list is filtered by, wherever that comes from.
function showFilters() {
  for (const name of ["task", "verdict", "outcome"]) if ($(`filter-${name}`)) $(`filter-${name}`).value = list[name];
  if ($("search").value !== list.text) $("search").value = list.text;
  $("range-off").hidden = list.range === null;
  if (list.range) {
    const { label, digits } = metricOf[list.range.metric];
    $("range-off").firstChild.textContent = `${label} ${number(list.range.from, digits)} to ${number(list.range.to, digits)}`;
    $("range-off").setAttribute("aria-label", `Remove the filter: ${$("range-off").firstChild.textContent}`);
  }
  $("bulk-count").textContent = shown.length === episodes.length ? `All ${shown.length} episodes:` : `These ${plural(shown.length, "episode")}:`;
  for (const name of ["bulk-keep", "bulk-drop", "bulk-none", "table"]) $(name).disabled = !shown.length;
}

function drawList() {
  document.querySelector("#episodes tbody").replaceChildren();
  drawn = 0;
  drawMore();
  for (const head of document.querySelectorAll("#episodes th[data-key]")) {
    const { worst } = SORTS[head.dataset.key];
    const ascending = (worst === "low") === list.worstFirst;
    head.classList.toggle("sorted", head.dataset.key === list.sort); // a narrow page shows it for that
    if (head.dataset.key === list.sort) head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  }
  const order = $("filter-order");
  if ([...order.options].some(({ value }) => value === list.sort)) order.value = list.sort;
  $("count").textContent = shown.length === episodes.length ? `${shown.length}` : `${shown.length} of ${episodes.length}`;
  $("nothing").hidden = shown.length > 0;
  showFilters();
}

function unlabelled() {
  const items = Object.entries(data.unlabelled).map(([index, reason]) => h("li", {}, `Episode ${index}`, reason ? `: ${reason}` : ""));
  if (!items.length) return null;
  return h("details", { class: "missing", open: items.length <= 5 }, h("summary", {}, `${plural(items.length, "episode")} not labelled`), h("ul", {}, ...items));
}

function drawOverview() {
  $("overview").replaceChildren(
    h("h1", { class: "unseen" }, data.title),
    judgment(), headline(), about(), commandLine(), h("div", { class: "charts" }, ...charts(), startChart() ?? ""), filters(), bulk(), table(),
    h("p", { id: "nothing", class: "hint", hidden: true }, "No episode matches. Clear the search or choose another filter."),
    unlabelled() ?? "",
    h("p", { class: "foot faint" }, `lerobot-topreward ${data.version}, ${data.made}. Dataset ${data.dataset}, fingerprint ${data.fingerprint.slice(0, 12)}.`),
  );
  drawSplit();
  drawCommand();
}

let relisting = false; // a slider moves more often than thousands of episodes can be listed
function relist() {
  if (relisting) return;
  relisting = true;
  requestAnimationFrame(() => {
    relisting = false;
    rows.clear();
    arrange();
  });
}

listeners.push((what, indices) => {
  if (what === "list") drawList();
  if (what === "limits") relist();
  if (what === "limits" || what === "marks" || what === "notes") {
    drawSplit();
    drawCommand();
  }
  if (what === "marks") for (const index of indices) rows.get(index)?.querySelector(".c-verdict")?.replaceChildren(verdictBadge(byIndex.get(index)));
  if (what === "notes") for (const index of indices) rows.delete(index);
});
