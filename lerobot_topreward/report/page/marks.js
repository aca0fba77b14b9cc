// Marks and notes that a person makes. Marks are manual decisions, which override the rules.

const WORDS = ["keep", "drop"];
const MOST_TAGS = 20; // these three as in judging/decisions.py
const MOST_TAG = 40; // characters
const MOST_NOTE = 500;
const marks = new Map(); // episode -> keep or drop
const notes = new Map(); // episode -> {text, tags}, of those that say something
const undoable = []; // steps, the last one last: pairs of an episode and the mark that it had
let stored = true; // whether marks survive a reload
let saved = true; // whether marks and notes are in a file

const storageKey = `lerobot-topreward-report/${data.fingerprint}/${checksum(JSON.stringify([data.decisions, data.notes]))}`;

function checksum(text) {
  let sum = 5381;
  for (let i = 0; i < text.length; i++) sum = ((sum * 33) ^ text.charCodeAt(i)) >>> 0;
  return sum.toString(36);
}

function loadMarks() {
  const given = { decisions: data.decisions, notes: data.notes };
  let kept = null;
  try {
    kept = JSON.parse(localStorage.getItem(storageKey));
    localStorage.setItem(storageKey, JSON.stringify(kept ?? given));
  } catch {
    stored = false; // some browsers keep nothing for files
  }
  const found = kept ?? given;
  for (const [name, word] of Object.entries(found.decisions ?? {})) {
    if (byIndex.has(Number(name)) && WORDS.includes(word)) marks.set(Number(name), word);
  }
  for (const [name, note] of Object.entries(found.notes ?? {})) {
    if (byIndex.has(Number(name))) setNote(Number(name), String(note.text ?? ""), (note.tags ?? []).map(String));
  }
}

function keepMarks() {
  saved = false;
  try {
    const { decisions: words, notes: texts } = decisions();
    localStorage.setItem(storageKey, JSON.stringify({ decisions: words, notes: texts }));
  } catch {
    stored = false;
  }
}

function setMarks(pairs) {
  for (const [index, word] of pairs) {
    if (word) marks.set(index, word);
    else marks.delete(index);
  }
  keepMarks();
  notify("marks", pairs.map(([index]) => index));
}

function mark(index, word) {
  undoable.push([[index, marks.get(index) ?? null]]);
  setMarks([[index, marks.get(index) === word ? null : word]]);
  say(`Episode ${index}: ${marks.get(index) ? `marked ${word}` : "no mark"}`);
}

// All that are listed at once; a word of null takes their marks away.
function markListed(word) {
  const changed = shown.filter(({ index }) => (marks.get(index) ?? null) !== word);
  if (!changed.length) return;
  undoable.push(changed.map(({ index }) => [index, marks.get(index) ?? null]));
  setMarks(changed.map(({ index }) => [index, word]));
  say(`${plural(changed.length, "episode")} ${word ? `marked ${word}` : "without a mark"}`);
}

function undo() {
  const last = undoable.pop();
  if (!last) {
    say("Nothing to undo");
    return;
  }
  setMarks(last);
  const [[index, word]] = last;
  say(last.length > 1 ? `Undone: ${plural(last.length, "episode")}` : `Undone: episode ${index} ${word ? `marked ${word}` : "has no mark"}`);
}

// One line of printable text, as curate reads it.
function tidy(text, most) {
  return text.replace(/[\p{C}\s]+/gu, " ").trim().slice(0, most).trim();
}

function setNote(index, text, tags) {
  const note = { text: tidy(text, MOST_NOTE), tags: [...new Set(tags.map((tag) => tidy(tag, MOST_TAG)).filter(Boolean))].slice(0, MOST_TAGS) };
  if (note.text || note.tags.length) notes.set(index, note);
  else notes.delete(index);
}

function noteText(index) {
  const note = notes.get(index);
  return note ? [note.text, ...note.tags.map((tag) => `#${tag}`)].filter(Boolean).join(" ") : "";
}

// What is saved.

function decisions() {
  const byNumber = (map) => Object.fromEntries([...map].sort((a, b) => a[0] - b[0]).map(([index, value]) => [String(index), value]));
  return { format: 1, dataset: data.dataset, fingerprint: data.fingerprint, decisions: byNumber(marks), notes: byNumber(notes) };
}

function saveFile(name, type, content) {
  const link = h("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function download() {
  saveFile("decisions.json", "application/json", JSON.stringify(decisions(), null, 2) + "\n");
  saved = true;
  say(`${plural(marks.size, "decision")} saved as decisions.json`);
}

// Quoted where needed; a text that a spreadsheet would take for a formula begins with an apostrophe.
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function downloadTable() {
  const columns = {
    episode_index: ({ index }) => index,
    task: ({ task }) => task,
    verdict,
    marked: ({ index }) => marks.get(index) ?? null,
    reasons: (episode) => reasonsOf(episode).join("; "),
    success: ({ success }) => (success === null ? null : String(success)),
    note: ({ index }) => notes.get(index)?.text ?? null,
    tags: ({ index }) => notes.get(index)?.tags.join(" ") ?? null,
    ...Object.fromEntries(metrics.map(({ key }) => [key, (episode) => episode.metrics[key]])),
    ...Object.fromEntries(LEVELS.map((level) => [level, (episode) => countOf(episode, level)])),
  };
  const lines = shown.map((episode) => Object.values(columns).map((value) => csvCell(value(episode))).join(","));
  saveFile("episodes.csv", "text/csv", [Object.keys(columns).join(","), ...lines, ""].join("\r\n"));
  say(`${plural(shown.length, "episode")} saved as episodes.csv`);
}
