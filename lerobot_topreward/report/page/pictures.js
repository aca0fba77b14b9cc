// What the camera saw: a strip of frames, moved by a frame number.

const loaded = new Map(); // episode -> its sheet, the last few
const LOADED = 6;
const FILMSTRIP = 54; // px

function mediaText(index) {
  const read = () => $(`media-${index}`)?.textContent ?? "";
  if ($(`media-${index}`) || document.readyState !== "loading") return Promise.resolve(read());
  return new Promise((done) => document.addEventListener("DOMContentLoaded", () => done(read())));
}

async function sheet(episode) {
  if (!loaded.has(episode.index)) {
    const load = mediaText(episode.index).then(async (content) => {
      const image = new Image();
      image.src = `data:image/webp;base64,${content}`;
      await image.decode();
      return image;
    });
    loaded.set(episode.index, load);
    if (loaded.size > LOADED) loaded.delete(loaded.keys().next().value);
  }
  return loaded.get(episode.index);
}

function drawPicture(context, image, strip, position, place) {
  const x = (position % strip.columns) * strip.width;
  const y = Math.floor(position / strip.columns) * strip.height;
  context.drawImage(image, x, y, strip.width, strip.height, ...place);
}

// The last picture at or before a frame.
function pictureAt(frames, frame) {
  let found = 0;
  while (found + 1 < frames.length && frames[found + 1] <= frame) found++;
  return found;
}

function stripViewer(episode, failed) {
  const { strip } = episode.media;
  const node = h("canvas", { class: "picture", width: strip.width, height: strip.height, role: "img" });
  const context = node.getContext("2d");
  let [image, wanted, position] = [null, 0, -1];
  const draw = () => {
    const next = pictureAt(strip.frames, wanted);
    if (!image || next === position) return;
    position = next;
    drawPicture(context, image, strip, position, [0, 0, strip.width, strip.height]);
    node.dataset.frame = strip.frames[position];
    node.setAttribute("aria-label", `Camera at ${number(strip.frames[position] / data.fps, 1)} s`);
  };
  sheet(episode).then((found) => {
    image = found;
    draw();
  }, failed);
  const show = (frame) => {
    wanted = frame;
    draw();
  };
  return { node, show };
}

function viewer(episode) {
  const place = h("div", { class: "screen" });
  const { strip, reason } = episode.media;
  if (strip) {
    const failed = () => place.replaceChildren(h("p", { class: "no-picture" }, "This browser cannot show these pictures."));
    const { node, show } = stripViewer(episode, failed);
    place.append(node);
    return { node: place, show };
  }
  if (!reason) return null;
  place.append(h("p", { class: "no-picture" }, h("b", {}, "No pictures"), reason));
  return { node: place, show: () => {} };
}

// Pictures along the axis of time, each in the middle of the span that it stands for.
function filmstrip(episode, left, width) {
  const { strip } = episode.media;
  if (!strip) return null;
  const height = FILMSTRIP;
  const ideal = (height * strip.width) / strip.height;
  const count = Math.max(1, Math.min(strip.frames.length, Math.round(width / ideal)));
  const ratio = window.devicePixelRatio || 1;
  const node = h("canvas", { class: "filmstrip", width: Math.round(width * ratio), height: Math.round(height * ratio), "aria-hidden": "true" });
  node.style.width = `${width}px`;
  node.style.height = `${height}px`;
  node.style.marginLeft = `${left}px`;
  sheet(episode).then((image) => {
    const context = node.getContext("2d");
    context.scale(ratio, ratio);
    const slot = width / count;
    for (let i = 0; i < count; i++) {
      const position = pictureAt(strip.frames, ((i + 0.5) / count) * (episode.frames - 1));
      // Fill the slot, cutting the sides off where it is narrower than the picture.
      context.save();
      context.beginPath();
      context.rect(i * slot + 0.5, 0, slot - 1, height);
      context.clip();
      const factor = Math.max(slot / strip.width, height / strip.height);
      const size = [strip.width * factor, strip.height * factor];
      drawPicture(context, image, strip, position, [i * slot + (slot - size[0]) / 2, (height - size[1]) / 2, ...size]);
      context.restore();
    }
  }, () => node.remove());
  return node;
}
