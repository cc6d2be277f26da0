// The stage's player: exact frames, loops, cameras. One listener each on the document: the stage's HTML is replaced with
// every item. The other scripts find what they share in window.reviewPage.
window.reviewPage = {};
(() => {
  "use strict";
  const page = window.reviewPage;
  const speeds = [0.25, 0.5, 1, 2, 4];
  const one = (selector, within = document) => within.querySelector(selector);
  const stage = () => one("#stage .stage");
  const video = () => one("#stage .stage video");
  let playing = null; // {key, camera, speed, start, end, fps, frames} of what the video shows
  let loop = null; // {from, to}: frames of the span that plays again and again; `to` is the first after it

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const frameNow = (player, screen) =>
    clamp(Math.floor((screen.currentTime - player.start) * player.fps + 1e-3), 0, player.frames - 1);

  function seek(frame) {
    const screen = video();
    if (!screen || !playing) return;
    // The middle of the frame: its edges belong to one frame in one browser and to its neighbour in another.
    screen.currentTime = playing.start + (clamp(frame, 0, playing.frames - 1) + 0.5) / playing.fps;
  }

  function show(camera, frame) {
    const box = stage(), screen = video();
    if (!box || !screen) return;
    const cameras = JSON.parse(box.dataset.cameras);
    const chosen = cameras[camera % cameras.length];
    if (!playing || playing.key !== box.dataset.key) loop = null;
    playing = {
      key: box.dataset.key, camera: camera % cameras.length, speed: playing ? playing.speed : 1, start: chosen.start,
      end: chosen.end, fps: Number(box.dataset.fps), frames: Number(box.dataset.frames),
    };
    box.querySelectorAll("[data-camera]").forEach((button, index) =>
      button.setAttribute("aria-pressed", String(index === playing.camera)));
    screen.addEventListener("loadedmetadata", () => { screen.playbackRate = playing.speed; seek(frame); }, { once: true });
    screen.src = chosen.url;
  }

  function toggle() {
    const screen = video();
    if (!screen || !playing) return;
    if (!screen.paused) { screen.pause(); return; }
    const now = frameNow(playing, screen);
    if (loop && (now < loop.from || now >= loop.to - 1)) seek(loop.from);
    else if (now >= playing.frames - 1) seek(0);
    screen.play();
  }

  function stop(frame) {
    const screen = video();
    if (!screen || !playing) return;
    screen.pause();
    seek(frame);
  }

  const step = by => { if (video() && playing) stop(frameNow(playing, video()) + by); };

  function faster(by) {
    const screen = video();
    if (!screen || !playing) return;
    playing.speed = speeds[clamp(speeds.indexOf(playing.speed) + by, 0, speeds.length - 1)];
    screen.playbackRate = playing.speed;
  }

  function act(name) {
    if (!playing) return;
    if (name === "play") toggle();
    if (name === "prev") step(-1);
    if (name === "next") step(1);
    if (name === "first") stop(0);
    if (name === "last") stop(playing.frames - 1);
    if (name === "faster") faster(1);
    if (name === "slower") faster(-1);
  }

  // Every animation frame: start what is new, stay inside the episode, move the playheads.
  function tick() {
    requestAnimationFrame(tick);
    const box = stage(), screen = video();
    if (!box) { playing = null; loop = null; return; }
    if (!screen) return;
    if (!playing || playing.key !== box.dataset.key) { show(0, 0); return; }
    // As soon as the last frame begins: a busy machine's next look may come too late, when the neighbour's is on screen.
    const last = (loop ? loop.to : playing.frames) - 1;
    if (!screen.paused && !screen.seeking && frameNow(playing, screen) >= last) {
      if (loop) seek(loop.from);
      else stop(last);
    }
    const frame = frameNow(playing, screen);
    const place = `${(100 * (frame + 0.5)) / playing.frames}%`;
    box.querySelectorAll(".playhead").forEach(head => { if (head.style.left !== place) head.style.left = place; });
    const clock = `frame ${frame} / ${playing.frames - 1}  ·  ${(frame / playing.fps).toFixed(2)} s`;
    const output = one(".clock", box), play = one('[data-act="play"]', box), speed = one(".speed", box);
    if (output.textContent !== clock) { output.textContent = clock; box.dataset.frame = String(frame); }
    const word = screen.paused ? "Play" : "Pause";
    if (play.textContent !== word) play.textContent = word;
    const rate = `${playing.speed}×${loop ? " loop" : ""}`;
    if (speed.textContent !== rate) speed.textContent = rate;
  }

  // Where a pointer is on the time axis, in frames; may lie between two.
  page.frameAt = event => {
    const lane = one("#stage .lane-plot");
    if (!lane || !playing) return 0;
    const box = lane.getBoundingClientRect();
    return clamp((event.clientX - box.left) / box.width, 0, 1) * playing.frames;
  };
  const scrub = event => { if (playing) stop(Math.min(Math.floor(page.frameAt(event)), playing.frames - 1)); };

  // What a verifier points at: its moment, and its picture among the cut-outs.
  // Stage and words arrive one after the other: words about another proposal than the stage's point at nothing yet.
  const cutOut = place => place.dataset.proposal !== stage()?.dataset.proposal ? undefined
    : [...document.querySelectorAll("#stage .crop[data-name]")].find(crop => crop.dataset.name === place.dataset.image);

  function visit(place) {
    const crop = cutOut(place);
    document.querySelectorAll("#stage .crop.pointed").forEach(old => old.classList.remove("pointed"));
    if (crop) { crop.classList.add("pointed"); crop.scrollIntoView({ block: "nearest", inline: "nearest" }); }
    const first = Number(stage()?.dataset.firstNs);
    const frame = crop ? Number(crop.dataset.seek)
      : place.dataset.atNs === undefined ? null : Math.ceil((Number(place.dataset.atNs) - first) * playing?.fps / 1e9 - 1e-6);
    if (playing && frame !== null) stop(clamp(frame, 0, playing.frames - 1));
  }

  function nextMark() {
    if (!playing) return;
    const marks = [...document.querySelectorAll("#stage .mark")].sort((a, b) => a.dataset.seek - b.dataset.seek);
    const now = frameNow(playing, video()), next = marks.find(mark => Number(mark.dataset.seek) > now) || marks[0];
    if (next) stop(Number(next.dataset.seek));
  }

  // The cut-out beside the words that are about it: a copy of the one under the video, so it is made and sent once.
  setInterval(() => document.querySelectorAll(".verdicts .place[data-image]:not([data-shown])").forEach(place => {
    const picture = cutOut(place)?.querySelector("img");
    if (!picture) return;
    place.dataset.shown = "";
    const copy = picture.cloneNode();
    copy.alt = "";
    copy.className = "";
    place.prepend(copy);
  }), 150);

  let scrubbing = false;
  document.addEventListener("pointerdown", event => {
    if (!event.target.closest("#stage [data-timeline] .lane-plot") || event.target.closest(".edge, .mark")) return;
    scrubbing = true;
    scrub(event);
    event.preventDefault();
  });
  document.addEventListener("pointermove", event => { if (scrubbing) scrub(event); });
  document.addEventListener("pointerup", () => { scrubbing = false; });

  document.addEventListener("click", event => {
    const camera = event.target.closest("#stage [data-camera]");
    const button = event.target.closest("#stage [data-act]");
    const crop = event.target.closest("#stage [data-seek]");
    if (camera && playing) show(Number(camera.dataset.camera), frameNow(playing, video()));
    if (button) act(button.dataset.act);
    if (crop) stop(Number(crop.dataset.seek));
    const place = event.target.closest(".verdicts .place");
    if (place) visit(place);
    if (event.target.closest("#stage video")) toggle();
    // A button that keeps the focus would take the next space key for itself.
    const pressed = event.target.closest("#stage button, #decide button, #queue button, #sheet button");
    if (pressed && event.detail > 0) pressed.blur();
  });

  Object.assign(page, {
    one, stage, video, seek, stop, step, nextMark, act, toggle, clamp,
    playing: () => playing,
    frame: () => (playing && video() ? frameNow(playing, video()) : 0),
    camera: (index, frame) => { if (!playing) return; if (playing.camera === index) stop(frame); else show(index, frame); },
    nextCamera: () => { if (playing) show(playing.camera + 1, frameNow(playing, video())); },
    looped: () => loop !== null,
    loop: span => { loop = span; if (span) { seek(span.from); if (video() && video().paused) video().play(); } },
  });
  requestAnimationFrame(tick);
})();
