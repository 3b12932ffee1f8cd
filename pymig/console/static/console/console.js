"use strict";
// Does not take from under a hand what it points at, and says when the console is gone.
(function () {
  let isDown = false;
  for (const [name, down] of [["pointerdown", true], ["pointerup", false], ["pointercancel", false]]) {
    addEventListener(name, () => { isDown = down; });
  }
  const gone = document.getElementById("gone");
  const live = document.getElementById("live");
  function isSelecting() {
    const selection = getSelection();
    return live && !selection.isCollapsed && live.contains(selection.anchorNode);
  }
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    if (isDown || isSelecting()) event.detail.shouldSwap = false;
  });
  document.body.addEventListener("htmx:sendError", () => { gone.hidden = false; });
  document.body.addEventListener("htmx:timeout", () => { gone.hidden = false; });
  document.body.addEventListener("htmx:beforeOnLoad", () => { gone.hidden = true; });
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
  });
})();
