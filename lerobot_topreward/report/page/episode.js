// One episode: its pictures, its curves, its numbers, and the buttons to decide.

let current = null; // the episode on view, its parts, its cursor, and the one beside it
let pinned = null; // the episode that stands beside those on view
const BESIDE = 150; // links to the list's other episodes

// Frames that are on view: all, or a part, the same of both episodes.

let zoom = null;
const LEAST_FRAMES = 8;

function spanOf(episode) {
  const last = Math.max(1, episode.frames - 1);
  if (!zoom || zoom[0] >= last) return [0, last];
  return [zoom[0], Math.min(last, zoom[1])];
}

function zoomBy(factor) {
  const last = Math.max(1, longest() - 1);
  const [from, to] = zoom ?? [0, last];
  const size = Math.max(Math.min(LEAST_FRAMES, last), (to - from) * factor);
  const at = Math.max(0, Math.min(last - size, current.frame - (size * (current.frame - from)) / Math.max(1, to - from)));
  zoom = size >= last ? null : [Math.round(at), Math.round(at + size)];
  drawTimes();
}

// The part on view follows the cursor.
function followCursor() {
  if (!zoom || (current.frame >= zoom[0] && current.frame <= zoom[1])) return;
  const size = zoom[1] - zoom[0];
  const from = Math.max(0, Math.min(longest() - 1 - size, current.frame - Math.round(size / 2)));
  zoom = [from, from + size];
}

function facts(episode) {
  const cells = metrics.map((metric) => {
    const value = episode.metrics[metric.key] ?? null;
    return h("div", { class: "fact", title: metric.explanation }, h("dt", {}, metric.label),
      h("dd", {}, metricText(metric, value, { unit: true })), h("dd", { class: "rank" }, rank(metric, value)));
  });
  return h("dl", { class: "facts" }, ...cells);
}

// The values of all episodes as ticks, and the place of a value among them: the same for every episode.
const ranks = new Map();
function rankTicks({ key }) {
  if (!ranks.has(key)) {
    const values = episodes.map((episode) => episode.metrics[key] ?? null).filter((value) => value !== null);
    const [low, high] = values.length ? extent(values) : [0, 0];
    const x = scale([low, high], [2, 88]);
    const all = [...new Set(values.map((value) => Math.round(x(value))))].map((place) => `M${place} 3v6`).join("");
    ranks.set(key, low === high ? null : { x, all });
  }
  return ranks.get(key);
}

// Where the episode stands among all others, its own tick in front.
function rank(metric, value) {
  const found = rankTicks(metric);
  if (!found) return null;
  const { x, all } = found;
  return svg("svg", { width: 90, height: 12, viewBox: "0 0 90 12", "aria-hidden": "true" },
    svg("path", { class: "rank-all", d: all }),
    value === null ? null : svg("path", { class: "rank-own", d: `M${x(value).toFixed(1)} 0v12` }));
}

function decideButtons(episode) {
  const button = (word, key) =>
    h("button", { type: "button", class: `decide ${word}`, id: `mark-${word}`, "aria-pressed": String(marks.get(episode.index) === word),
      "aria-keyshortcuts": key, onclick: () => decide(episode.index, word) }, icon(ICONS[word]), word === "keep" ? "Keep" : "Drop", h("kbd", {}, key));
  const back = h("button", { type: "button", id: "undo", "aria-keyshortcuts": "u", title: "Undo the last mark", onclick: undo, disabled: !undoable.length },
    icon(ICONS.undo), h("span", { class: "wide" }, "Undo"), h("kbd", {}, "u"));
  return [button("keep", "k"), button("drop", "d"), back];
}

// Marks, and goes on if that is wished.
function decide(index, word) {
  mark(index, word);
  if (marking.advance && current && marks.has(index)) move(1);
}

const marking = { advance: false };

function advanceBox() {
  const box = h("input", { type: "checkbox", id: "advance", checked: marking.advance });
  box.addEventListener("change", () => (marking.advance = box.checked));
  return h("label", { class: "advance" }, box, "Go on after a mark");
}

function noteFields(episode) {
  const note = notes.get(episode.index) ?? { text: "", tags: [] };
  const field = (id, label, value, most) => h("input", { type: "text", id, "aria-label": label, placeholder: label, value, maxlength: most, autocomplete: "off" });
  const [words, tags] = [field("note", "Note", note.text, MOST_NOTE), field("tags", "Tags, with commas", note.tags.join(", "), MOST_TAGS * MOST_TAG)];
  for (const box of [words, tags]) {
    box.addEventListener("change", () => {
      setNote(episode.index, words.value, tags.value.split(","));
      keepMarks();
      notify("notes", [episode.index]);
    });
  }
  return h("div", { class: "notes" }, words, tags, advanceBox());
}

