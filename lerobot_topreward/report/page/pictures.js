// What the camera saw: a strip of frames or a video, both moved by a frame number.

const loaded = new Map(); // episode -> its sheet, the last few
const LOADED = 6;
const FILMSTRIP = 54; // px

function mediaText(episode) {
  const read = () => $(`media-${episode}`)?.textContent ?? "";
  if ($(`media-${episode}`) || document.readyState !== "loading") return Promise.resolve(read());
  return new Promise((done) => document.addEventListener("DOMContentLoaded", () => done(read())));
}

async function sheet(one) {
  if (!loaded.has(one.episode)) {
    const load = mediaText(one.episode).then(async (content) => {
      const image = new Image();
      image.src = `data:image/webp;base64,${content}`;
      await image.decode();
      return image;
    });
    loaded.set(one.episode, load);
    if (loaded.size > LOADED) loaded.delete(loaded.keys().next().value);
  }
  return loaded.get(one.episode);
}

function drawPicture(context, image, media, position, place) {
  const x = (position % media.columns) * media.width;
  const y = Math.floor(position / media.columns) * media.height;
  context.drawImage(image, x, y, media.width, media.height, ...place);
}

// The last picture at or before a frame.
function pictureAt(frames, frame) {
  let found = 0;
  while (found + 1 < frames.length && frames[found + 1] <= frame) found++;
  return found;
}

function stripViewer(one, failed) {
  const { media } = one;
  const node = h("canvas", { class: "picture", width: media.width, height: media.height, role: "img" });
  const context = node.getContext("2d");
  let [image, wanted, position] = [null, 0, -1];
  const draw = () => {
    const next = pictureAt(media.frames, wanted);
    if (!image || next === position) return;
    position = next;
    drawPicture(context, image, media, position, [0, 0, media.width, media.height]);
    node.dataset.frame = media.frames[position];
    node.setAttribute("aria-label", `Camera at ${number(media.frames[position] / data.fps, 1)} s`);
  };
  sheet(one).then((found) => {
    image = found;
    draw();
  }, failed);
  const show = (frame) => {
    wanted = frame;
    draw();
  };
  return { node, show, video: null };
}

function videoViewer(one, failed) {
  const node = h("video", { class: "picture", width: one.media.width, height: one.media.height, preload: "auto", playsinline: true });
  node.muted = true;
  node.setAttribute("aria-label", "Video of the episode");
  node.addEventListener("error", () => node.hasAttribute("src") && failed());
  let wanted = 0;
  const seek = () => {
    // The middle of a frame, since its border may round to either side.
    if (node.readyState > 0) node.currentTime = Math.min((wanted + 0.5) / data.fps, node.duration);
  };
  node.addEventListener("loadedmetadata", seek);
  mediaText(one.episode).then((content) => {
    node.src = `data:video/mp4;base64,${content}`;
  });
  const show = (frame) => {
    wanted = frame;
    seek();
  };
  return { node, show, video: node };
}

function viewer(one) {
  const place = h("div", { class: "screen" });
  const failed = () => place.replaceChildren(h("p", { class: "no-picture" }, "This browser cannot show these pictures."));
  const { kind, reason } = one.media;
  if (kind === "none") {
    if (!reason) return null;
    place.append(h("p", { class: "no-picture" }, h("b", {}, "No pictures"), reason));
    return { node: place, show: () => {}, video: null };
  }
  const made = (kind === "strip" ? stripViewer : videoViewer)(one, failed);
  place.append(made.node);
  return { ...made, node: place };
}

// Pictures along the axis of time, each in the middle of the span that it stands for.
function filmstrip(one, left, width) {
  const { media } = one;
  if (media.kind !== "strip") return null;
  const height = FILMSTRIP;
  const ideal = (height * media.width) / media.height;
  const count = Math.max(1, Math.min(media.frames.length, Math.round(width / ideal)));
  const ratio = window.devicePixelRatio || 1;
  const node = h("canvas", { class: "filmstrip", width: Math.round(width * ratio), height: Math.round(height * ratio), "aria-hidden": "true" });
  node.style.width = `${width}px`;
  node.style.height = `${height}px`;
  node.style.marginLeft = `${left}px`;
  sheet(one).then((image) => {
    const context = node.getContext("2d");
    context.scale(ratio, ratio);
    const slot = width / count;
    for (let i = 0; i < count; i++) {
      const position = pictureAt(media.frames, ((i + 0.5) / count) * (one.frames - 1));
      // Fill the slot, cutting the sides off where it is narrower than the picture.
      context.save();
      context.beginPath();
      context.rect(i * slot + 0.5, 0, slot - 1, height);
      context.clip();
      const factor = Math.max(slot / media.width, height / media.height);
      const size = [media.width * factor, media.height * factor];
      drawPicture(context, image, media, position, [i * slot + (slot - size[0]) / 2, (height - size[1]) / 2, ...size]);
      context.restore();
    }
  }, () => node.remove());
  return node;
}
