// Filters and sorts the cards of a gallery of answers, and enlarges their pictures.
const Gallery = (() => {
  const chosen = {kind: "all", source: "", metric: "", order: "", text: ""};
  const kinds = {
    all: () => true,
    wrong: card => card.dataset.right === "false",
    right: card => card.dataset.right === "true",
    changed: card => card.dataset.changed === "true",
  };

  // The newest score of a card: that after training if there is one.
  function score(card) {
    const [before, after] = JSON.parse(card.dataset.scores)[chosen.metric] ?? [null, null];
    return after ?? before;
  }

  function fits(card) {
    if (!kinds[chosen.kind](card)) return false;
    if (chosen.source && card.dataset.source !== chosen.source) return false;
    if (chosen.metric && score(card) == null) return false;
    return card.textContent.toLowerCase().includes(chosen.text.toLowerCase());
  }

  function apply(gallery) {
    const list = gallery.querySelector(".predictions");
    const cards = [...list.children];
    cards.forEach((card, index) => card.dataset.place ??= index);
    const sorted = chosen.metric && chosen.order;
    cards.sort((one, other) => (sorted ? Number(chosen.order) * (score(one) - score(other)) : 0)
      || one.dataset.place - other.dataset.place);
    cards.forEach(card => card.hidden = !fits(card));
    list.append(...cards);
    const output = gallery.querySelector("output");
    if (output) output.textContent = `${cards.filter(card => !card.hidden).length} shown`;
    for (const button of gallery.querySelectorAll("[data-kind]"))
      button.setAttribute("aria-pressed", button.dataset.kind === chosen.kind);
  }

  // Bring the controls of a gallery to the reader's choice, also after the page has changed below them.
  function prepare(gallery) {
    for (const button of gallery.querySelectorAll("[data-kind]"))
      button.addEventListener("click", () => { chosen.kind = button.dataset.kind; apply(gallery); });
    if (!gallery.querySelector(`[data-kind="${chosen.kind}"]`)) chosen.kind = "all";
    for (const control of gallery.querySelectorAll("[data-filter]")) {
      const name = control.dataset.filter;
      control.value = chosen[name];
      if (control.value !== chosen[name]) chosen[name] = control.value = "";
      control.addEventListener("input", () => {
        chosen[name] = control.value;
        const metric = gallery.querySelector("[data-filter=metric]");
        if (name === "order" && chosen.order && !chosen.metric) chosen.metric = metric.value = metric.options[1].value;
        if (name === "metric" && !chosen.metric)
          chosen.order = gallery.querySelector("[data-filter=order]").value = "";
        apply(gallery);
      });
    }
    for (const button of gallery.querySelectorAll(".enlarge")) button.addEventListener("click", () => enlarge(button));
    apply(gallery);
  }

  const dialog = document.querySelector("dialog.picture");
  let open = null, place = 0; // the button of the picture that is enlarged, and its number

  function enlarge(button) {
    open = button;
    place = pictures().indexOf(button);
    const picture = button.firstElementChild.cloneNode(true), card = button.closest("article");
    dialog.querySelector(".large").replaceChildren(picture);
    dialog.querySelector(".origin").textContent = card.querySelector(".answers > .origin").textContent;
    if (!dialog.open) dialog.showModal();
  }

  const pictures = () => [...document.querySelectorAll("article:not([hidden]) .enlarge")];

  function move(by) {
    const all = pictures(), next = all[(open.isConnected ? all.indexOf(open) : place) + by];
    if (next) enlarge(next);
  }

  for (const button of dialog.querySelectorAll("[data-move]"))
    button.addEventListener("click", () => move(Number(button.dataset.move)));
  dialog.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") move(-1);
    if (event.key === "ArrowRight") move(1);
  });
  dialog.addEventListener("click", event => event.target === dialog && dialog.close());

  const update = () => document.querySelectorAll(".gallery").forEach(prepare);
  update();
  return {update};
})();
