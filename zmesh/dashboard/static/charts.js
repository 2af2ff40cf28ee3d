// Time lines (uPlot): what the mesh, or one node, did per second.

import { h } from "./dom.js";
import { bytes, milliseconds, rate } from "./format.js";
import { colour, onTheme } from "./theme.js";

const HEIGHT = 104, SHORTEST = 10, TIME = 0, REQUESTS = 1, IN = 2, OUT = 3, ERRORS = 4, LAG = 5;
const CHARTS = [
  { title: "Requests", columns: [REQUESTS], inks: ["in"], text: values => `${rate(values[0])}/s`, axis: rate },
  { title: "Bytes in and out", columns: [IN, OUT], inks: ["in", "out"], text: values => values.map(value => `${bytes(value)}/s`).join("  "), axis: bytes },
  { title: "Errors", columns: [ERRORS], inks: ["down"], text: values => `${rate(values[0])}/s`, axis: rate },
  { title: "Loop lag, at worst", columns: [LAG], inks: ["slow"], text: values => milliseconds(values[0]), axis: value => milliseconds(value) },
];

// Where the time axis begins and ends, in seconds since 1970: SHORTEST apart at least, since uPlot gives one sample years.
export function span(first, last) {
  const end = last ?? Date.now() / 1000;
  return [Math.min(first ?? end, end - SHORTEST), end];
}

export class Charts {
  constructor(box, name) {
    this.box = box;
    this.name = name;
    this.lines = [];
    this.drawn = null;
    this.charts = [];
    onTheme(() => this.#build());
    new ResizeObserver(() => this.#resize()).observe(box);
  }

  set(lines) {
    this.lines = lines;
    if (this.box.offsetParent === null || lines === this.drawn) return;
    if (!this.charts.length) this.#build();
    else for (const { chart, kind } of this.charts) chart.setData(this.#data(kind));
    this.drawn = lines;
    this.#values(null);
  }

  #data(kind) {
    return [this.lines.map(line => line[TIME]), ...kind.columns.map(column => this.lines.map(line => line[column]))];
  }

  #width() {
    return Math.max(120, Math.floor((this.box.clientWidth - 30) / Math.min(4, CHARTS.length)) - 22);
  }

  #resize() {
    const panel = this.charts[0]?.label.closest(".chart");
    if (panel) for (const { chart } of this.charts) chart.setSize({ width: panel.clientWidth - 20, height: HEIGHT });
  }

  #values(index) {
    const line = this.lines.at(index ?? -1);
    for (const { label, kind } of this.charts) label.textContent = line ? kind.text(kind.columns.map(column => line[column])) : "";
  }

  #build() {
    if (this.box.offsetParent === null) { this.charts = []; return; }
    for (const { chart } of this.charts) chart.destroy();
    this.box.replaceChildren();
    const grid = { stroke: colour("line"), width: 1 }, font = "11px system-ui, sans-serif";
    this.charts = CHARTS.map(kind => {
      const label = h("b", {}), panel = h("div", { class: "panel chart" }, h("h3", {}, kind.title, label));
      this.box.append(panel);
      const chart = new uPlot({
        width: this.#width(), height: HEIGHT,
        cursor: { sync: { key: this.name }, points: { size: 6 }, drag: { x: false, y: false } },
        legend: { show: false },
        scales: { x: { range: () => span(this.lines[0]?.[TIME], this.lines.at(-1)?.[TIME]) }, y: { range: (plot, least, most) => [0, Math.max(most * 1.15, kind.columns[0] === LAG ? 0.005 : 1)] } },
        axes: [
          { stroke: colour("soft"), font, grid: { show: false }, ticks: { show: false }, size: 20, space: 70 },
          { stroke: colour("soft"), font, grid, ticks: { show: false }, size: 52, space: 26, values: (plot, splits) => splits.map(kind.axis) },
        ],
        series: [{}, ...kind.inks.map((ink, index) => ({ stroke: colour(ink), width: 1.6, fill: index ? undefined : fade(colour(ink)), points: { show: plot => plot.data[TIME].length === 1 }, spanGaps: true }))],
        hooks: { setCursor: [plot => this.#values(plot.cursor.idx)] },
      }, this.#data(kind), panel);
      return { chart, kind, label };
    });
    this.#values(null);
    this.#resize();
  }
}

const fade = ink => { const { r, g, b } = d3.rgb(ink); return `rgba(${r}, ${g}, ${b}, 0.12)`; };
