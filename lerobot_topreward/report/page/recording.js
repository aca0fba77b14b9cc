// What the recording says against itself: in the list, beside an episode, on its time axis.

const LEVELS = ["broken", "suspect", "note"];
const inspected = data.recording.reason === null;
const LANE = 9; // px of a row of spans on the time axis

function worstLevel(episode) {
  return LEVELS.find((level) => episode.findings.some((finding) => finding.level === level)) ?? null;
}

function countOf(episode, level) {
  return episode.findings.filter((finding) => finding.level === level).length;
}

function levelText(level, count) {
  return level === "note" ? plural(count, "note") : `${count} ${level}`;
}

function describeFinding({ defect, text: sentence }) {
  return `${defect}: ${sentence}`;
}

// The worst level and how often it was found.
function recordingBadge(episode) {
  const level = worstLevel(episode);
  if (level === null) return h("span", { class: "faint" }, "–");
  const title = episode.findings.map((finding) => `${finding.level}, ${describeFinding(finding)}`).join("\n");
  return h("span", { class: `level level-${level}`, title }, levelText(level, countOf(episode, level)));
}

function findingLine(finding, seek) {
  const seconds = finding.frames?.map((frame) => number(frame / data.fps, 1));
  const when = seconds && (seconds[0] === seconds[1] ? `${seconds[0]} s` : `${seconds[0]}–${seconds[1]} s`);
  const at = when && seek
    ? h("button", { type: "button", class: "at", "aria-label": `Go to ${when}`, onclick: () => seek(finding.frames[0]) }, when)
    : null;
  return h("li", {}, h("span", { class: `level level-${finding.level}` }, finding.level), " ", describeFinding(finding), at ? [" ", at] : []);
}

function findingList(findings, seek = null) {
  if (!findings.length) return null;
  return h("ul", { class: "findings", "aria-label": "What the recording says" }, ...findings.map((finding) => findingLine(finding, seek)));
}

// Of the dataset as a whole.
function aboutRecording() {
  const { reason, counts, findings } = data.recording;
  if (!inspected) return h("p", {}, h("b", {}, "Recording: "), `not checked. ${reason}`);
  const found = LEVELS.filter((level) => counts[level]).map((level) => levelText(level, counts[level]));
  return h("div", { class: "about-recording" },
    h("p", {}, h("b", {}, "Recording: "), `${found.join(", ") || "nothing found"}. This says nothing of whether a task succeeded.`),
    findingList(findings));
}

// Spans of frames as rows, so that none hides another.
function spanRows(episode) {
  const ends = [];
  return episode.findings.filter((finding) => finding.frames).sort((a, b) => a.frames[0] - b.frames[0]).map((finding) => {
    const free = ends.findIndex((end) => end < finding.frames[0]);
    const row = free < 0 ? ends.length : free;
    ends[row] = finding.frames[1];
    return { finding, row };
  });
}

function spanHeight(episode) {
  return LANE * Math.max(0, ...spanRows(episode).map(({ row }) => row + 1));
}

function spanLane(episode, x, top) {
  const group = svg("g", { class: "spans" }, hatch("hatch-spans"));
  for (const { finding, row } of spanRows(episode)) {
    const [from, to] = finding.frames.map((frame) => x(Math.min(frame, episode.frames - 1)));
    const size = { x: from - 1.5, y: top + LANE * row + 1, width: to - from + 3, height: LANE - 3 };
    group.append(hover(svg("rect", { class: `span-${finding.level}`, ...size }), describeFinding(finding)));
  }
  return group;
}

// Where the episodes of a task start.

function startScatter(width, { names, episodes: indices, starts, task }) {
  const [left, right, head, axis] = [44, 14, 18, 38];
  const height = 202;
  const places = thin(indices.map((index, i) => [index, starts[i]]).filter(([, place]) => place.every((value) => value !== null)));
  const range = (at) => extent([0, 1, ...places.map(([, place]) => place[at] ?? 0)]);
  const x = scale(range(0), [left, width - right - 6]);
  const y = scale(range(1), [height - axis, head + 6]);
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group" });
  root.setAttribute("aria-label", `Start poses of ${task}, a point per episode`);
  for (const value of [0, 0.5, 1]) {
    if (names.length > 1) {
      root.append(svg("path", { class: "grid", d: `M${left} ${y(value).toFixed(1)}H${width - right}` }));
      root.append(text(left - 6, y(value) + 4, percent(value), { class: "tick", "text-anchor": "end" }));
    }
    root.append(text(x(value), height - axis + 16, percent(value), { class: "tick", "text-anchor": "middle" }));
  }
  root.append(svg("path", { class: "axis", d: `M${left} ${height - axis + 0.5}H${width - right}` }));
  if (names.length > 1) root.append(text(left, 11, `${names[1]}, of its range`, { class: "axis-name" }));
  root.append(text((left + width - right) / 2, height - 4, `${names[0]}, of its range`, { class: "axis-name", "text-anchor": "middle" }));
  for (const [index, place] of places) {
    const episode = byIndex.get(index);
    const dot = glyph(episode ? kindOf(episode) : "plain", x(place[0]), y(place[1] ?? 0.5));
    const title = `Episode ${index}: ${names.map((name, i) => `${name} ${percent(place[i])}`).join(", ")}${episode ? "" : "; not labeled"}`;
    root.append(hover(episode ? svg("a", { href: `#episode=${index}`, tabindex: -1, "aria-label": title }, dot) : svg("g", {}, dot), title));
  }
  return root;
}

function startChart() {
  const { starts } = data.recording;
  if (!starts.length) return null;
  let chosen = starts[0];
  const sentence = h("p", { class: "hint" }, chosen.sentence);
  const { node, redraw } = figure("Where episodes start", "", (width) => startScatter(width, chosen), sentence);
  if (starts.length > 1) {
    const choice = select("starts", starts.map(({ task }, i) => [String(i), shorten(task, 60)]), "0", (value) => {
      chosen = starts[Number(value)];
      sentence.textContent = chosen.sentence;
      redraw();
    });
    choice.setAttribute("aria-label", "Task whose start poses are shown");
    node.querySelector("figcaption").append(choice);
  }
  return node;
}