function stepButton(episode, step) {
  const other = neighbor(episode, step);
  const name = step < 0 ? "Previous episode" : "Next episode";
  return h("button", { type: "button", class: "step", "aria-label": name, title: name, disabled: !other || other === episode, onclick: () => move(step) },
    icon(step < 0 ? ICONS.previous : ICONS.next));
}

function headings(episode) {
  const place = shown.indexOf(episode);
  const several = episode.parts.length > 1;
  const instructions = several
    ? h("ol", { class: "instructions" }, ...episode.parts.map((part) => h("li", {}, part.instruction)))
    : h("p", { class: "instruction" }, episode.task);
  return h("header", { class: "episode-head" },
    h("div", { class: "which" }, stepButton(episode, -1), h("h1", {}, `Episode ${episode.index}`), stepButton(episode, 1),
      h("span", { class: "faint" }, place < 0 ? "not in the list" : `${place + 1} of ${shown.length}`), compareButton()),
    h("div", { class: "what" }, instructions, h("p", { class: "judged", id: "judged" }, ...verdictLine(episode))),
    h("div", { class: "decisions", id: "decisions" }, ...decideButtons(episode)));
}

function verdictLine(episode) {
  const ruled = reasonsOf(episode).join("; ") || "breaks no rule";
  const own = marks.has(episode.index);
  return [
    verdictBadge(episode),
    h("span", { class: "why" }, own ? `the rules say ${ruling(episode) === "keep" ? "keep" : `drop: ${ruled}`}` : ruled),
    episode.success === null ? null : outcomeText(episode),
  ].filter(Boolean);
}

function transport() {
  const play = h("button", { type: "button", id: "play", class: "round", "aria-label": "Play", onclick: togglePlay }, icon(ICONS.play));
  const speeds = h("select", { id: "speed", "aria-label": "Speed" }, ...[0.5, 1, 2, 4].map((speed) => h("option", { value: speed, selected: speed === playback.speed }, `${speed}×`)));
  speeds.addEventListener("change", () => (playback.speed = Number(speeds.value)));
  const zoomer = (id, name, sign, factor) => h("button", { type: "button", id, class: "round", "aria-label": name, title: name, onclick: () => zoomBy(factor) }, sign);
  return h("div", { class: "transport" }, play, h("output", { id: "clock" }), h("span", { class: "spacer" }),
    zoomer("zoom-out", "Zoom out in time", "−", 2), zoomer("zoom-in", "Zoom in on the cursor", "+", 0.5), speeds);
}

function side() {
  const order = metricOf[list.sort];
  const end = list.worstFirst ? "worst" : "best";
  const heading = order ? `${order.label}, ${end} first` : `By ${list.sort}`;
  const at = Math.max(0, shown.indexOf(current.episode) - BESIDE / 2);
  const near = shown.slice(at, at + BESIDE);
  const part = near.length < shown.length ? `, ${at + 1} to ${at + near.length} of ${shown.length}` : "";
  return h("nav", { class: "side", "aria-label": "Episodes" }, h("p", { class: "side-head faint" }, heading + part), h("ol", {}, ...near.map((episode) => h("li", {}, sideLink(episode)))));
}

function sideLink(episode) {
  const here = current && episode.index === current.episode.index;
  const metric = metricOf[list.sort] ?? metrics[0];
  return h("a", { href: `#episode=${episode.index}`, "data-episode": episode.index, "aria-current": here ? "true" : null },
    h("span", { class: "side-number" }, h("span", { class: "unseen" }, "Episode "), String(episode.index)), sparkline(episode, 88, 24),
    h("span", { class: "side-value" }, metricText(metric, episode.metrics[metric.key])), h("span", { class: `side-verdict ${verdict(episode)}${marks.has(episode.index) ? " own" : ""}` }, icon(ICONS[verdict(episode)]), h("span", { class: "unseen" }, verdict(episode))));
}

// Pictures and curves of an episode, for one that fills the page or stands beside another.
function bench(episode) {
  const seen = viewer(episode);
  const time = timeline(episode, (frame, event) => {
    if (event.type === "pointerdown") stop();
    setFrame(frame);
  }, () => playback.on);
  return { episode, seen, time };
}

function benches() {
  return [current, current.beside].filter(Boolean);
}

function longest() {
  return Math.max(...benches().map(({ episode }) => episode.frames));
}

function compareButton() {
  if (pinned === null) {
    return h("button", { type: "button", id: "compare", "aria-keyshortcuts": "c", title: "Keep this episode on view beside the next one", onclick: toggleBeside }, "Compare", h("kbd", {}, "c"));
  }
  return h("button", { type: "button", id: "compare", "aria-keyshortcuts": "c", onclick: toggleBeside }, `Beside episode ${pinned.index}`, icon(ICONS.drop));
}

// Pins the episode on view and goes on to another; or takes away what is pinned.
function toggleBeside() {
  const here = current.episode;
  const other = neighbor(here, 1) ?? neighbor(here, -1);
  if (pinned === null && (!other || other === here)) return;
  pinned = pinned === null ? here : null;
  if (pinned) go(other.index);
  else openEpisode(here);
  $("compare").focus();
}

