// One episode: its pictures, its curves, its numbers, and the buttons to decide.

let current = null; // the episode on view, its parts and its cursor

function facts(episode) {
  const cells = metrics.map((metric) => {
    const value = episode.metrics[metric.key] ?? null;
    return h("div", { class: "fact", title: metric.explanation }, h("dt", {}, metric.label),
      h("dd", {}, metricText(metric, value, { unit: true })), h("dd", { class: "rank" }, rank(metric, value)));
  });
  return h("dl", { class: "facts" }, ...cells);
}

// Where the episode stands among all others, its own tick in front.
function rank(metric, value) {
  const values = episodes.map((episode) => episode.metrics[metric.key] ?? null).filter((other) => other !== null);
  const [low, high] = values.length ? extent(values) : [0, 0];
  if (low === high) return null;
  const x = scale([low, high], [2, 88]);
  const all = values.map((other) => `M${x(other).toFixed(1)} 3v6`).join("");
  return svg("svg", { width: 90, height: 12, viewBox: "0 0 90 12", "aria-hidden": "true" },
    svg("path", { class: "rank-all", d: all }),
    value === null ? null : svg("path", { class: "rank-own", d: `M${x(value).toFixed(1)} 0v12` }));
}

function decideButtons(episode) {
  const button = (word, key) =>
    h("button", { type: "button", class: `decide ${word}`, id: `mark-${word}`, "aria-pressed": String(marks.get(episode.index) === word),
      "aria-keyshortcuts": key, onclick: () => mark(episode.index, word) }, icon(ICONS[word]), word === "keep" ? "Keep" : "Drop", h("kbd", {}, key));
  const back = h("button", { type: "button", id: "undo", "aria-keyshortcuts": "u", "aria-label": "Undo the last mark", onclick: undo, disabled: !undoable.length },
    icon(ICONS.undo), h("span", { class: "wide" }, "Undo"), h("kbd", {}, "u"));
  return [button("keep", "k"), button("drop", "d"), back];
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
      h("span", { class: "faint" }, place < 0 ? "not in the list" : `${place + 1} of ${shown.length}`)),
    h("div", { class: "what" }, instructions, h("p", { class: "judged", id: "judged" }, ...verdictLine(episode))),
    h("div", { class: "decisions", id: "decisions" }, ...decideButtons(episode)));
}

function verdictLine(episode) {
  const ruled = episode.reasons.length ? episode.reasons.join("; ") : "breaks no rule";
  const own = marks.has(episode.index);
  return [
    verdictBadge(episode),
    h("span", { class: "why" }, own ? `the rules say ${episode.keep ? "keep" : `drop: ${ruled}`}` : ruled),
    episode.success === null ? null : outcomeText(episode),
  ].filter(Boolean);
}

function transport() {
  const play = h("button", { type: "button", id: "play", class: "round", "aria-label": "Play", onclick: togglePlay }, icon(ICONS.play));
  const speeds = h("select", { id: "speed", "aria-label": "Speed" }, ...[0.5, 1, 2, 4].map((speed) => h("option", { value: speed, selected: speed === playback.speed }, `${speed}×`)));
  speeds.addEventListener("change", () => (playback.speed = Number(speeds.value)));
  return h("div", { class: "transport" }, play, h("output", { id: "clock" }), h("span", { class: "spacer" }), speeds);
}

function side() {
  const order = metricOf[list.sort];
  const end = list.worstFirst ? "worst" : "best";
  const heading = order ? `${order.label}, ${end} first` : `By ${list.sort}`;
  return h("nav", { class: "side", "aria-label": "Episodes" }, h("p", { class: "side-head faint" }, heading), h("ol", {}, ...shown.map((episode) => h("li", {}, sideLink(episode)))));
}

