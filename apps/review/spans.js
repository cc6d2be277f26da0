// Segments on the timeline and in their table: select, add, split, merge, relabel, delete, drag and nudge their edges.
// Everything is counted in frames and ends as rows of the sheet, which the server reads and judges.
(() => {
  "use strict";
  const page = window.reviewPage, { one, make, clamp } = page;
  let selected = 0, side = 1; // 1: the end of the selected segment is the active edge, 0: its start
  let table = null, drag = null;

  const rows = () => page.sheet().rows || [];
  const isOn = () => page.sheet().kind === "segments" && page.playing() !== null;
  const box = () => page.stage();
  const first = () => Number(box().dataset.first); // the recording's frame that the episode starts with
  const toFrame = text => Math.round(Number(text) * Number(box().dataset.fps)) - first();
  const toText = frame => (((frame + first()) / Number(box().dataset.fps))).toFixed(3);
  const hasTimes = row => row[0].trim() !== "" && row[1].trim() !== "" && !Number.isNaN(toFrame(row[0])) && !Number.isNaN(toFrame(row[1]));
  const spans = () => rows().map(row => (hasTimes(row) ? { from: toFrame(row[0]), to: toFrame(row[1]) } : null));
  const say = words => { const place = one("#span-words"); if (place) place.textContent = words; };

  function put(changed, chosen = selected) {
    selected = clamp(chosen, 0, Math.max(0, changed.length - 1));
    // Accepted segments are known by their place, which another number of segments changes.
    page.put(changed.length === rows().length ? { rows: changed } : { rows: changed, ticked: [] });
    page.draw();
  }

  function select(index, seeks = true) {
    if (index < 0 || index >= rows().length) return;
    selected = index;
    const span = spans()[index];
    if (seeks && span) page.stop(span.from);
    if (page.looped() && span) page.loop(span);
    mark();
  }

  // One edge; where two segments meet, both move. Each keeps at least one frame.
  function moveEdge(index, end, frame) {
    const all = spans(), changed = rows().map(row => [...row]);
    if (!all[index]) { say("Give this segment its times first."); return null; }
    const other = end ? index + 1 : index - 1;
    const meets = all[other] && (end ? all[other].from === all[index].to : all[other].to === all[index].from);
    const low = end ? all[index].from + 1 : meets ? all[other].from + 1 : all[other] ? all[other].to : 0;
    const high = end ? (meets ? all[other].to - 1 : all[other] ? all[other].from : page.playing().frames) : all[index].to - 1;
    const place = toText(clamp(Math.round(frame), low, high));
    changed[index][end] = place;
    if (meets) changed[other][1 - end] = place;
    put(changed, index);
    return toFrame(place);
  }

  function nudge(by) {
    const span = spans()[selected];
    if (!span) return;
    const place = moveEdge(selected, side, (side ? span.to : span.from) + by);
    if (place !== null) page.stop(place - side); // of an end the last frame that is still inside
  }

  const under = frame => spans().findIndex(span => span && span.from <= frame && frame < span.to);

  function split() {
    const frame = page.frame(), index = under(frame);
    if (index < 0) { say("No segment is at the playhead. Press n to add one."); return; }
    const row = rows()[index];
    if (spans()[index].from === frame) { say("The playhead is at the segment's start. Step on, then split."); return; }
    const parts = [[row[0], toText(frame), row[2], row[3]], [toText(frame), row[1], row[2], row[3]]];
    put([...rows().slice(0, index), ...parts, ...rows().slice(index + 1)], index + 1);
  }

  function add() {
    const frame = page.frame(), all = spans();
    if (under(frame) >= 0) { say("A segment is here already. Press x to split it."); return; }
    const next = all.findIndex(span => span && span.from > frame);
    const before = all.filter(span => span && span.to <= frame).pop();
    const place = next < 0 ? all.length : next;
    const near = rows()[place - 1] || rows()[place] || ["", "", "", ""];
    const from = before ? before.to : 0, to = next < 0 ? page.playing().frames : all[next].from;
    const row = [toText(from), toText(to), "unknown", near[3] || window.reviewChoices.effectors[0] || "unknown"];
    put([...rows().slice(0, place), row, ...rows().slice(place)], place);
  }

  function merge() {
    if (selected + 1 >= rows().length) { say("There is no next segment to merge with."); return; }
    const [one_, two] = [rows()[selected], rows()[selected + 1]];
    put([...rows().slice(0, selected), [one_[0], two[1], one_[2], one_[3]], ...rows().slice(selected + 2)]);
  }

  const remove = () => put(rows().filter((_, index) => index !== selected));
  const relabel = label => { if (label) put(rows().map((row, index) => (index === selected ? [row[0], row[1], label, row[3]] : row))); };

  // Beside another kind of item the segments are there to look at: the one before or after the playhead, the one under it.
  const others = () => [...document.querySelectorAll("#stage .lane.segments .band[data-from]")]
    .map(band => ({ from: Number(band.dataset.from), to: Number(band.dataset.to) })).filter(span => span.to > span.from);

  function visit(by) {
    const frame = page.frame(), all = others();
    const span = by > 0 ? all.find(one => one.from > frame) || all.pop() : all.filter(one => one.to <= frame).pop() || all[0];
    if (!span) return;
    page.stop(span.from);
    if (page.looped()) page.loop(span);
  }

  const toLoop = () => (isOn() ? spans()[selected] : others().find(span => span.from <= page.frame() && page.frame() < span.to)) || null;

  // Drawing

  function mark() {
    if (table) table.querySelectorAll("tr[data-row]").forEach(row => row.toggleAttribute("data-selected", Number(row.dataset.row) === selected));
    document.querySelectorAll("#stage .lane.segments .band[data-index]").forEach(band => {
      band.toggleAttribute("data-selected", Number(band.dataset.index) === selected);
      band.dataset.side = side ? "end" : "start";
    });
    one("#sheet tr[data-selected]")?.scrollIntoView({ block: "nearest" });
  }

  function cell(index, column, words) {
    const place = make("td", { contenteditable: "plaintext-only", role: "textbox", "aria-label": `${words} of segment ${index + 1}` }, rows()[index][column]);
    place.addEventListener("input", () => {
      page.put({ rows: rows().map((row, at) => (at === index ? row.map((old, to) => (to === column ? place.textContent.trim() : old)) : row)) });
      bands();
    });
    place.addEventListener("focus", () => { selected = index; mark(); });
    place.addEventListener("keydown", event => { if (event.key === "Enter") { event.preventDefault(); place.blur(); } });
    return place;
  }

  page.spanTable = () => {
    const head = make("tr", {}, ...["", "start s", "end s", "label", "end effector"].map(words => make("th", { scope: "col" }, words)));
    const body = rows().map((row, index) => {
      const pick = make("button", { type: "button", "aria-label": `go to segment ${index + 1}` }, String(index + 1));
      pick.addEventListener("click", () => select(index));
      const label = page.select(`label-${index + 1}`, `label of segment ${index + 1}`, row[2], window.reviewChoices.labels, value => { selected = index; relabel(value); });
      const line = make("tr", { "data-row": index }, make("td", {}, pick), cell(index, 0, "start"), cell(index, 1, "end"), make("td", {}, label), cell(index, 3, "end effector"));
      page.tickable(line.lastChild.previousSibling, `segment-${index + 1}`);
      return line;
    });
    table = make("table", { class: "spans" }, make("thead", {}, head), make("tbody", {}, ...body));
    const tools = [["n", "add", add], ["x", "split", split], ["m", "merge", merge], ["Del", "delete", remove]].map(([key, words, does]) => {
      const button = make("button", { type: "button" }, `${words} `, make("kbd", {}, key));
      button.addEventListener("click", does);
      return button;
    });
    const place = make("div", { id: "segments" }, make("div", { class: "span-rows", tabindex: "0", role: "group", "aria-label": "segments" }, table),
      make("div", { class: "tools" }, ...tools, make("output", { id: "span-words" })));
    queueMicrotask(() => { bands(); });
    return place;
  };

  function bands() {
    const lane = one("#stage .lane.segments .lane-plot");
    if (!lane || !isOn() || box().dataset.key !== page.sheet().token.key) return false;
    lane.querySelectorAll(".band").forEach(old => old.remove());
    const frames = page.playing().frames;
    spans().forEach((span, index) => {
      if (!span || span.to <= 0 || span.from >= frames || span.to <= span.from) return;
      const from = Math.max(0, span.from), to = Math.min(frames, span.to), label = rows()[index][2];
      const colour = window.reviewChoices.labels.includes(label) ? label : "other";
      const band = make("span", { class: `band ${colour}`, "data-index": index, title: `${label}, ${rows()[index][0]} to ${rows()[index][1]} s` }, label,
        make("i", { class: "edge start", "data-end": 0 }), make("i", { class: "edge end", "data-end": 1 }));
      band.style.left = `${(100 * from) / frames}%`;
      band.style.width = `${(100 * (to - from)) / frames}%`;
      lane.prepend(band);
    });
    mark();
    return true;
  }

  // The stage and the sheet of a new item come one after the other: draw when both are there.
  let drawn = "";
  const wait = () => {
    requestAnimationFrame(wait);
    if (!isOn() || drawn === page.playing().key) return;
    if (bands()) drawn = page.playing().key;
  };
  requestAnimationFrame(wait);
  page.onSheet.push(isNew => { if (isNew) { selected = 0; side = 1; drawn = ""; } });

  document.addEventListener("pointerdown", event => {
    const band = event.target.closest("#stage .lane.segments .band[data-index]");
    if (!band || !isOn()) return;
    select(Number(band.dataset.index), false);
    const edge = event.target.closest(".edge");
    if (!edge) return;
    drag = { index: Number(band.dataset.index), end: Number(edge.dataset.end) };
    side = drag.end;
    event.preventDefault();
  });
  document.addEventListener("pointermove", event => {
    if (!drag) return;
    const frame = moveEdge(drag.index, drag.end, page.frameAt(event));
    if (frame !== null) page.stop(frame - drag.end);
  });
  document.addEventListener("pointerup", () => { drag = null; });

  Object.assign(page, {
    spans: {
      isOn, split, add, merge, remove, nudge,
      label: number => relabel(window.reviewChoices.labels[number - 1]),
      next: by => (isOn() ? select(clamp(selected + by, 0, rows().length - 1)) : visit(by)),
      otherEdge: () => { side = 1 - side; mark(); },
      loop: () => page.loop(page.looped() ? null : toLoop()),
    },
  });
})();