function pair() {
  const sides = benches().map(({ episode, seen, time }, place) => h("section", { class: "half", "aria-label": `Episode ${episode.index}` },
    h("h2", {}, place ? h("a", { href: `#episode=${episode.index}` }, `Episode ${episode.index}`) : `Episode ${episode.index}`, verdictBadge(episode), episode.success === null ? "" : outcomeText(episode)),
    h("p", { class: "faint" }, episode.task),
    seen?.node ?? "", h("div", { class: "plots" }, time.node, judgeLegend(episode)), facts(episode)));
  return [h("div", { class: "pair-controls" }, transport(), signalChoice() ?? ""), h("div", { class: "pair" }, ...sides)];
}

function alone() {
  const { episode, seen, time } = current;
  const screen = seen ? [seen.node, transport()] : [transport()];
  return [h("div", { class: "bench" },
    h("section", { class: "viewer", "aria-label": "Pictures" }, ...screen),
    h("section", { class: "plots", "aria-label": "Curves" }, signalChoice(), time.node, judgeLegend(episode)), facts(episode))];
}

function openEpisode(episode) {
  closeEpisode();
  zoom = null;
  current = { ...bench(episode), frame: 0, beside: pinned && pinned !== episode ? bench(pinned) : null };
  $("episode").replaceChildren(side(), h("article", { class: current.seen ? "" : "without" }, headings(episode), noteFields(episode),
    findingList(episode.findings, seek), ...(current.beside ? pair() : alone())));
  $("episode").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  fitTimeline();
  setFrame(0);
  showAddress();
  const next = neighbor(episode, 1);
  if (next?.media.strip) sheet(next.media.strip).catch(() => {});
}

function drawTimes() {
  if (!current) return;
  for (const { time } of benches()) time.draw();
}

// As much height as the window has, so that picture and curves are seen together.
function fitTimeline() {
  if (!current) return;
  for (const { episode, time } of benches()) {
    const { node } = time;
    const strip = episode.media.strip ? FILMSTRIP : 0;
    const fixed = current.beside || window.matchMedia("(max-width: 760px)").matches;
    const top = node.getBoundingClientRect().top + window.scrollY;
    const legend = node.nextElementSibling?.offsetHeight ?? 0;
    node.dataset.height = fixed ? 330 + (data.weights ? 70 : 0) : window.innerHeight - top - strip - legend - 34;
  }
  drawTimes();
}

function seek(frame) {
  stop();
  setFrame(frame);
}

function closeEpisode() {
  stop();
  if (current) for (const { time } of benches()) time.close();
  current = null;
}

function setFrame(frame) {
  current.frame = Math.max(0, Math.min(longest() - 1, frame));
  followCursor();
  for (const { episode, time, seen } of benches()) {
    time.show(current.frame); // the shorter one stays at its end
    seen?.show(Math.min(current.frame, episode.frames - 1));
  }
  const seconds = (count) => number(count / data.fps, 1);
  $("clock").textContent = `${seconds(current.frame)} / ${seconds(longest())} s  frame ${current.frame}`;
  $("episode").dataset.frame = current.frame;
}

// From one scored prefix to the next.
function stepPrefix(step) {
  const { episode, frame } = current;
  const ahead = step > 0 ? episode.prefixes.find((at) => at > frame) : [...episode.prefixes].reverse().find((at) => at < frame);
  stop();
  setFrame(ahead ?? (step > 0 ? longest() - 1 : 0));
}

// Playing moves the cursor by the clock.

const playback = { on: false, speed: 1 };

function togglePlay() {
  if (playback.on) stop();
  else start();
}

function start() {
  const { episode } = current;
  if (current.frame >= longest() - 1) setFrame(0);
  playback.on = true;
  drawPlay();
  let [before, at] = [null, current.frame];
  const tick = (now) => {
    if (!playback.on || current?.episode !== episode) return;
    if (before !== null) at += ((now - before) / 1000) * data.fps * playback.speed;
    before = now;
    setFrame(Math.floor(at));
    if (current.frame >= longest() - 1) stop();
    else requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

function stop() {
  if (!playback.on) return;
  playback.on = false;
  drawPlay();
}

function drawPlay() {
  const button = $("play");
  if (!button) return;
  button.setAttribute("aria-label", playback.on ? "Pause" : "Play");
  button.replaceChildren(icon(playback.on ? ICONS.pause : ICONS.play));
}

listeners.push((what, indices) => {
  if (what !== "marks" || !current) return;
  for (const index of indices) $("episode").querySelector(`.side a[data-episode="${index}"]`)?.replaceWith(sideLink(byIndex.get(index)));
  const focused = document.activeElement?.id;
  $("judged").replaceChildren(...verdictLine(current.episode));
  $("decisions").replaceChildren(...decideButtons(current.episode));
  if (focused && !document.activeElement?.id) $(focused)?.focus();
});
