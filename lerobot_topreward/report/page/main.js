// What is on view follows the address.

let returnTo = null; // episode that had been on view, to find it again in the list

// At once, unlike a new `location.hash`, which is noticed later: the next key is meant for the new view.
function visit(view) {
  if (location.hash.split("&")[0] === `#${view}`) return;
  window.history.pushState(null, "", `#${view}`);
  route();
}

function go(index) {
  visit(`episode=${index}`);
}

function route() {
  const found = new URLSearchParams(location.hash.slice(1));
  const named = (key) => (/^\d+$/.test(found.get(key) ?? "") ? byIndex.get(Number(found.get(key))) : null);
  const episode = named("episode");
  readAddress(found);
  if (named("beside")) pinned = named("beside");
  arrange(); // marks may have moved episodes into or out of the filter
  $("overview").hidden = Boolean(episode);
  $("episode").hidden = !episode;
  document.title = episode ? `Episode ${episode.index}, ${data.title}` : data.title;
  if (episode) {
    returnTo = episode.index;
    if (!shown.includes(episode)) filterBy(UNFILTERED);
    const inside = $("episode").contains(document.activeElement) ? document.activeElement.className : "";
    openEpisode(episode);
    if (inside === "step") $("episode").querySelector(".step:not([disabled])")?.focus();
    else $("episode").focus({ preventScroll: true });
    window.scrollTo(0, 0);
    say(`Episode ${episode.index}, ${verdict(episode)}`);
    return;
  }
  closeEpisode();
  showAddress();
  const row = returnTo === null ? null : findRow(byIndex.get(returnTo));
  if (row) {
    row.querySelector("a").focus({ preventScroll: true });
    row.scrollIntoView({ block: "center" });
  }
}

function drawTally() {
  const count = (word) => [...marks.values()].filter((other) => other === word).length;
  $("tally").replaceChildren(
    marks.size ? h("span", {}, h("b", {}, String(marks.size)), h("span", { class: "wide" }, ` marked: ${count("keep")} keep, ${count("drop")} drop`), h("span", { class: "narrow" }, " marked")) : h("span", { class: "faint wide" }, "nothing marked yet"),
  );
  $("download").disabled = !marks.size && !notes.size;
  $("storage-note").hidden = stored;
}

loadMarks();
$("storage-note").textContent = "This browser keeps no marks for this page: save your decisions before you close it.";
$("download").addEventListener("click", download);
$("help-open").addEventListener("click", () => $("help").showModal());
listeners.push((what) => {
  if (what === "marks" || what === "notes") drawTally();
  if (what === "list" && !$("overview").hidden) showAddress();
});
drawHelp();
drawOverview();
drawTally();
document.addEventListener("keydown", pressKey);
window.addEventListener("hashchange", route);
document.addEventListener("DOMContentLoaded", drawTimes); // signals and weights stand behind the script
window.addEventListener("resize", fitTimeline);
window.addEventListener("beforeprint", () => drawMore(shown.length));
window.addEventListener("beforeunload", (event) => {
  if (!stored && !saved && !$("download").disabled) event.preventDefault();
});
route();
