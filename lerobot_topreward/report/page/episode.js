// One episode: its pictures, its curves, its numbers, and the buttons to decide.

let current = null; // the episode on view, its parts and its cursor

function facts(one) {
  const cells = metrics.map((metric) => {
    const value = one.metrics[metric.key] ?? null;
    return h("div", { class: "fact", title: metric.says }, h("dt", {}, metric.name),
      h("dd", {}, metricText(metric, value, { unit: true })), h("dd", { class: "rank" }, rank(metric, value)));
  });
  return h("dl", { class: "facts" }, ...cells);
}

// Where the episode stands among all others, its own tick in front.
function rank(metric, value) {
  const values = episodes.map((one) => one.metrics[metric.key] ?? null).filter((one) => one !== null);
  const [low, high] = values.length ? extent(values) : [0, 0];
  if (low === high) return null;
  const x = scale([low, high], [2, 88]);
  const all = values.map((one) => `M${x(one).toFixed(1)} 3v6`).join("");
  return svg("svg", { width: 90, height: 12, viewBox: "0 0 90 12", "aria-hidden": "true" },
    svg("path", { class: "rank-all", d: all }),
    value === null ? null : svg("path", { class: "rank-own", d: `M${x(value).toFixed(1)} 0v12` }));
}

function decideButtons(one) {
  const button = (word, key) =>
    h("button", { type: "button", class: `decide ${word}`, id: `mark-${word}`, "aria-pressed": String(marks.get(one.episode) === word),
      "aria-keyshortcuts": key, onclick: () => mark(one.episode, word) }, icon(ICONS[word]), word === "keep" ? "Keep" : "Drop", h("kbd", {}, key));
  const back = h("button", { type: "button", id: "undo", "aria-keyshortcuts": "u", "aria-label": "Undo the last mark", onclick: undo, disabled: !history.length },
    icon(ICONS.undo), h("span", { class: "wide" }, "Undo"), h("kbd", {}, "u"));
  return [button("keep", "k"), button("drop", "d"), back];
}

function stepButton(one, step) {
  const other = neighbour(one.episode, step);
  const name = step < 0 ? "Previous episode" : "Next episode";
  return h("button", { type: "button", class: "step", "aria-label": name, title: name, disabled: !other || other === one, onclick: () => move(step) },
    icon(step < 0 ? ICONS.previous : ICONS.next));
}

function headings(one) {
  const place = shown.indexOf(one);
  const several = one.parts.length > 1;
  const instructions = several
    ? h("ol", { class: "instructions" }, ...one.parts.map((part) => h("li", {}, part.instruction)))
    : h("p", { class: "instruction" }, one.task);
  return h("header", { class: "episode-head" },
    h("div", { class: "which" }, stepButton(one, -1), h("h1", {}, `Episode ${one.episode}`), stepButton(one, 1),
      h("span", { class: "faint" }, place < 0 ? "not in the list" : `${place + 1} of ${shown.length}`)),
    h("div", { class: "what" }, instructions, h("p", { class: "judged", id: "judged" }, ...judged(one))),
    h("div", { class: "decisions", id: "decisions" }, ...decideButtons(one)));
}

function judged(one) {
  const ruled = one.reasons.length ? one.reasons.join("; ") : "breaks no rule";
  const own = marks.has(one.episode);
  return [
    verdictBadge(one),
    h("span", { class: "why" }, own ? `the rules say ${one.keep ? "keep" : `drop: ${ruled}`}` : ruled),
    one.success === null ? null : outcomeText(one),
  ].filter(Boolean);
}

function transport(one) {
  const play = h("button", { type: "button", id: "play", class: "round", "aria-label": "Play", onclick: togglePlay }, icon(ICONS.play));
  const speed = h("select", { id: "speed", "aria-label": "Speed" }, ...[0.5, 1, 2, 4].map((one) => h("option", { value: one, selected: one === playback.speed }, `${one}×`)));
  speed.addEventListener("change", () => setSpeed(Number(speed.value)));
  return h("div", { class: "transport" }, play, h("output", { id: "clock" }), h("span", { class: "spacer" }), speed);
}

function side() {
  const order = metrics.find(({ key }) => key === list.sort);
  const end = list.worstFirst ? "worst" : "best";
  const heading = order ? `${order.name}, ${end} first` : `By ${list.sort}`;
  return h("nav", { class: "side", "aria-label": "Episodes" }, h("p", { class: "side-head faint" }, heading), h("ol", {}, ...shown.map((one) => h("li", {}, sideLink(one)))));
}

