for (const figure of document.querySelectorAll("figure[data-hover]")) {
  const points = JSON.parse(figure.dataset.hover);
  const svg = figure.querySelector("svg"), cursor = figure.querySelector(".cursor"), tip = figure.querySelector(".tip");
  const names = [...svg.querySelectorAll("g")].map(group => group.dataset.name);
  const hide = () => { cursor.style.visibility = tip.style.visibility = "hidden"; };
  const show = event => {
    const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
    const x = (event.clientX - box.left) / scale;
    const near = points.reduce((best, point) => Math.abs(point.x - x) < Math.abs(best.x - x) ? point : best);
    cursor.setAttribute("x1", near.x);
    cursor.setAttribute("x2", near.x);
    tip.replaceChildren(Object.assign(document.createElement("div"), {textContent: "step " + near.step}));
    for (const [index, , text] of near.values) {
      const value = names.length > 1 ? names[index] + " " + text : text;
      tip.append(Object.assign(document.createElement("div"), {className: "key s" + index % 8, textContent: value}));
    }
    const left = svg.offsetLeft || box.left - figure.getBoundingClientRect().left;
    const at = left + near.x * scale, right = at + 14 + tip.offsetWidth > figure.clientWidth;
    tip.style.left = (right ? at - tip.offsetWidth - 12 : at + 12) + "px";
    tip.style.top = event.clientY - figure.getBoundingClientRect().top - 14 + "px";
    cursor.style.visibility = tip.style.visibility = "visible";
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerleave", hide);
}
