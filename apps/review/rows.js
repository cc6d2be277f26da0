// The queue between two times that it is sent whole: the row of the item that was decided is replaced, and the one that is
// shown is marked.
(() => {
  "use strict";
  const page = window.reviewPage, { one } = page;
  const row = id => one(`#queue [data-item="${CSS.escape(id)}"]`);

  function mark() {
    const { token } = page.sheet(), shown = token && row(token.item_id);
    document.querySelectorAll("#queue [aria-current]").forEach(other => { if (other !== shown) other.removeAttribute("aria-current"); });
    if (shown) shown.setAttribute("aria-current", "true");
  }

  // Gradio calls this once. The rows come from the server as the queue does, with every word escaped.
  page.connectRows = (props, watch) => watch("value", () => {
    const holder = document.createElement("template");
    holder.innerHTML = props.value;
    for (const fresh of [...holder.content.children]) {
      const old = row(fresh.dataset.item);
      if (old && fresh.matches("button")) old.replaceWith(fresh);
      else if (old) old.remove(); // it is in no list any more
    }
    mark();
  });
  page.onSheet.push(isNew => { if (isNew) mark(); });
})();
