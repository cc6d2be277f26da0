// Boxes on the picture they were read from (of the board and the cards, or of things): drawn, dragged, resized, nudged,
// deleted. In the video's own pixels. Those that a trace's proposal cut out are shown until somebody changes one: then all
// become the reviewer's. Those of things are fields like others.
(() => {
  "use strict";
  const page = window.reviewPage, { one, make, clamp } = page;
  const MOVES = { i: [0, -1], j: [-1, 0], k: [0, 1], l: [1, 0] };
  let layer = null, active = null, drawing = null, hold = null; // a box goes by "board" or by its card's or thing's index

  const ofThings = () => page.scene.isOn();
  const isReady = () => page.stage() && page.playing() !== null && JSON.parse(page.stage().dataset.boxes) !== null;
  const spec = () => (ofThings() ? page.scene.picture() : JSON.parse(page.stage().dataset.boxes));
  const isOn = () => (page.sheet().kind === "trace" || ofThings()) && isReady() && spec().camera >= 0;
  const size = () => ({ wide: page.video().videoWidth, high: page.video().videoHeight });

  // Where the picture lies inside the video element, which keeps its shape.
  function picture() {
    const screen = page.video(), outer = screen.getBoundingClientRect(), { wide, high } = size();
    const scale = Math.min(outer.width / wide, outer.height / high);
    return { left: outer.left + (outer.width - wide * scale) / 2, top: outer.top + (outer.height - high * scale) / 2, scale };
  }

  const at = event => {
    const place = picture(), { wide, high } = size();
    return [clamp(Math.round((event.clientX - place.left) / place.scale), 0, wide), clamp(Math.round((event.clientY - place.top) / place.scale), 0, high)];
  };

  const all = () => (ofThings() ? [...page.sheet().things.keys()] : ["board", ...page.sheet().cards.keys()]);

  function boxOf(which) {
    if (ofThings()) return page.sheet().things[which]?.box || null;
    const { boxed_in: seenTo, board_box: board, cards } = page.sheet(), { cut } = spec();
    if (which === "board") return seenTo ? board : board || cut.board || null;
    const { box, drawn, place } = cards[which];
    return seenTo || drawn ? box : box || cut[place] || null;
  }

  function put(which, box) {
    if (ofThings()) { page.scene.putBox(which, box); draw(); return; }
    const cards = page.sheet().cards.map((card, index) => {
      const own = index === which ? box : boxOf(index);
      return { ...card, box: own, drawn: card.drawn || index === which || own !== null };
    });
    const { name: camera, frame } = spec();
    page.put({ cards, board_box: which === "board" ? box : boxOf("board"), boxed_in: { camera, frame: frame + Number(page.stage().dataset.first) } });
    draw();
  }

  function nudge(key) {
    const move = MOVES[key.toLowerCase()], box = active === null ? null : boxOf(active);
    if (!move || !box) return false;
    const by = key === key.toLowerCase() ? 1 : 10;
    put(active, moved({ kind: "move", from: [0, 0], box }, [by * move[0], by * move[1]]));
    return true;
  }

  function draw() {
    if (!layer) return;
    const { wide, high } = size();
    const shape = (element, [x0, y0, x1, y1]) => {
      Object.assign(element.style, { left: `${(100 * x0) / wide}%`, top: `${(100 * y0) / high}%`, width: `${(100 * (x1 - x0)) / wide}%`, height: `${(100 * (y1 - y0)) / high}%` });
      return element;
    };
    const parts = all().map(which => {
      const box = boxOf(which), card = page.sheet().cards[which];
      if (!box) return null;
      const words = ofThings() ? page.scene.nounOf(which) : card ? `${which + 1}: ${card.text || "?"}` : "board";
      const grips = ["nw", "ne", "sw", "se"].map(corner => make("i", { class: `grip ${corner}`, "data-corner": corner }));
      const element = make("div", { class: "box", "data-box": which }, make("b", {}, words), ...grips);
      element.toggleAttribute("data-selected", which === active);
      return shape(element, box);
    });
    layer.replaceChildren(...parts.filter(Boolean));
    layer.classList.toggle("drawing", drawing !== null);
  }

  // Every animation frame: a layer over the picture, while the camera that the boxes are about is shown.
  function follow() {
    requestAnimationFrame(follow);
    const screen = page.video();
    if (!screen || !isOn() || !screen.videoWidth || page.playing().camera !== spec().camera) {
      if (layer) { layer.remove(); layer = null; }
      return;
    }
    if (!layer || !layer.isConnected) {
      layer = make("div", { class: "boxes" });
      screen.parentElement.append(layer);
      draw();
    }
    const place = picture(), outer = screen.parentElement.getBoundingClientRect(), { wide, high } = size();
    const style = { left: `${place.left - outer.left}px`, top: `${place.top - outer.top}px`, width: `${wide * place.scale}px`, height: `${high * place.scale}px` };
    for (const [name, value] of Object.entries(style)) if (layer.style[name] !== value) layer.style[name] = value;
  }
  requestAnimationFrame(follow);
  page.onSheet.push(isNew => {
    if (isNew) active = drawing = hold = null;
    if (isOn() && !hold) draw();
  });

  const named = text => (text === "board" ? text : Number(text));

  function start(which) {
    if (!isOn() || !all().includes(which)) return;
    page.camera(spec().camera, spec().frame);
    drawing = which;
    choose(which);
  }

  function choose(which) {
    active = which;
    if (ofThings()) page.scene.choose(which);
    draw();
  }

  document.addEventListener("click", event => {
    const button = event.target.closest("#sheet [data-draw]");
    if (button) start(named(button.dataset.draw));
  });

  document.addEventListener("pointerdown", event => {
    if (!layer || !layer.contains(event.target)) return;
    const element = event.target.closest(".box[data-box]"), grip = event.target.closest(".grip"), from = at(event);
    if (drawing !== null) hold = { index: drawing, kind: "draw", from, box: [...from, ...from] };
    else if (element) {
      choose(named(element.dataset.box));
      hold = { index: active, kind: grip ? grip.dataset.corner : "move", from, box: boxOf(active) };
    } else return;
    event.preventDefault();
    draw();
  });

  function moved(held, [x, y]) {
    const { wide, high } = size(), [x0, y0, x1, y1] = held.box;
    if (held.kind === "move") {
      const right = clamp(x - held.from[0], -x0, wide - x1), down = clamp(y - held.from[1], -y0, high - y1);
      return [x0 + right, y0 + down, x1 + right, y1 + down];
    }
    const fixed = held.kind === "draw" ? held.from : [held.kind.includes("w") ? x1 : x0, held.kind.includes("n") ? y1 : y0];
    return [Math.min(fixed[0], x), Math.min(fixed[1], y), Math.max(fixed[0], x), Math.max(fixed[1], y)];
  }

  document.addEventListener("pointermove", event => {
    if (!hold) return;
    const box = moved(hold, at(event));
    if (box[2] > box[0] && box[3] > box[1]) { hold.last = box; put(hold.index, box); }
  });
  document.addEventListener("pointerup", () => { if (hold) { hold = null; drawing = null; draw(); } });

  Object.assign(page, {
    boxes: {
      isOn, nudge, choose,
      isChosen: () => active !== null && isOn() && boxOf(active) !== null,
      draw: () => start(active === null ? 0 : active),
      next: () => {
        page.camera(spec().camera, spec().frame);
        if (all().length > 0) choose(all()[(all().indexOf(active) + 1) % all().length]);
      },
      remove: () => { if (active !== null && boxOf(active)) put(active, null); },
      cancel: () => { drawing = null; draw(); },
    },
  });
})();
