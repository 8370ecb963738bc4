// Draws the charts of charts.py with uPlot. All charts of a page share their steps: the cursor and the zoom of one are
// those of all.
const Charts = (() => {
  const HEIGHT = 230, FEW = 40, COLOURS = 8, STEP_FACTOR = 0.5;
  const drawn = new Map();
  const view = {smoothing: 0, shown: null, first: 0, last: 1, resumed: []};
  const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const element = (tag, values = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), values);
    made.append(...children);
    return made;
  };
  const grouped = value => Math.round(value).toLocaleString("en-US");

  const FORMATS = {
    percent: value => (100 * value).toFixed(1) + " %",
    scientific: value => value.toExponential(1),
    loss: value => value.toFixed(4),
    number: value => Math.abs(value) >= 1000 ? grouped(value) : String(Number(value.toPrecision(4))),
  };
  const axisText = format => (plot, ticks) => {
    const apart = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : 1;
    return ticks.map(value => {
      if (value == null) return "";
      if (format === "percent") return Number((100 * value).toPrecision(3)) + " %";
      if (value && (apart < 1e-3 && Math.abs(value) < 1e-2 || Math.abs(value) >= 1e6))
        return Number(value.toPrecision(3)).toExponential().replace("e+", "e");
      return value.toLocaleString("en-US", {maximumSignificantDigits: 6});
    });
  };

  // The mean of earlier values, weighted less the longer ago they are.
  function smooth(values, weight) {
    let sum = 0, total = 0;
    return values.map(value => {
      if (value == null) return value;
      sum = sum * weight + value * (1 - weight);
      total = total * weight + (1 - weight);
      return sum / total;
    });
  }

  const isSmoothed = line => view.smoothing > 0 && !line.held_out;

  class Drawn {
    constructor(chart) {
      this.hidden = new Set();
      this.caption = element("figcaption");
      this.place = element("div", {className: "plot", tabIndex: 0});
      this.place.setAttribute("role", "application");
      this.figure = element("figure", {className: "card"}, this.caption, this.place);
      this.place.addEventListener("keydown", event => this.key(event));
      new ResizeObserver(() => this.resize()).observe(this.place);
      this.update(chart);
    }

    update(chart) {
      const shape = chart => JSON.stringify([chart.title, chart.lines.map(line => line.name), chart.marks]);
      const isAlike = this.chart && shape(this.chart) === shape(chart);
      const was = this.isLogarithmic;
      this.chart = chart;
      this.logarithmic ??= chart.logarithmic;
      this.canBeLogarithmic = chart.lines.every(line => line.values.every(value => value == null || value > 0));
      if (isAlike && this.isLogarithmic === was) {
        this.plot.setData(this.data(), false);
        this.plot.setScale("x", range());
        this.tell(this.plot);
      } else {
        this.describe();
        this.draw();
      }
    }

    describe() {
      const {title, lines, marks} = this.chart;
      this.values = lines.map(() => element("span", {className: "value"}));
      this.step = element("span", {className: "step"});
      const keys = lines.map((line, index) => {
        const key = element("button", {type: "button", className: `key s${line.number % COLOURS}`}, `${line.name} `, this.values[index]);
        key.setAttribute("aria-pressed", !this.hidden.has(line.name));
        key.title = "hide or show";
        key.addEventListener("click", () => this.toggle(line.name, key));
        return key;
      });
      const note = marks.length ? [element("span", {textContent: `○ ${marks.length} spike${marks.length > 1 ? "s" : ""}`})] : [];
      const log = element("button", {type: "button", className: "log", textContent: "log"});
      log.hidden = !this.canBeLogarithmic;
      log.title = "logarithmic or linear scale";
      log.setAttribute("aria-label", "logarithmic scale");
      log.setAttribute("aria-pressed", this.isLogarithmic);
      log.addEventListener("click", () => {
        this.logarithmic = !this.logarithmic;
        log.setAttribute("aria-pressed", this.isLogarithmic);
        this.draw();
      });
      this.caption.replaceChildren(element("b", {textContent: title}), ...keys, ...note, this.step, log);
      const last = lines.map(line => `${line.name} ${this.text(line.values.findLast(value => value != null))}`);
      this.place.setAttribute("aria-label",
        `${title} by step, last ${last.join(", ")}. Arrow keys move the cursor, plus and minus zoom, Escape shows all.`);
    }

    get isLogarithmic() { return this.logarithmic && this.canBeLogarithmic; }

    text(value) { return value == null ? "" : FORMATS[this.chart.format](value); }

    toggle(name, key) {
      this.hidden.has(name) ? this.hidden.delete(name) : this.hidden.add(name);
      key.setAttribute("aria-pressed", !this.hidden.has(name));
      this.chart.lines.forEach((line, index) => this.show(index, !this.hidden.has(line.name)));
    }

    show(index, shown) {
      this.plot.setSeries(2 * index + 1, {show: shown});
      this.plot.setSeries(2 * index + 2, {show: shown && isSmoothed(this.chart.lines[index])});
    }

    // Two series for each line: the values, and the smoothed values.
    data() {
      return uPlot.join(this.chart.lines.flatMap(line => {
        const [steps, values] = line.means ? [0, 1].map(part => line.means.map(point => point[part])) : [line.steps, line.values];
        return [[line.steps, line.values], [steps, smooth(values, view.smoothing)]];
      }));
    }

    series() {
      const one = {label: "step"};
      return [one, ...this.chart.lines.flatMap(line => {
        const stroke = () => style(`--c${line.number % COLOURS}`);
        const smoothed = isSmoothed(line);
        const points = {show: line.steps.length <= FEW && !smoothed, size: 5, fill: stroke};
        const common = {stroke, show: !this.hidden.has(line.name), spanGaps: false};
        return [
          {...common, label: line.name, width: smoothed ? 1 : 1.8, alpha: smoothed ? 0.3 : 1, points},
          {...common, label: `${line.name}, smoothed`, width: 2, points: {show: false}, show: common.show && smoothed},
        ];
      })];
    }

    draw() {
      this.plot?.destroy();
      const font = "11px system-ui, sans-serif", format = this.chart.format;
      const axis = {stroke: () => style("--soft"), font, ticks: {show: false}};
      const options = {
        width: this.place.clientWidth || 480,
        height: HEIGHT,
        legend: {show: false},
        padding: [10, 16, 0, 0],
        cursor: {
          y: false,
          drag: {x: true, y: false, dist: 5},
          points: {size: 7},
          sync: {key: "steps", filters: {pub: type => type === "mousemove" || type === "mouseleave"}},
          dataIdx: (plot, series, index) => nearest(plot.data[series], index),
        },
        scales: {
          x: {time: false, range: (plot, low, high) => low === high ? [low - 1, high + 1] : [low, high]},
          y: {distr: this.isLogarithmic ? 3 : 1, range: this.isLogarithmic ? undefined : this.range.bind(this)},
        },
        axes: [
          {...axis, grid: {show: false}, size: 26, values: (plot, ticks) => ticks.map(grouped),
            incrs: [1, 2, 5].flatMap(first => [...Array(9).keys()].map(power => first * 10 ** power)).sort((a, b) => a - b)},
          {...axis, grid: {stroke: () => style("--grid"), width: 1}, size: 62, values: axisText(format)},
        ],
        series: this.series(),
        hooks: {
          setCursor: [plot => this.tell(plot)],
          setScale: [(plot, key) => key === "x" && this.zoomed(plot)],
          draw: [plot => this.mark(plot)],
        },
      };
      this.plot = new uPlot(options, this.data(), this.place);
      this.plot.setScale("x", range());
      this.plot.over.addEventListener("dblclick", () => show(null));
      touch(this.plot.over);
      this.tell(this.plot);
    }

    range(plot, low, high) {
      if (low == null) return [0, 1];
      if (this.chart.from_zero) return [0, high * 1.08 || 1];
      const room = (high - low) * 0.08 || Math.abs(high) / 2 || 0.5;
      const share = this.chart.format === "percent" && low >= 0 && high <= 1;
      return [share ? Math.max(0, low - room) : low - room, share ? Math.min(1, high + room) : high + room];
    }

    // The reader has dragged over a stretch: all charts show it.
    zoomed(plot) {
      const {min, max} = plot.scales.x, now = range();
      if (this.plot && (min !== now.min || max !== now.max)) show([min, max]);
    }

    // The values below the cursor, or the last ones.
    tell(plot) {
      const steps = plot.data[0], index = plot.cursor.idx ?? steps.length - 1;
      const mark = this.chart.marks.find(mark => mark.step === steps[index]);
      this.step.textContent = mark ? mark.text : `step ${grouped(steps[index])}`;
      this.chart.lines.forEach((line, number) => {
        const series = plot.data[2 * number + (isSmoothed(line) ? 2 : 1)];
        this.values[number].textContent = this.text(series[nearest(series, index)]);
      });
    }

    mark(plot) {
      const {ctx, bbox} = plot, ratio = devicePixelRatio;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      ctx.strokeStyle = ctx.fillStyle = style("--soft");
      ctx.lineWidth = ratio;
      ctx.font = `${10 * ratio}px system-ui, sans-serif`;
      for (const step of view.resumed) {
        const x = plot.valToPos(step, "x", true);
        ctx.setLineDash([3 * ratio, 3 * ratio]);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        ctx.textAlign = x > bbox.left + bbox.width * 0.8 ? "right" : "left";
        ctx.fillText("resumed", x + (ctx.textAlign === "right" ? -4 : 4) * ratio, bbox.top + 10 * ratio);
      }
      ctx.setLineDash([]);
      ctx.strokeStyle = style("--bad");
      ctx.lineWidth = 2 * ratio;
      for (const mark of this.chart.marks) {
        ctx.beginPath();
        ctx.arc(plot.valToPos(mark.step, "x", true), plot.valToPos(mark.value, "y", true), 6 * ratio, 0, 2 * Math.PI);
        ctx.stroke();
      }
      ctx.restore();
    }

    resize() {
      const width = this.place.clientWidth;
      if (width && width !== this.plot.width) this.plot.setSize({width, height: HEIGHT});
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const moves = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity};
      if (event.key in moves) this.move(moves[event.key]);
      else if (event.key === "+" || event.key === "=") zoom(STEP_FACTOR, this.at());
      else if (event.key === "-") zoom(1 / STEP_FACTOR, this.at());
      else if (event.key === "Escape") show(null);
      else return;
      event.preventDefault();
    }

    at() {
      const step = this.plot.data[0][this.plot.cursor.idx], {min, max} = range();
      return step >= min && step <= max ? step : (min + max) / 2;
    }

    move(by) {
      const steps = this.plot.data[0], {min, max} = range();
      const first = steps.findIndex(step => step >= min), last = steps.findLastIndex(step => step <= max);
      if (first < 0 || last < first) return; // no point is shown
      const from = this.plot.cursor.idx ?? (by > 0 ? first - 1 : last + 1);
      const index = Math.min(Math.max(from + by, first), last);
      const left = this.plot.valToPos(steps[index], "x");
      this.plot.setCursor({left, top: this.plot.over.clientHeight / 2}, true, true);
    }
  }

  function nearest(values, index) {
    for (let away = 0; away < values.length; away++) {
      if (values[index - away] != null) return index - away;
      if (values[index + away] != null) return index + away;
    }
    return index;
  }

  // A finger selects a stretch as a mouse does. Moving up and down still scrolls the page.
  function touch(over) {
    // uPlot ignores events without movement while a stretch is selected.
    const send = (type, {clientX, clientY}, target) => target.dispatchEvent(new MouseEvent(type,
      {clientX, clientY, movementX: 1, button: 0, bubbles: true, cancelable: true, view: window}));
    over.addEventListener("pointerdown", event => {
      if (event.pointerType !== "touch") return;
      send("mousemove", event, over);
      send("mousedown", event, over);
    });
    over.addEventListener("pointermove", event => event.pointerType === "touch" && send("mousemove", event, over));
    for (const type of ["pointerup", "pointercancel"])
      over.addEventListener(type, event => event.pointerType === "touch" && send("mouseup", event, document));
  }

  function range() {
    const [min, max] = view.shown ?? [view.first, view.last];
    return {min, max};
  }

  function zoom(factor, around) {
    const {min, max} = range(), width = Math.max((max - min) * factor, 1);
    const low = Math.max(view.first, around - (around - min) / (max - min) * width);
    const high = Math.min(view.last, low + width);
    show(low <= view.first && high >= view.last ? null : [low, high]);
  }

  function show(shown) {
    view.shown = shown;
    for (const one of drawn.values()) one.plot.setScale("x", range());
    for (const button of document.querySelectorAll(".curves [data-zoom=all]")) button.disabled = shown === null;
  }

  function redraw() {
    for (const one of drawn.values()) one.draw();
  }

  function controls() {
    const slider = document.querySelector(".curves input[type=range]");
    if (!slider || slider.dataset.ready) return;
    slider.dataset.ready = true;
    slider.addEventListener("input", () => {
      view.smoothing = Number(slider.value);
      slider.nextElementSibling.textContent = view.smoothing ? view.smoothing.toFixed(2) : "off";
      redraw();
    });
    for (const button of document.querySelectorAll(".curves [data-zoom]"))
      button.addEventListener("click", () => {
        const {min, max} = range();
        button.dataset.zoom === "all" ? show(null) : zoom(Number(button.dataset.zoom), (min + max) / 2);
      });
  }

  // Draw the charts of a container, or bring those that are drawn up to date.
  function update(container, {charts, resumed}) {
    const steps = charts.flatMap(chart => chart.lines.flatMap(line => [line.steps[0], line.steps.at(-1)]));
    if (!steps.length) steps.push(0);
    view.first = Math.min(...steps);
    view.last = Math.max(...steps);
    view.resumed = resumed;
    controls();
    for (const [metric, one] of drawn) {
      if (charts.some(chart => chart.metric === metric)) continue;
      one.plot.destroy();
      one.figure.remove();
      drawn.delete(metric);
    }
    charts.forEach((chart, index) => {
      const known = drawn.get(chart.metric);
      if (known) {
        if (JSON.stringify(known.chart) !== JSON.stringify(chart)) known.update(chart);
        else known.plot.setScale("x", range());
      } else {
        const made = new Drawn(chart);
        drawn.set(chart.metric, made);
        container.insertBefore(made.figure, container.children[index] ?? null);
        made.resize();
      }
    });
  }

  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", redraw);
  return {update};
})();
