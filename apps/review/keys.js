// The keyboard, and the questions that are asked before something is written down.
(() => {
  "use strict";
  const page = window.reviewPage, { one, make } = page;
  const typing = target => target instanceof Element &&
    (target.closest("input, textarea, select, [role=listbox], [role=combobox], [role=textbox]") || target.isContentEditable);
  const press = selector => { const button = one(selector); if (button && !button.disabled) button.click(); };
  const spans = does => () => { if (page.spans.isOn()) does(page.spans); };
  const either = (ofSpans, ofScene) => () => { if (page.spans.isOn()) ofSpans(page.spans); else if (page.scene.isOn()) ofScene(page.scene); };
  const open = name => { document.body.dataset.tab = document.body.dataset.tab === name ? "verifiers" : name; tabs(); };

  // Every key once: what it does, and in which words the map says it. Shift is in the key's own letter.
  const KEYS = [
    ["Decide", [
      ["a", "accept what is shown", () => press("#accept")],
      ["f", "accept the marked field, go to the next", () => page.tickNext()],
      ["e", "edit: go to the first field", () => edit()],
      ["r", "reject, with a reason", () => ask("reject")],
      ["b", "episode unusable, with a reason", () => ask("unusable")],
      ["s", "skip: somebody else decides", () => press("#skip")],
      ["u", "undo my last decision", () => press("#undo")],
      ["g", "flag for the lead", () => ask("flag")],
      ["/", "comment", () => ask("comment")],
    ]],
    ["Video", [
      [" ", "play or pause", () => page.toggle()],
      ["Home", "first frame", () => page.act("first")],
      ["End", "last frame", () => page.act("last")],
      [",", "slower", () => page.act("slower")],
      [".", "faster", () => page.act("faster")],
      ["c", "next camera", () => page.nextCamera()],
      ["w", "next moment that a verifier points at", () => page.nextMark()],
    ]],
    ["Segments and scenes", [
      ["[", "previous segment", () => page.spans.next(-1)],
      ["]", "next segment", () => page.spans.next(1)],
      ["l", "loop the segment", () => page.spans.loop()],
      ["t", "the other edge", spans(all => all.otherEdge())],
      ["j", "nudge the edge 1 frame back", spans(all => all.nudge(-1))],
      ["k", "nudge the edge 1 frame on", spans(all => all.nudge(1))],
      ["J", "nudge the edge 10 frames back", spans(all => all.nudge(-10))],
      ["K", "nudge the edge 10 frames on", spans(all => all.nudge(10))],
      ["x", "split at the playhead, or delete a row", either(all => all.split(), scene => scene.remove())],
      ["n", "add a segment at the playhead, or a row", either(all => all.add(), scene => scene.add())],
      ["m", "merge with the next", spans(all => all.merge())],
    ]],
    ["Boxes", [
      ["d", "draw the chosen box", () => page.boxes.draw()],
      ["v", "choose the next box", () => { if (page.boxes.isOn()) page.boxes.next(); }],
      ["p", "this is the picture of the boxes of things", () => page.scene.takePicture()],
      ["Delete", "delete the segment, or the chosen box", () => { if (page.spans.isOn()) page.spans.remove(); else if (page.boxes.isOn()) page.boxes.remove(); }],
    ]],
    ["Page", [
      ["h", "guideline", () => open("guideline")],
      ["o", "where the proposal comes from", () => open("origin")],
      ["?", "this map", () => ask("keys")],
    ]],
  ];
  const ELSEWHERE = [["left, right", "one frame; with Shift ten"], ["1 to 8", "label the segment; 1 to 5: list of a scene"], ["i, j, k, l", "move the chosen box one pixel; with Shift ten"], ["Ctrl+Enter", "save the edit"], ["Esc", "leave a field, so that keys work again"]];
  const does = new Map(KEYS.flatMap(([, rows]) => rows.map(([key, , act]) => [key, act])));

  function edit() {
    const field = one("#sheet .field input, #sheet .field textarea, #sheet [contenteditable]");
    if (!field) return;
    field.focus();
    if (field.select) field.select();
  }

  // Questions

  function dialog(title, ...parts) {
    const box = make("dialog", { class: "ask", "aria-label": title }, make("h2", {}, title), ...parts);
    box.addEventListener("close", () => box.remove());
    box.addEventListener("click", event => { if (event.target === box) box.close(); });
    (one(".gradio-container") || document.body).append(box);
    box.showModal();
    return box;
  }

  function map() {
    const named = { " ": "space" };
    const part = ([title, rows]) => make("section", {}, make("h3", {}, title), make("dl", {}, ...rows.flatMap(([key, words]) =>
      [make("dt", {}, make("kbd", {}, named[key] || key)), make("dd", {}, words)])));
    dialog("Keys", make("div", { class: "keys" }, ...KEYS.map(part), part(["Also", ELSEWHERE])),
      make("p", {}, "Keys rest while you type in a field."));
  }

  function words(title, said) {
    const input = make("input", { type: "text", maxlength: "500", "aria-label": title });
    const form = make("form", { method: "dialog" }, input, make("button", { type: "submit" }, "Send"));
    form.addEventListener("submit", () => said(input.value.trim()));
    return { form, input };
  }

  function reject(reason, more) {
    const note = [page.sheet().note, more].filter(Boolean).join(". ");
    page.tell({ reason, note });
    page.send("reject");
  }

  function ask(kind) {
    if (one("dialog[open]")) return;
    if (kind === "keys") { map(); return; }
    if (!page.sheet().token || getComputedStyle(one("#decide") || document.body).display === "none") return;
    const { reasons, unusable } = window.reviewChoices;
    if (kind === "reject") {
      const { form, input } = words("in your own words (optional)", more => reject("other", more));
      input.placeholder = "in your own words";
      const buttons = reasons.map((reason, index) => {
        const button = make("button", { type: "button", "data-reason": reason }, make("kbd", {}, String(index + 1)), ` ${reason}`);
        button.addEventListener("click", () => { box.close(); reject(reason, input.value.trim()); });
        return button;
      });
      const box = dialog("Why is it rejected?", make("div", { class: "reasons" }, ...buttons), form);
      buttons[0].focus();
      box.addEventListener("keydown", event => {
        if (event.target === input || event.repeat) return;
        const chosen = buttons[Number(event.key) - 1];
        if (chosen) { event.preventDefault(); chosen.click(); }
      });
    } else if (kind === "unusable") {
      const { form, input } = words("why the whole episode is unusable", more => { if (more) reject(unusable, more); });
      input.required = true;
      dialog("Why is the whole episode unusable?", make("p", {}, "Nothing about it is released, and no mix takes it."), form);
      input.focus();
    } else {
      const { form, input } = words(kind === "flag" ? "what the lead should look at" : "your comment", more => {
        if (!more) return;
        page.tell({ remark: { kind, words: more } });
        page.send("remark");
      });
      dialog(kind === "flag" ? "What should the lead look at?" : "Comment", form);
      input.focus();
    }
  }

  // What lies beside the fields

  function tabs() {
    const chosen = document.body.dataset.tab || "verifiers";
    document.querySelectorAll("#verdicts [data-tab]").forEach(tab => {
      const isChosen = tab.dataset.tab === chosen;
      if (tab.getAttribute("aria-selected") !== String(isChosen)) tab.setAttribute("aria-selected", String(isChosen));
    });
    document.querySelectorAll("time[datetime]:not([data-local])").forEach(time => {
      const moment = new Date(time.dateTime);
      time.dataset.local = "";
      if (!Number.isNaN(moment.getTime())) time.textContent = moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
    });
  }
  setInterval(tabs, 150);

  document.addEventListener("click", event => {
    const tab = event.target.closest("#verdicts [data-tab]"), asks = event.target.closest("[data-ask]");
    const presses = event.target.closest("[data-press]");
    if (tab) { document.body.dataset.tab = tab.dataset.tab; tabs(); }
    if (asks) ask(asks.dataset.ask);
    if (presses) press(presses.dataset.press);
  });

  document.addEventListener("keydown", event => {
    if (one("dialog[open]")) return; // it has keys of its own
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (document.activeElement) document.activeElement.blur(); // the next item's keys must not land in this field
      if (!event.repeat) press("#save");
      return;
    }
    if (typing(event.target)) { if (event.key === "Escape") event.target.blur(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      const size = event.shiftKey ? 10 : 1;
      page.step(event.key === "ArrowLeft" ? -size : size);
      return;
    }
    if (event.repeat) return;
    if (event.key === "Escape") { page.boxes.cancel(); return; }
    // Space and Enter on a button that was reached by Tab press that button.
    if ((event.key === " " || event.key === "Enter") && event.target.closest("button, [role=tab]")) return;
    if (page.boxes.isOn() && page.boxes.nudge(event.key)) { event.preventDefault(); return; }
    const act = does.get(event.key) || does.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
    const number = /^[1-8]$/.test(event.key) ? Number(event.key) : 0;
    if (number && page.spans.isOn()) page.spans.label(number);
    else if (number && page.scene.isOn()) page.scene.list(number);
    else if (act) { event.preventDefault(); act(); }
  });
})();
