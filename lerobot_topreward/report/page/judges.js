// The curves of other judges beside the labels' own.

const KINDS = 4; // of lines that are told apart, by dashes and colors

function otherCurves(episode, x, y) {
  return episode.others.map((curve) => {
    const points = curve.frame.map((frame, i) => [x(frame), y(curve.progress[i])]);
    return hover(svg("path", { class: `other other-${curve.judge % KINDS}`, d: line(points) }), data.judges[curve.judge]);
  });
}

function judgeLegend(episode) {
  const judges = [...new Set(episode.others.map((curve) => curve.judge))];
  if (!judges.length) return null;
  const sample = (kind) => svg("svg", { width: 24, height: 8, "aria-hidden": "true" }, svg("path", { class: kind, d: "M0 4H24" }));
  return h("ul", { class: "judges", "aria-label": "Judges of the curves of progress" },
    h("li", { class: "progress" }, sample("curve"), data.judges[0]),
    ...judges.map((judge) => h("li", {}, sample(`other other-${judge % KINDS}`), data.judges[judge])));
}
