"use strict";
// The gallery's filters. Without this script every card is shown.
const form = document.getElementById("filters");
if (form) {
  const cards = [...document.querySelectorAll("#cards > .card")];
  const words = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
  const show = () => {
    const { group, decision, judge } = form.elements;
    const wanted = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      const fits = (!group.value || card.dataset.group === group.value)
        && (!decision.value || card.dataset.decision === decision.value)
        && (!judge.value || card.dataset.judge === judge.value)
        && wanted.every((word) => words.get(card).includes(word));
      card.hidden = !fits;
      shown += fits;
    }
    document.getElementById("shown").textContent = `${shown} of ${cards.length} paths shown`;
  };
  form.hidden = false;
  // A reader starts with one stage; the first round is where the student's own paths are first judged.
  const first = [...form.elements.group.options].find((option) => option.value === "round 1") || form.elements.group.options[1];
  form.elements.group.value = first ? first.value : "";
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}