function sideLink(episode) {
  const here = current && episode.index === current.episode.index;
  const metric = metricOf[list.sort] ?? metrics[0];
  return h("a", { href: `#episode=${episode.index}`, "data-episode": episode.index, "aria-current": here ? "true" : null, "aria-label": `Episode ${episode.index}, ${verdict(episode)}` },
    h("span", { class: "side-number" }, String(episode.index)), sparkline(episode, 88, 24),
    h("span", { class: "side-value" }, metricText(metric, episode.metrics[metric.key])), h("span", { class: `side-verdict ${verdict(episode)}${marks.has(episode.index) ? " own" : ""}` }, icon(ICONS[verdict(episode)])));
}

function openEpisode(episode) {
  closeEpisode();
  const seen = viewer(episode);
  current = { episode, frame: 0, seen };
  const time = timeline(episode, (frame, event) => {
    if (event.type === "pointerdown") stop();
    setFrame(frame);
  }, () => playback.on);
  current.time = time;
  const screen = seen ? [seen.node, transport()] : [transport()];
  $("episode").replaceChildren(side(), h("article", { class: seen ? "" : "without" }, headings(episode),
    findingList(episode.findings, seek),
    h("div", { class: "bench" }, h("section", { class: "viewer", "aria-label": "Pictures" }, ...screen), h("section", { class: "plots", "aria-label": "Curves" }, time.node, judgeLegend(episode)), facts(episode))));
  $("episode").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  fitTimeline();
  setFrame(0);
  const next = neighbor(episode, 1);
  if (next?.media.strip) sheet(next).catch(() => {});
}

// As much height as the window has, so that picture and curves are seen together.
function fitTimeline() {
  if (!current) return;
  const { node, draw } = current.time;
  const strip = current.episode.media.strip ? FILMSTRIP : 0;
  const narrow = window.matchMedia("(max-width: 760px)").matches;
  const top = node.getBoundingClientRect().top + window.scrollY;
  const legend = node.nextElementSibling?.offsetHeight ?? 0;
  node.dataset.height = narrow ? 330 : window.innerHeight - top - strip - legend - 34;
  draw();
}

function seek(frame) {
  stop();
  setFrame(frame);
}

function closeEpisode() {
  stop();
  current?.time?.close();
  current = null;
}

function setFrame(frame) {
  current.frame = Math.max(0, Math.min(current.episode.frames - 1, frame));
  current.time.show(current.frame);
  current.seen?.show(current.frame);
  const seconds = (count) => number(count / data.fps, 1);
  $("clock").textContent = `${seconds(current.frame)} / ${seconds(current.episode.frames)} s  frame ${current.frame}`;
  $("episode").dataset.frame = current.frame;
}

// From one scored prefix to the next.
function stepPrefix(step) {
  const { episode, frame } = current;
  const ahead = step > 0 ? episode.prefixes.find((at) => at > frame) : [...episode.prefixes].reverse().find((at) => at < frame);
  stop();
  setFrame(ahead ?? (step > 0 ? episode.frames - 1 : 0));
}

// Playing moves the cursor by the clock.

const playback = { on: false, speed: 1 };

function togglePlay() {
  if (playback.on) stop();
  else start();
}

function start() {
  const { episode } = current;
  if (current.frame >= episode.frames - 1) setFrame(0);
  playback.on = true;
  drawPlay();
  let [before, at] = [null, current.frame];
  const tick = (now) => {
    if (!playback.on || current?.episode !== episode) return;
    if (before !== null) at += ((now - before) / 1000) * data.fps * playback.speed;
    before = now;
    setFrame(Math.floor(at));
    if (current.frame >= episode.frames - 1) stop();
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

listeners.push((what, index) => {
  if (what !== "marks" || !current) return;
  $("episode").querySelector(`.side a[data-episode="${index}"]`)?.replaceWith(sideLink(byIndex.get(index)));
  const focused = document.activeElement?.id;
  $("judged").replaceChildren(...verdictLine(current.episode));
  $("decisions").replaceChildren(...decideButtons(current.episode));
  if (focused && !document.activeElement?.id) $(focused)?.focus();
});
