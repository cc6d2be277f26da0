// The fields of placements and scenes: things with their boxes, how they lie to each other, the plan, other wordings,
// questions. A list at a time, so that all of it fits beside the video.
(() => {
  "use strict";
  const page = window.reviewPage, { one, make } = page;
  const PARTS = [
    ["things", "Things", ["noun", "box"]],
    ["relations", "Relations", ["when", "thing", "lies", "what", "seen by"]],
    ["plan", "Plan", ["step", "with", "puts it", "what"]],
    ["wordings", "Wordings", ["other words for the instruction"]],
    ["questions", "Questions", ["question", "answer"]],
  ];
  let part = "things", selected = 0, root = null;

  const sheet = () => page.sheet();
  const isOn = () => sheet().kind === "scene" || sheet().kind === "placement";
  const rows = () => sheet()[part];
  const choices = () => window.reviewChoices;
  const answered = box => `At [${box.join(", ")}].`;
  const put = (name, list) => page.put({ [name]: list });
  const changed = (list, at, value) => list.map((old, index) => (index === at ? value : old));
  const cellsOf = row => (Array.isArray(row) ? row : [row]);

  // Which picture boxes lie in: the chosen one; before there is one, the picture on the screen.
  function picture() {
    const stage = page.stage(), chosen = sheet().picture, cameras = JSON.parse(stage.dataset.cameras);
    if (!chosen) return { camera: page.playing().camera, frame: page.frame() };
    return { camera: cameras.findIndex(camera => camera.name === chosen.camera), frame: chosen.frame - Number(stage.dataset.first) };
  }

  function onScreen() {
    const stage = page.stage(), screen = page.video();
    const camera = JSON.parse(stage.dataset.cameras)[page.playing().camera].name;
    return { camera, frame: page.frame() + Number(stage.dataset.first), width: screen.videoWidth, height: screen.videoHeight };
  }

  function takePicture() {
    if (!isOn() || !page.playing() || !page.video().videoWidth) return;
    page.put({ picture: onScreen() });
    page.draw();
  }

  // A box, and with it the answers that said where the thing was.
  function putBox(which, box) {
    const old = sheet().things[which], was = old.box && answered(old.box);
    const questions = sheet().questions.map(([asks, says]) =>
      [asks, box && says === was && asks === `Where is the ${old.noun}?` ? answered(box) : says]);
    page.put({ things: changed(sheet().things, which, { ...old, box }), questions, picture: sheet().picture || onScreen() });
    const place = one(`#sheet [data-box-of="${which}"]`);
    if (place) place.textContent = box ? `[${box.join(", ")}]` : "none";
    const where = one("#sheet #picture");
    if (where) where.textContent = pictureWords();
    if (part === "questions" && sheet().kind === "scene") page.draw();
  }

  // A thing that is called otherwise is called so everywhere.
  function rename(old, noun) {
    if (!old || !noun || old === noun) return;
    const name = word => (word === old ? noun : word);
    const inside = words => words.replaceAll(`the ${old}`, `the ${noun}`);
    page.put({
      relations: sheet().relations.map(([when, thing, lies, what, side]) => [when, name(thing), lies, name(what), side]),
      plan: sheet().plan.map(([label, thing, lies, what]) => [label, name(thing), lies, name(what)]),
      questions: sheet().questions.map(row => row.map(inside)),
    });
  }

  // Rows

  const BLANKS = {
    things: () => ({ noun: "", box: null }),
    relations: () => ["before", "", "unknown", "", choices().sides[0]],
    plan: () => ["", "", "", ""],
    wordings: () => "",
    questions: () => ["", ""],
  };

  function add() {
    if (sheet().kind !== "scene") return;
    const at = Math.min(selected + 1, rows().length);
    put(part, [...rows().slice(0, at), BLANKS[part](), ...rows().slice(at)]);
    show(part, at);
    one(`#sheet tr[data-row="${at}"] [contenteditable], #sheet tr[data-row="${at}"] select`)?.focus();
  }

  function remove(at = selected) {
    if (sheet().kind !== "scene" || at >= rows().length) return;
    put(part, rows().filter((_, index) => index !== at));
    show(part, Math.max(0, Math.min(at, rows().length - 1)));
  }

  function select(at) {
    selected = at;
    if (part === "things") page.boxes.choose(at);
    mark();
  }

  const mark = () => root?.querySelectorAll("tr[data-row]").forEach(row =>
    row.toggleAttribute("data-selected", Number(row.dataset.row) === selected));

  function words(value, label, change) {
    const place = make("td", { contenteditable: "plaintext-only", role: "textbox", "aria-label": label }, value);
    let before = value;
    place.addEventListener("focus", () => { before = place.textContent.trim(); });
    place.addEventListener("input", () => change(place.textContent.trim()));
    place.addEventListener("blur", () => { if (label.startsWith("noun ") && place.isConnected) rename(before, place.textContent.trim()); });
    place.addEventListener("keydown", event => { if (event.key === "Enter") { event.preventDefault(); place.blur(); } });
    return place;
  }

  const pick = (id, label, value, options, change) => make("td", {}, page.select(id, label, value, options, change));

  function cells(at) {
    const number = at + 1, now = () => rows()[at];
    const cell = (place, value) => put(part, changed(rows(), at, part === "wordings" ? value : changed(now(), place, value)));
    const nouns = ["", ...sheet().things.map(thing => thing.noun).filter(Boolean)];
    const text = (place, name) => words(cellsOf(now())[place], `${name} ${number}`, value => cell(place, value));
    const list = (place, name, options) => pick(`${part}-${number}-${place}`, `${name} ${number}`, now()[place], options, value => cell(place, value));
    switch (part) {
      case "things": {
        const box = now().box, draw = make("button", { type: "button", class: "draw", "data-draw": at, "aria-label": `draw the box of thing ${number}`, title: "draw its box" }, "\u25ad");
        const noun = words(now().noun, `noun ${number}`, value => put("things", changed(rows(), at, { ...now(), noun: value })));
        return [noun, make("td", {}, make("span", { "data-box-of": at }, box ? `[${box.join(", ")}]` : "none"), draw)];
      }
      case "relations":
        return [list(0, "when of relation", choices().whens), list(1, "thing of relation", nouns), list(2, "relation", choices().relations), list(3, "what relation is to", nouns), list(4, "side of relation", choices().sides)];
      case "plan":
        return [list(0, "label of step", choices().labels), list(1, "thing of step", nouns), list(2, "place of step", ["", ...choices().relations]), list(3, "what step is to", nouns)];
      case "wordings":
        return [text(0, "wording")];
      default:
        return [text(0, "question"), text(1, "answer")];
    }
  }

  function table() {
    const heads = PARTS.find(([name]) => name === part)[2];
    const head = make("tr", {}, ...["", ...heads, ""].map(title => make("th", { scope: "col" }, title)));
    const body = rows().map((_, at) => {
      const drop = make("button", { type: "button", "aria-label": `delete row ${at + 1}` }, "\u2715");
      drop.addEventListener("click", () => remove(at));
      const row = make("tr", { "data-row": at }, make("td", {}, String(at + 1)), ...cells(at), make("td", {}, drop));
      row.addEventListener("pointerdown", () => select(at));
      row.addEventListener("focusin", () => select(at));
      return row;
    });
    return make("table", { class: `spans ${part}` }, make("thead", {}, head), make("tbody", {}, ...body));
  }

  const pictureWords = () => (sheet().picture ? `frame ${sheet().picture.frame} of ${sheet().picture.camera}` : "no picture yet");

  function tools() {
    const kinds = sheet().kind === "scene" ? [["n", "add", add], ["x", "delete", () => remove()]] : [];
    const buttons = [...kinds, ["p", "boxes lie here", takePicture]].map(([key, title, does]) => {
      const button = make("button", { type: "button" }, `${title} `, make("kbd", {}, key));
      button.addEventListener("click", does);
      return button;
    });
    return make("div", { class: "tools" }, ...buttons, make("output", { id: "picture" }, pictureWords()));
  }

  function show(name, at = 0) {
    part = name;
    selected = at;
    page.draw();
  }

  page.sceneForm = () => {
    const tab = ([name, title]) => {
      const count = make("small", {}, ` ${sheet()[name].length}`);
      const button = make("button", { type: "button", id: `part-${name}`, title: `key ${PARTS.findIndex(([known]) => known === name) + 1}`, "aria-pressed": String(name === part) }, title, count);
      button.addEventListener("click", () => show(name));
      return page.tickable(make("div", { class: "part" }, button), name);
    };
    const told = page.tickable(page.field("instruction", "Instruction", sheet().instruction, value => page.put({ instruction: value }), { isLong: true }).box, "instruction");
    const outcome = page.select("outcome", "outcome", sheet().outcome, choices().outcomes, value => page.put({ outcome: value }));
    outcome.prepend(make("span", { class: "label" }, "Outcome"));
    const tabs = make("div", { class: "parts", role: "group", "aria-label": "parts of the scene" }, ...PARTS.map(tab));
    const pane = make("div", { class: "span-rows", role: "group", "aria-label": part, tabindex: "0" }, table());
    root = make("div", { id: "scene" }, make("div", { class: "row" }, told, page.tickable(outcome, "outcome")), tabs, pane, tools());
    mark();
    return root;
  };

  page.placementForm = () => {
    const thing = (at, id, title) => {
      const { box, input } = page.field(id, title, sheet().things[at].noun, value => put("things", changed(sheet().things, at, { ...sheet().things[at], noun: value })));
      input.addEventListener("focus", () => page.boxes.choose(at));
      box.append(make("button", { type: "button", class: "draw", "data-draw": at, "aria-label": `draw the box of the ${id}`, title: "draw its box" }, "\u25ad"));
      return page.tickable(box, id);
    };
    const list = (id, title, name, options) => {
      const place = page.select(id, title.toLowerCase(), sheet()[name], options, value => page.put({ [name]: value }));
      place.prepend(make("span", { class: "label" }, title));
      return page.tickable(place, id);
    };
    const row = (...all) => make("div", { class: "row" }, ...all);
    return make("div", { id: "placement" }, row(thing(0, "target", "Target"), thing(1, "reference", "Reference")),
      row(list("relation", "Goes", "relation", choices().relations), list("side", "As seen by", "side", choices().sides)), tools());
  };

  page.onSheet.push(isNew => { if (isNew) { part = "things"; selected = 0; } });

  Object.assign(page, {
    scene: {
      isOn, add, remove, picture, putBox, takePicture, show,
      parts: () => PARTS.map(([name]) => name),
      list: number => { if (sheet().kind === "scene" && number <= PARTS.length) show(PARTS[number - 1][0]); },
      nounOf: which => sheet().things[which].noun || "?",
      choose: which => { if (part === "things" || sheet().kind === "placement") { selected = which; mark(); } },
    },
  });
})();