function sideLink(one) {
  const here = current && one.episode === current.one.episode;
  const metric = METRICS.find(({ key }) => key === list.sort) ?? METRICS[0];
  return h("a", { href: `#episode=${one.episode}`, "data-episode": one.episode, "aria-current": here ? "true" : null, "aria-label": `Episode ${one.episode}, ${verdict(one)}` },
    h("span", { class: "side-number" }, String(one.episode)), sparkline(one, 88, 24),
    h("span", { class: "side-value" }, metricText(metric, one.metrics[metric.key])), h("span", { class: `side-verdict ${verdict(one)}${marks.has(one.episode) ? " own" : ""}` }, icon(ICONS[verdict(one)])));
}

function openEpisode(one) {
  closeEpisode();
  const seen = viewer(one);
  current = { one, frame: 0, seen };
  const time = timeline(one, (frame, event) => {
    if (event.type === "pointerdown") stop();
    setFrame(frame);
  }, () => playback.on);
  current.time = time;
  const screen = seen ? [seen.node, transport(one)] : [transport(one)];
  $("episode").replaceChildren(side(), h("article", { class: seen ? "" : "without" }, headings(one),
    h("div", { class: "bench" }, h("section", { class: "viewer", "aria-label": "Pictures" }, ...screen), h("section", { class: "plots", "aria-label": "Curves" }, time.node), facts(one))));
  $("episode").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  fitTimeline();
  setFrame(0);
  const next = neighbour(one.episode, 1);
  if (next?.media.kind === "strip") sheet(next).catch(() => {});
}

// As much height as the window has, so that picture and curves are seen together.
function fitTimeline() {
  if (!current) return;
  const { node, draw } = current.time;
  const strip = current.one.media.kind === "strip" ? FILMSTRIP : 0;
  const narrow = window.matchMedia("(max-width: 760px)").matches;
  const top = node.getBoundingClientRect().top + window.scrollY;
  node.dataset.height = narrow ? 330 : window.innerHeight - top - strip - 34;
  draw();
}

function closeEpisode() {
  stop();
  current?.time?.close();
  current = null;
}

function setFrame(frame) {
  current.frame = Math.max(0, Math.min(current.one.frames - 1, frame));
  current.time.show(current.frame);
  if (!playback.on || !current.seen?.video) current.seen?.show(current.frame);
  const seconds = (count) => number(count / data.fps, 1);
  $("clock").textContent = `${seconds(current.frame)} / ${seconds(current.one.frames)} s  frame ${current.frame}`;
  $("episode").dataset.frame = current.frame;
}

// From one scored prefix to the next.
function stepPrefix(step) {
  const { one, frame } = current;
  const ahead = step > 0 ? one.prefixes.find((at) => at > frame) : [...one.prefixes].reverse().find((at) => at < frame);
  stop();
  setFrame(ahead ?? (step > 0 ? one.frames - 1 : 0));
}

// Playing moves the cursor: the video where there is one, else the clock.

const playback = { on: false, speed: 1 };

function togglePlay() {
  if (playback.on) stop();
  else start();
}

function start() {
  const { one, seen } = current;
  if (current.frame >= one.frames - 1) setFrame(0);
  playback.on = true;
  drawPlay();
  const video = seen?.video ?? null;
  if (video) {
    video.playbackRate = playback.speed;
    video.play().catch(stop);
  }
  let [before, at] = [null, current.frame];
  const tick = (now) => {
    if (!playback.on || current?.one !== one) return;
    if (video) at = Math.floor(video.currentTime * data.fps + 1e-3);
    else if (before !== null) at += ((now - before) / 1000) * data.fps * playback.speed;
    before = now;
    setFrame(Math.floor(at));
    if (current.frame >= one.frames - 1 || video?.ended) stop();
    else requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

function stop() {
  if (!playback.on) return;
  playback.on = false;
  current?.seen?.video?.pause();
  drawPlay();
}

function setSpeed(speed) {
  playback.speed = speed;
  if (current?.seen?.video) current.seen.video.playbackRate = speed;
}

function drawPlay() {
  const button = $("play");
  if (!button) return;
  button.setAttribute("aria-label", playback.on ? "Pause" : "Play");
  button.replaceChildren(icon(playback.on ? ICONS.pause : ICONS.play));
}

listeners.push((what, episode) => {
  if (what !== "marks" || !current) return;
  $("episode").querySelector(`.side a[data-episode="${episode}"]`)?.replaceWith(sideLink(byIndex.get(episode)));
  const focused = document.activeElement?.id;
  $("judged").replaceChildren(...judged(current.one));
  $("decisions").replaceChildren(...decideButtons(current.one));
  if (focused && !document.activeElement?.id) $(focused)?.focus();
});
