// The log lines of a service on all workers: the newest ones, a search, and how many are written per second. They are
// asked for only while they are shown.

import { element, mark, say } from "./dom.js";
import { rate } from "./format.js";
import { Figure, Series } from "./plot.js";

const SHOWN = 200, COUNTED = 2000; // lines
const PERIOD = 5, INTERVAL = 10, HOUR = 3600; // seconds

export class LogLines {
  /** `page` has `now()`, `happened` and `lines(owner, most, text)`. */
  constructor(owner, page) {
    [this.owner, this.page] = [owner, page];
    [this.open, this.busy, this.last] = [false, false, 0];
    this.figure = new Figure("Lines per second", rate);
    this.button = element("button", { type: "button", "aria-expanded": "false" }, "Show log lines");
    this.search = element("input", { type: "search", maxlength: 200, autocomplete: "off", spellcheck: "false" });
    this.words = element("p", { role: "status" });
    this.list = element("ol", { class: "words" });
    this.box = element("div", { class: "lines", role: "region", tabindex: 0, "aria-label": "Newest log lines" }, this.list);
    this.body = element("div", { hidden: true },
      element("div", { class: "figures" }, this.figure.node),
      element("p", {}, element("label", {}, "Only lines that contain ", this.search)),
      this.words, this.box,
    );
    this.nodes = [element("p", {}, this.button), this.body];
    this.button.addEventListener("click", () => this.turn());
    this.search.addEventListener("input", () => this.look());
  }

  turn() {
    this.open = !this.open;
    this.body.hidden = !this.open;
    mark(this.button, "aria-expanded", String(this.open));
    say(this.button, this.open ? "Hide log lines" : "Show log lines");
    if (this.open) this.look();
  }

  /** Ask again if the last answer is old; to be called every other second. */
  tick() {
    if (this.open && !document.hidden && Date.now() / 1000 - this.last >= PERIOD) this.look();
  }

  async look() {
    if (this.busy) return; // it asks again when the answer is there, if the text has changed
    this.busy = true;
    this.last = Date.now() / 1000;
    const text = this.search.value;
    try {
      const all = await this.page.lines(this.owner, COUNTED, "");
      this.plot(all);
      this.show(text === "" ? all : await this.page.lines(this.owner, SHOWN, text), text);
    } catch (error) {
      say(this.words, `No lines: ${error.message}`);
    } finally {
      this.busy = false;
    }
    if (this.search.value !== text) this.look();
  }

  /** Count lines by their times. Of what is older than the oldest line nothing is known if there are more lines. */
  plot({ now, lines, dropped }) {
    const slots = lines.map((line) => Math.floor(Date.parse(line.time ?? "") / 1000 / INTERVAL)).filter(Number.isFinite);
    const last = Math.floor(now / INTERVAL) - 1; // the one after it has not passed
    const whole = dropped === 0 && lines.length < COUNTED;
    const first = Math.max(last - HOUR / INTERVAL + 1, whole ? -Infinity : Math.min(last, ...slots) + 1);
    const values = new Array(Math.max(0, last - first + 1)).fill(0);
    for (const slot of slots) if (slot >= first && slot <= last) values[slot - first] += 1;
    const rates = values.map((each) => each / INTERVAL);
    this.figure.series = new Series();
    this.figure.series.load(last * INTERVAL, rates);
    say(this.figure.value, rate(rates.at(-1) ?? null));
    this.figure.draw(this.page.happened.marks(this.owner));
  }

  show({ lines, workers }, text) {
    const shown = lines.slice(-SHOWN);
    const missing = workers.flatMap((each) => [each.error, ...each.notes.map((note) => `${each.worker}: ${note.text}`)]);
    const about = shown.length > 0 ? `The newest ${shown.length} lines` : "No lines";
    say(this.words, [`${about}${text === "" ? "" : " that match"}`, ...missing.filter(Boolean)].join("; "));
    const key = shown.map((line) => [line.time, line.worker, line.container, line.text.length].join()).join();
    if (key === this.key) return;
    this.key = key;
    const atEnd = this.box.scrollTop + this.box.clientHeight >= this.box.scrollHeight - 2;
    this.list.replaceChildren(...shown.map(item));
    if (atEnd) this.box.scrollTop = this.box.scrollHeight;
  }
}

function item(line) {
  const time = element("time", {}, (line.time ?? "-").slice(0, 23).replace("T", " "));
  return element("li", {}, time, " ", element("b", {}, `${line.worker}/${line.container}`), " ", line.text);
}
