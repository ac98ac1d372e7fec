// A figure: its title, its current value, and its values of the last five minutes as a line.

import { drawn, element, say } from "./dom.js";

const SAMPLES = 150, HEIGHT = 40; // five minutes at two seconds

export class Figure {
  /** `format` turns a number into text; null stands for an unknown value. */
  constructor(title, format) {
    this.format = format;
    this.values = [];
    this.value = element("span", { class: "value data" }, "-");
    this.range = element("span", { class: "range" });
    this.line = drawn("path", { class: "plot-line" });
    this.area = drawn("path", { class: "plot-area" });
    const box = `0 0 ${SAMPLES - 1} ${HEIGHT}`;
    const plot = drawn("svg", { viewBox: box, preserveAspectRatio: "none", "aria-hidden": "true" }, this.area, this.line);
    this.node = element("figure", { class: "figure" }, element("figcaption", {}, title), this.value, plot, this.range);
  }

  push(value) {
    say(this.value, this.format(value));
    this.values = [...this.values, value].slice(-SAMPLES);
    const known = this.values.filter((each) => each !== null);
    if (known.length < 2) return;
    const top = Math.max(...known), least = Math.min(...known);
    say(this.range, `${this.format(least)} to ${this.format(top)} in ${minutes(this.values.length * 2)}`);
    const start = SAMPLES - this.values.length;
    const points = this.values
      .map((each, index) => (each === null ? null : [start + index, y(each, top)]))
      .filter((point) => point !== null);
    const path = points.map(([x, at]) => `${x},${at.toFixed(1)}`).join("L");
    this.line.setAttribute("d", `M${path}`);
    this.area.setAttribute("d", `M${points[0][0]},${HEIGHT}L${path}L${points.at(-1)[0]},${HEIGHT}Z`);
  }
}

const y = (value, top) => HEIGHT - 1 - (top > 0 ? (value / top) * (HEIGHT - 3) : 0);

const minutes = (seconds) => (seconds < 60 ? `${seconds} s` : `${Math.round(seconds / 60)} min`);
