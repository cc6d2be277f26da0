// The sheet: the fields of the item that is shown. One value, sent and replaced whole. Text from data is only ever set as
// text or as a field's value, so nothing in it can become HTML.
(() => {
  "use strict";
  const page = window.reviewPage, { one } = page;
  const PATIENCE_MS = 8000; // an answer that takes longer is taken for lost, and the sheet is sent again
  const GRACE_MS = 300; // another item's words and sheet come in one answer, and are shown one after the other
  let sheet = { token: null, kind: "none" }, wire = null, root = null;
  let apart = null; // since when the words are not about the sheet
  let asked = null; // {sequence, at} of the state whose words are being made: one at a time, so none overtakes another

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // Gradio calls this once; `props.value` is the sheet as JSON on its way in both directions.
  page.connect = (element, props, trigger, watch) => {
    root = element;
    wire = { props, trigger };
    const load = () => { sheet = JSON.parse(props.value); asked = null; draw(); page.onSheet.forEach(heard => heard(true)); };
    watch("value", load);
    load();
  };
  page.onSheet = []; // called after every change; with true when another sheet came from the server

  function put(changes) {
    if (!sheet.token) return false;
    sheet = { ...sheet, ...changes, sequence: sheet.sequence + 1, saved: "" };
    wire.props.value = JSON.stringify(sheet);
    page.onSheet.forEach(heard => heard(false));
    ask();
    return true;
  }

  function ask() {
    if (asked || !sheet.token) return;
    asked = { sequence: sheet.sequence, at: performance.now() };
    wire.trigger("typing");
  }

  // The words say which state of the sheet they are about. Any other than the present one is asked about again, whatever
  // was lost or came late.
  function check() {
    const words = one("#words [data-sequence]"), now = performance.now();
    if (!sheet.token || !words) return;
    const shown = words.dataset.key === sheet.token.key ? Number(words.dataset.sequence) : -1;
    if (asked && (shown >= asked.sequence || now - asked.at > PATIENCE_MS)) asked = null;
    if (shown === sheet.sequence) apart = null;
    else if (apart === null) apart = now;
    else if (!asked && now - apart > GRACE_MS) ask();
  }
  setInterval(check, 100);

  // Drawing

  function field(id, label, value, change, { isLong = false } = {}) {
    const input = make(isLong ? "textarea" : "input", { ...(isLong ? { rows: 2 } : { type: "text" }), autocomplete: "off", spellcheck: "false" });
    input.value = value;
    input.addEventListener("input", () => change(input.value));
    const box = make("div", { id, class: "field" }, make("label", {}, make("span", {}, label), input));
    return { box, input };
  }

  function select(id, label, value, options, change) {
    const list = make("select", { "aria-label": label });
    const all = options.includes(value) ? options : [value, ...options];
    list.append(...all.map(option => { const item = make("option", {}, option || "\u2013"); item.value = option; return item; }));
    list.value = value;
    list.addEventListener("change", () => { change(list.value); list.blur(); });
    return make("div", { id, class: "choice" }, list);
  }

  function tickable(box, name) {
    box.dataset.tick = name;
    const button = make("button", { type: "button", class: "tick", "aria-label": `accept ${name.replace("-", " ")}` }, "✓");
    button.addEventListener("click", () => tick(name));
    box.append(button);
    return box;
  }

  const changeCard = (index, changes) =>
    put({ cards: sheet.cards.map((card, place) => (place === index ? { ...card, ...changes } : card)) });

  function trace() {
    const { positions } = window.reviewChoices;
    const board = field("board", "Board", sheet.board, value => put({ board: value })).box;
    const solution = field("solution", "Solution", sheet.solution, value => put({ solution: value })).box;
    const cards = sheet.cards.map((card, index) => {
      const number = index + 1;
      const { box } = field(`card-${number}`, `Card ${number}`, card.text, value => changeCard(index, { text: value }));
      const place = select(`place-${number}`, `place of card ${number}`, card.place, positions, value =>
        changeCard(index, { place: value }));
      const drawing = make("button", { type: "button", class: "draw", "data-draw": index, "aria-label": `draw the box of card ${index + 1}`, title: "draw its box" }, "\u25ad");
      return make("div", { class: "card" }, tickable(box, `card-${number}`), make("div", { class: "under" }, place, drawing));
    });
    const pick = field("pick", "Pick", sheet.pick, value => put({ pick: value })).box;
    const from = select("pick-from", "pick from", sheet.pick_from, positions, value => put({ pick_from: value }));
    const more = make("button", { type: "button", class: "more", id: "more-cards" }, "+ card");
    more.addEventListener("click", () => {
      put({ cards: [...sheet.cards, { text: "", place: "unknown", box: null, drawn: false }] });
      draw();
    });
    const row = (...parts) => make("div", { class: "row" }, ...parts);
    const all = make("div", { class: "row", id: "cards" }, ...cards);
    if (sheet.cards.length < window.reviewChoices.mostCards) all.append(more);
    board.append(make("button", { type: "button", class: "draw", "data-draw": "board", "aria-label": "draw the box of the board", title: "draw its box" }, "\u25ad"));
    return [row(tickable(board, "board"), tickable(solution, "solution")), all, row(tickable(pick, "pick"), from)];
  }

  function draw() {
    if (!root) return;
    const forms = { trace, segments: () => [page.spanTable()], placement: () => [page.placementForm()], scene: () => [page.sceneForm()] };
    const parts = sheet.kind in forms ? forms[sheet.kind]() : [];
    if (sheet.token) {
      const { box, input } = field("note", "Note", sheet.note, value => put({ note: value }));
      input.placeholder = "why, for others (optional)";
      input.maxLength = 2000;
      parts.push(box);
    }
    root.replaceChildren(...parts);
    ticks();
  }

  // Accepting one field after another

  const names = () => [...(root ? root.querySelectorAll("[data-tick]") : [])].map(box => box.dataset.tick);

  function tick(name) {
    const said = new Set(sheet.ticked);
    if (!said.delete(name)) said.add(name);
    put({ ticked: names().filter(known => said.has(known)) });
    ticks();
  }

  function ticks() {
    const open = names().find(name => !sheet.ticked.includes(name));
    root.querySelectorAll("[data-tick]").forEach(box => {
      box.classList.toggle("ticked", sheet.ticked.includes(box.dataset.tick));
      box.classList.toggle("current", box.dataset.tick === open);
      one(".tick", box).setAttribute("aria-pressed", String(sheet.ticked.includes(box.dataset.tick)));
    });
  }

  Object.assign(page, {
    make, put, draw, tickable, changeCard, select, field,
    sheet: () => sheet,
    // Beside the fields: travels with the next event, and is no change of them.
    tell: changes => { sheet = { ...sheet, ...changes }; wire.props.value = JSON.stringify(sheet); },
    send: name => wire.trigger(name),
    tickNext: () => {
      const open = () => names().find(name => !sheet.ticked.includes(name));
      if (open()) tick(open());
      if (page.scene.parts().includes(open())) page.scene.show(open());
    },
  });
})();
