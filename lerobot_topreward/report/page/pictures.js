// What the camera saw: a strip of frames, moved by a frame number.

const loaded = new Map(); // block -> its sheet, the last few
const LOADED = 12;
const FILMSTRIP = 54; // px

// The text of a block of its own in the page, which may still be loading.
function blockText(block) {
  const read = () => $(block)?.textContent ?? "";
  if ($(block) || document.readyState !== "loading") return Promise.resolve(read());
  return new Promise((done) => document.addEventListener("DOMContentLoaded", () => done(read())));
}

async function sheet({ block }) {
  if (!loaded.has(block)) {
    const load = blockText(block).then(async (content) => {
      const image = new Image();
      image.src = `data:image/webp;base64,${content}`;
      await image.decode();
      return image;
    });
    loaded.set(block, load);
    if (loaded.size > LOADED) loaded.delete(loaded.keys().next().value);
  }
  return loaded.get(block);
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

function stripViewer(strip, camera, failed) {
  const node = h("canvas", { class: "picture", width: strip.width, height: strip.height, role: "img" });
  const context = node.getContext("2d");
  let [image, wanted, position] = [null, 0, -1];
  const draw = () => {
    const next = pictureAt(strip.frames, wanted);
    if (!image || next === position) return;
    position = next;
    drawPicture(context, image, strip, position, [0, 0, strip.width, strip.height]);
    node.dataset.frame = strip.frames[position];
    node.setAttribute("aria-label", `${camera} at ${number(strip.frames[position] / data.fps, 1)} s`);
  };
  sheet(strip).then((found) => {
    image = found;
    draw();
  }, failed);
  const show = (frame) => {
    wanted = frame;
    draw();
  };
  return { node, show };
}

function cameraView({ strip, reason }, camera) {
  const place = h("div", { class: "screen" });
  if (!strip) {
    place.append(h("p", { class: "no-picture" }, h("b", {}, "No pictures"), reason));
    return { node: place, show: () => {} };
  }
  const failed = () => place.replaceChildren(h("p", { class: "no-picture" }, "This browser cannot show these pictures."));
  const { node, show } = stripViewer(strip, camera, failed);
  place.append(node);
  return { node: place, show };
}

// What all cameras saw, the one whose pictures the list shows first; null without any.
function viewer({ media }) {
  if (!media.strip && !media.reason) return null;
  const main = cameraView(media, "Camera");
  const others = (media.others ?? []).map((other) => ({ name: other.camera.replace(/^.*\./, ""), ...cameraView(other, other.camera) }));
  const small = others.map(({ name, node: place }) => h("figure", { class: "other-camera" }, place, h("figcaption", { class: "faint" }, name)));
  const node = h("div", {}, main.node, small.length ? h("div", { class: "other-cameras" }, ...small) : "");
  return { node, show: (frame) => [main, ...others].forEach(({ show }) => show(frame)) };
}

// Pictures along the axis of time, each in the middle of the span that it stands for.
function filmstrip(episode, left, width, [from, to]) {
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
  sheet(strip).then((image) => {
    const context = node.getContext("2d");
    context.scale(ratio, ratio);
    const slot = width / count;
    for (let i = 0; i < count; i++) {
      const position = pictureAt(strip.frames, from + ((i + 0.5) / count) * (to - from));
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
