const tip = document.getElementById("tip");
const known = new WeakMap();

// Rows of positions come as stretches: first value, step, how many.
const unfold = stretches => stretches.flatMap(([first, step, many]) => Array.from({length: many}, (_, n) => first + n * step));

function sampleOf(element) {
  const card = element.closest(".sample");
  if (!known.has(card)) {
    const facts = JSON.parse(card.querySelector("script").textContent);
    const places = new Map();
    let token = 0, word = 0;
    for (const part of card.querySelectorAll(".strip > *")) {
      const tokens = Number(part.dataset.tokens || 1);
      places.set(part, {token, tokens, id: part.dataset.tokens ? null : facts.ids[word++]});
      token += tokens;
    }
    known.set(card, {places, positions: facts.positions.map(unfold)});
  }
  return known.get(card);
}

function positions(sample, token, last = token) {
  const told = sample.positions.map(row => {
    const part = row.slice(token, last + 1), low = Math.min(...part), high = Math.max(...part);
    return low === high ? low : `${low} to ${high}`;
  });
  return `position in the sample ${told[0]}\ntime ${told[1]} · height ${told[2]} · width ${told[3]}`;
}

function show(event, title, text) {
  tip.replaceChildren(Object.assign(document.createElement("b"), {textContent: title}), text);
  const {offsetWidth: width, offsetHeight: height} = tip;
  const left = Math.min(event.clientX + 14, innerWidth - width - 8);
  const below = event.clientY + 18 + height < innerHeight;
  tip.style.translate = `${Math.max(8, left)}px ${below ? event.clientY + 18 : event.clientY - height - 14}px`;
  tip.style.visibility = "visible";
}

function hide() {
  tip.style.visibility = "hidden";
  for (const cell of document.querySelectorAll(".cell")) cell.style.visibility = "hidden";
}

function tellToken(event, part) {
  const sample = sampleOf(part), {token, tokens, id} = sample.places.get(part);
  if (id === null) {
    show(event, part.textContent, `tokens ${token} to ${token + tokens - 1}, not supervised\n${positions(sample, token, token + tokens - 1)}`);
    return;
  }
  const text = part.textContent.replaceAll("⏎\n", "\n");
  const label = part.tagName === "B" ? `label ${id}, supervised` : "label −100, not supervised";
  show(event, JSON.stringify(text), `token ${token} · id ${id}\n${label}\n${positions(sample, token)}`);
}

function tellCell(event, svg) {
  const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal, side = Number(svg.dataset.cell);
  const column = Math.floor((event.clientX - box.left) / box.width * view.width / side);
  const row = Math.floor((event.clientY - box.top) / box.height * view.height / side);
  const columns = Number(svg.dataset.columns), token = Number(svg.dataset.start) + row * columns + column;
  if (column < 0 || row < 0 || column >= columns || row * side >= view.height) return;
  hide();
  const cell = svg.querySelector(".cell");
  cell.setAttribute("x", column * side);
  cell.setAttribute("y", row * side);
  cell.style.visibility = "visible";
  show(event, `token ${token}`, `row ${row + 1}, column ${column + 1}\n${positions(sampleOf(svg), token)}`);
}

function tell(event) {
  const target = event.target.closest?.(".strip > *, .shot svg, [data-tip]");
  if (!target) hide();
  else if (target.dataset.tip) show(event, target.dataset.tip, "");
  else if (target.tagName === "svg") tellCell(event, target);
  else tellToken(event, target);
}

document.addEventListener("pointermove", tell);
document.addEventListener("pointerdown", tell);
document.addEventListener("scroll", hide, true);
document.addEventListener("click", event => {
  const button = event.target.closest?.(".strip button");
  if (!button) return;
  const figure = button.closest(".sample").querySelector(`figure[data-medium="${button.dataset.medium}"]`);
  figure.scrollIntoView({behavior: "smooth", block: "nearest"});
  figure.classList.add("flash");
  setTimeout(() => figure.classList.remove("flash"), 1400);
});
