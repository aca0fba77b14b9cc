// What is on view follows the address: #overview or #episode=12.

let returnTo = null; // episode that had been on view, to find it again in the list

function go(index) {
  location.hash = `#episode=${index}`;
}

function route() {
  const match = /^#episode=(\d+)$/.exec(location.hash);
  const episode = match ? byIndex.get(Number(match[1])) : null;
  $("overview").hidden = Boolean(episode);
  $("episode").hidden = !episode;
  document.title = episode ? `Episode ${episode.index}, ${data.title}` : data.title;
  if (episode) {
    returnTo = episode.index;
    if (!shown.includes(episode)) {
      Object.assign(list, { task: "", verdict: "", outcome: "", text: "" });
      resetFilters();
      arrange();
    }
    const inside = $("episode").contains(document.activeElement) ? document.activeElement.className : "";
    openEpisode(episode);
    if (inside === "step") $("episode").querySelector(".step:not([disabled])")?.focus();
    else $("episode").focus({ preventScroll: true });
    window.scrollTo(0, 0);
    say(`Episode ${episode.index}, ${verdict(episode)}`);
    return;
  }
  closeEpisode();
  arrange(); // marks may have moved episodes into or out of the filter
  const row = returnTo === null ? null : findRow(byIndex.get(returnTo));
  if (row) {
    row.querySelector("a").focus({ preventScroll: true });
    row.scrollIntoView({ block: "center" });
  }
}

function resetFilters() {
  for (const name of ["task", "verdict", "outcome"]) if ($(`filter-${name}`)) $(`filter-${name}`).value = "";
  $("search").value = "";
}

function drawTally() {
  const count = (word) => [...marks.values()].filter((other) => other === word).length;
  $("tally").replaceChildren(
    marks.size ? h("span", {}, h("b", {}, String(marks.size)), h("span", { class: "wide" }, ` marked: ${count("keep")} keep, ${count("drop")} drop`), h("span", { class: "narrow" }, " marked")) : h("span", { class: "faint wide" }, "nothing marked yet"),
  );
  $("download").disabled = !marks.size;
  $("storage-note").hidden = stored;
}

loadMarks();
$("storage-note").textContent = "This browser keeps no marks for this page: save your decisions before you close it.";
$("download").addEventListener("click", download);
$("help-open").addEventListener("click", () => $("help").showModal());
listeners.push((what) => what === "marks" && drawTally());
drawHelp();
drawOverview();
drawTally();
document.addEventListener("keydown", pressKey);
window.addEventListener("hashchange", route);
window.addEventListener("resize", fitTimeline);
window.addEventListener("beforeprint", () => drawMore(shown.length));
window.addEventListener("beforeunload", (event) => {
  if (!stored && !saved && marks.size) event.preventDefault();
});
route();
