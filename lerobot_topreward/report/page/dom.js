// Elements are made, never parsed: text from a dataset can only ever become text.

const SVG = "http://www.w3.org/2000/svg";

function $(id) {
  return document.getElementById(id);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function icon(path) {
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("path", { d: path }),
  );
}

const ICONS = {
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 2.5h3v11H4zM9 2.5h3v11H9z",
  previous: "M10.5 3L5.5 8l5 5",
  next: "M5.5 3l5 5-5 5",
  keep: "M3 8.5l3.5 3.5L13 4.5",
  drop: "M4 4l8 8M12 4l-8 8",
  care: "M8 3v6M8 12v1",
  undo: "M3 6.5h6.5a3.5 3.5 0 010 7H6M6 3.5l-3 3 3 3",
};

function say(text) {
  $("said").textContent = text;
}

const data = JSON.parse($("data").textContent);
