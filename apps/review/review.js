// The stage's player and the keyboard. One listener each on the document: the stage's HTML is replaced with every item.
(() => {
  "use strict";
  const speeds = [0.25, 0.5, 1, 2];
  const one = (selector, within = document) => within.querySelector(selector);
  const stage = () => one("#stage .stage");
  const video = () => one("#stage .stage video");
  let playing = null; // {key, camera, speed, start, end, fps, frames} of what the video shows

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
    if (frameNow(playing, screen) >= playing.frames - 1) seek(0);
    screen.play();
  }

  function step(by) {
    const screen = video();
    if (!screen || !playing) return;
    screen.pause();
    seek(frameNow(playing, screen) + by);
  }

  function act(name) {
    const screen = video();
    if (!playing) return;
    if (name === "play") toggle();
    if (name === "prev") step(-1);
    if (name === "next") step(1);
    if (name === "first") { if (screen) screen.pause(); seek(0); }
    if (name === "speed" && screen) {
      playing.speed = speeds[(speeds.indexOf(playing.speed) + 1) % speeds.length];
      screen.playbackRate = playing.speed;
    }
  }

  // Every animation frame: start what is new, stay inside the episode, move the playheads.
  function tick() {
    requestAnimationFrame(tick);
    const box = stage(), screen = video();
    if (!box) { playing = null; return; }
    if (!screen) return;
    if (!playing || playing.key !== box.dataset.key) { show(0, 0); return; }
    // As soon as the last frame begins: a busy machine's next look may come too late, when the neighbour's is on screen.
    if (!screen.paused && !screen.seeking && frameNow(playing, screen) >= playing.frames - 1) {
      screen.pause();
      seek(playing.frames - 1);
    }
    const frame = frameNow(playing, screen);
    const place = `${(100 * (frame + 0.5)) / playing.frames}%`;
    box.querySelectorAll(".playhead").forEach(head => { if (head.style.left !== place) head.style.left = place; });
    const clock = `frame ${frame} / ${playing.frames - 1}  ·  ${(frame / playing.fps).toFixed(2)} s`;
    const output = one(".clock", box), play = one('[data-act="play"]', box), speed = one('[data-act="speed"]', box);
    if (output.textContent !== clock) { output.textContent = clock; box.dataset.frame = String(frame); }
    const word = screen.paused ? "Play" : "Pause";
    if (play.textContent !== word) play.textContent = word;
    const rate = `${playing.speed}×`;
    if (speed.textContent !== rate) speed.textContent = rate;
  }

  function scrub(event) {
    const lane = one("#stage .lane-plot");
    if (!lane || !playing) return;
    const box = lane.getBoundingClientRect();
    const screen = video();
    if (screen) screen.pause();
    seek(Math.floor(clamp((event.clientX - box.left) / box.width, 0, 0.99999) * playing.frames));
  }

  let scrubbing = false;
  document.addEventListener("pointerdown", event => {
    if (!event.target.closest("#stage [data-timeline] .lane-plot")) return;
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
    if (crop) { if (video()) video().pause(); seek(Number(crop.dataset.seek)); }
    if (event.target.closest("#stage video")) toggle();
    // A button that keeps the focus would take the next space key for itself.
    const pressed = event.target.closest("#stage button, #decide button, #queue button");
    if (pressed) pressed.blur();
  });

  const typing = target => target instanceof Element &&
    (target.closest("input, textarea, select, [role=listbox], [role=combobox]") || target.isContentEditable);
  const press = selector => { const button = one(selector); if (button && !button.disabled) button.click(); };
  const decisions = { a: "#accept", r: "#reject", s: "#skip", u: "#undo" };

  document.addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (document.activeElement) document.activeElement.blur(); // the next item's keys must not land in this field
      press("#save");
      return;
    }
    if (typing(event.target)) { if (event.key === "Escape") event.target.blur(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const size = event.shiftKey ? 10 : 1;
    if (key === "ArrowLeft" || key === "ArrowRight") { event.preventDefault(); step(key === "ArrowLeft" ? -size : size); return; }
    if (event.repeat) return;
    if (key === " ") { event.preventDefault(); toggle(); }
    else if (key === "Home") { event.preventDefault(); act("first"); }
    else if (key === "c" && playing) show(playing.camera + 1, frameNow(playing, video()));
    else if (key === "e") { event.preventDefault(); const field = one("#board textarea, #board input"); if (field) { field.focus(); field.select(); } }
    else if (decisions[key]) { event.preventDefault(); press(decisions[key]); }
  });

  requestAnimationFrame(tick);
})();
