// A limit that is moved, what it would keep and drop, and the command that does the same.

const ruleOf = Object.fromEntries(Object.entries(data.comparisons).map(([rule, { metric }]) => [metric, rule]));

function ruleTexts() {
  const names = [...new Set([...Object.keys(data.rules), ...moved.keys()])];
  return names.filter((rule) => limitOf(rule) !== null).map((rule) =>
    moved.has(rule) ? data.comparisons[rule].words.replace("{}", String(limitOf(rule))) : data.rule_texts[rule]);
}

// What `curate` must be asked for to decide as this page does.
function curateCommand() {
  const names = [...new Set([...Object.keys(data.rules), ...moved.keys()])].filter((rule) => rule !== "drop_broken" && limitOf(rule) !== null);
  const limits = names.map((rule) => `--${rule.replaceAll("_", "-")} ${limitOf(rule)}`);
  if (!limits.length) limits.push("--max-idle 1"); // without any, curate has a default
  if (inspected && !("drop_broken" in data.rules)) limits.push("--no-drop-broken");
  if (marks.size || notes.size) limits.push("--decisions decisions.json");
  return [data.command, ...limits, "--output curated"].join(" ");
}

function drawCommand() {
  $("rules")?.replaceChildren(h("b", {}, "Rules: "), `${ruleTexts().join("; ") || "none"}.`);
  $("command")?.replaceChildren(curateCommand());
}

function commandLine() {
  const copy = () => {
    const selection = window.getSelection();
    selection.selectAllChildren($("command"));
    window.navigator.clipboard?.writeText(curateCommand()).then(() => say("Copied"), () => say("Selected: copy it"));
  };
  const care = data.judgment.level === "cannot judge this dataset" ? " this reward cannot judge the dataset, so curate drops nothing by it unless --force-rules is added." : "";
  return h("div", { class: "command" },
    h("span", { class: "faint" }, `The command that decides as this page does now:${care}`),
    h("code", { id: "command" }), h("button", { type: "button", id: "copy", onclick: copy }, "Copy"));
}

// The smallest step that a slider of some hundred places needs.
function stepOf(low, high) {
  return high > low ? 10 ** Math.floor(Math.log10((high - low) / 100)) : 0.01;
}

function roundTo(value, step) {
  return Number((Math.round(value / step) * step).toPrecision(10));
}

function describeLimit(rule, limit) {
  const gone = limit === null ? [] : episodes.filter((episode) => breaks(rule, limit, episode));
  const counted = OUTCOMES.map(({ name }) => [name, gone.filter((episode) => outcome(episode.success) === name).length]);
  const parts = counted.filter(([, count]) => count).map(([name, count]) => `${count} ${name}`);
  const kept = episodes.filter((episode) => verdict(episode) === "keep").length;
  return [
    `${limit === null ? "No limit" : `This limit drops ${gone.length} of ${episodes.length}`}${knowsSuccess && parts.length ? ` (${parts.join(", ")})` : ""}. `,
    h("b", {}, `All rules and marks: keep ${kept}, drop ${episodes.length - kept}.`),
  ];
}

function limitControls(metric) {
  const rule = ruleOf[metric.key];
  if (!rule) return h("p", { class: "hint" }, "No rule of curate compares this number with a limit.");
  const { sign, low: least, high: most } = data.comparisons[rule];
  const values = episodes.map((episode) => episode.metrics[metric.key] ?? null).filter((value) => value !== null);
  const given = data.rules[rule] ?? null;
  const [low, high] = values.length ? extent(given === null ? values : [...values, given]) : [0, 1];
  const step = stepOf(low, high);
  const from = Math.max(least ?? -Infinity, roundTo(low - step, step));
  const to = Math.min(most ?? Infinity, roundTo(high + step, step));
  const keepsAll = sign === "<" ? from : to;
  const bounds = { min: from, max: to, step };
  const slider = h("input", { type: "range", id: "limit", "aria-label": `Limit of ${metric.label}`, ...bounds });
  const box = h("input", { type: "number", id: "limit-number", "aria-label": `Limit of ${metric.label}, as a number`, min: least, max: most, step: "any" });
  const off = h("button", { type: "button", id: "limit-off", onclick: () => moveLimit(rule, null) }, "No limit");
  const back = h("button", { type: "button", id: "limit-reset", onclick: () => moveLimit(rule, given) }, given === null ? "Reset" : `Back to ${given}`);
  slider.addEventListener("input", () => moveLimit(rule, roundTo(Number(slider.value), step)));
  box.addEventListener("change", () => {
    const value = Number(box.value);
    if (box.value !== "" && value >= (least ?? -Infinity) && value <= (most ?? Infinity)) moveLimit(rule, value);
    else show();
  });
  const said = h("output", { id: "limit-said", for: "limit" });
  const show = () => {
    const limit = limitOf(rule);
    slider.value = limit ?? keepsAll;
    slider.setAttribute("aria-valuetext", limit === null ? "no limit" : String(limit));
    box.value = limit ?? "";
    off.disabled = limit === null;
    back.hidden = !moved.has(rule);
    said.replaceChildren(...describeLimit(rule, limit));
  };
  show();
  return Object.assign(h("div", { class: "limits" }, h("label", { for: "limit" }, sign === "<" ? "Keep from" : "Keep up to"), slider, box, off, back, said), { show });
}
