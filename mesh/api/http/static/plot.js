// A figure: its title, its current value, and its values of the last hour as a line, with events as marks.

import { drawn, element, mark, say } from "./dom.js";

const SAMPLES = 360, INTERVAL = 10, HEIGHT = 40; // an hour; seconds

/** Values of the last hour, one for each interval of the worker's clock; null where none is known. */
export class Series {
  constructor() {
    this.values = new Array(SAMPLES).fill(null);
    this.last = null; // the interval of the last value
  }

  /** Take over the values of /v1/history; those that are known already stay. */
  load(at, values) {
    const slot = Math.floor(at / INTERVAL), known = this.values, last = this.last;
    this.values = new Array(SAMPLES).fill(null);
    this.last = Math.max(slot, last ?? slot);
    const set = (index, value) => {
      if (index >= 0 && index < SAMPLES && value !== null) this.values[index] = value;
    };
    values.forEach((value, index) => set(SAMPLES - 1 - (this.last - slot) - (values.length - 1 - index), value));
    if (last !== null) known.forEach((value, index) => set(index - (this.last - last), value));
  }

  push(at, value) {
    const slot = Math.floor(at / INTERVAL);
    this.advance(slot);
    if (slot === this.last) this.values[SAMPLES - 1] = value;
  }

  /** Move on to an interval; those that have passed have no values. */
  advance(slot) {
    const steps = this.last === null ? 0 : Math.min(SAMPLES, slot - this.last);
    if (this.last === null || steps > 0) this.last = slot;
    if (steps > 0) this.values = [...this.values.slice(steps), ...new Array(steps).fill(null)];
  }

  /** Return the place of a time on the line, from 0 to SAMPLES - 1; null if it is not on it. */
  place(at) {
    const index = SAMPLES - 1 - ((this.last ?? 0) - Math.floor(at / INTERVAL));
    return this.last !== null && index >= 0 && index < SAMPLES ? index : null;
  }
}

export class Figure {
  /** `format` turns a number into text; null stands for an unknown value. */
  constructor(title, format) {
    this.format = format;
    this.series = new Series();
    this.value = element("span", { class: "value data" }, "-");
    this.range = element("span", { class: "range" });
    this.line = drawn("path", { class: "plot-line" });
    this.area = drawn("path", { class: "plot-area" });
    this.marks = Object.fromEntries(["good", "warn", "bad"].map((kind) => [kind, drawn("path", { class: `plot-mark ${kind}` })]));
    const box = { viewBox: `0 0 ${SAMPLES - 1} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" };
    const plot = drawn("svg", box, this.area, this.line, ...Object.values(this.marks));
    this.node = element("figure", { class: "figure" }, element("figcaption", {}, title), this.value, plot, this.range);
  }

  /** Show a value of now, and the marks of `events` as [time, kind]. */
  show(at, value, events) {
    say(this.value, this.format(value));
    this.series.push(at, value);
    this.draw(events);
  }

  draw(events) {
    const { values } = this.series;
    const known = values.filter((each) => each !== null);
    const top = known.reduce((one, other) => Math.max(one, other), 0);
    const least = known.reduce((one, other) => Math.min(one, other), Infinity);
    say(this.range, known.length > 1 ? `${this.format(least)} to ${this.format(top)} in ${span(values)}` : "");
    const runs = pieces(values, top);
    mark(this.line, "d", runs.map((run) => `M${run.join("L")}${run.length === 1 ? "h.1" : ""}`).join(""));
    mark(this.area, "d", runs.map((run) => `M${run[0].split(",")[0]},${HEIGHT}L${run.join("L")}L${run.at(-1).split(",")[0]},${HEIGHT}Z`).join(""));
    for (const [kind, path] of Object.entries(this.marks)) {
      const places = new Set(events.filter((each) => each[1] === kind).map(([at]) => this.series.place(at)));
      places.delete(null);
      mark(path, "d", [...places].map((x) => `M${x},0V${HEIGHT}`).join(""));
    }
  }
}

/** Return the runs of known values as lists of points. */
function pieces(values, top) {
  const runs = [];
  let run = null;
  values.forEach((value, index) => {
    if (value === null) return (run = null);
    if (run === null) runs.push((run = []));
    run.push(`${index},${(HEIGHT - 1 - (top > 0 ? (value / top) * (HEIGHT - 3) : 0)).toFixed(1)}`);
  });
  return runs;
}

/** Return in words since when there are values. */
function span(values) {
  const seconds = (SAMPLES - values.findIndex((each) => each !== null)) * INTERVAL;
  if (seconds < 60) return `${seconds} s`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : "1 h";
}
