"use strict";
// Filters: which cases are shown. Everything they need stands in the cases' data attributes and text.
(() => {
  const cases = [...document.querySelectorAll(".case")];
  const evaluator = document.getElementById("evaluator");
  const change = document.getElementById("change");
  const words = document.getElementById("words");
  const count = document.getElementById("count");
  const apply = () => {
    const sought = words.value.toLowerCase();
    let shown = 0;
    for (const one of cases) {
      const changes = JSON.parse(one.dataset.changes);
      const found = evaluator.value ? [changes[evaluator.value] ?? "same"] : Object.values(changes);
      const fits = !change.value || found.includes(change.value);
      one.hidden = !(fits && (!sought || one.textContent.toLowerCase().includes(sought)));
      shown += one.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${cases.length} cases`;
  };
  for (const control of [evaluator, change, words]) control.addEventListener("input", apply);
  apply();
})();
