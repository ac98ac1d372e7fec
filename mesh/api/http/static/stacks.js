// What the engine runs of deployed stacks: a table that is there only where something was deployed.

import { reference } from "./address.js";
import { element, say } from "./dom.js";
import { count } from "./format.js";
import { counted } from "./search.js";

const SHOWN = 500; // the most rows

export class Stacks {
  constructor({ section, body, note }) {
    this.section = section;
    this.body = body;
    this.note = note;
    this.shown = "";
    this.any = false; // whether there are rows
  }

  /** Show an answer of /v1/stacks. What was there stays if nobody knows what runs now. */
  show({ worker, services, error, code }) {
    if (error !== null && error !== undefined) {
      if (this.any) say(this.note, `This is how it was; it is not known now: ${error}${code ? ` [${code}]` : ""}`);
      return;
    }
    const same = JSON.stringify([worker, services]);
    this.any = services.length > 0;
    this.section.hidden = !this.any;
    const more = services.length > SHOWN ? `, of which the first ${SHOWN} are shown` : "";
    say(this.note, `${counted(services.length, "releases")}${more}, as the engine of ${worker} has them.`);
    if (same === this.shown) return;
    this.shown = same;
    const focused = this.body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    this.body.replaceChildren(...services.slice(0, SHOWN).map(line));
    if (focused !== null) [...this.body.querySelectorAll("a")].find((each) => each.getAttribute("href") === focused)?.focus({ preventScroll: true });
  }
}

function line(row) {
  const short = row.desired !== null && row.running < row.desired;
  const unready = row.ready !== null && row.ready < row.running;
  const reasons = [
    ...row.pending.map((reason) => ["bad", reason]),
    ...row.outside.map((change) => ["warn", `changed outside vipmesh: ${change}`]),
  ];
  return element("tr", { role: "row" },
    element("th", { scope: "row", role: "rowheader", class: "data" }, reference("service", row.service, row.service)),
    cell("Release", "data", row.release || "-"),
    cell("Desired", "number", row.desired === null ? "each worker" : count(row.desired)),
    cell("Running", `number ${short ? "warn" : ""}`, count(row.running)),
    cell("Ready", `number ${unready ? "warn" : ""}`, row.ready === null ? "-" : count(row.ready)),
    cell("Where", "data", Object.entries(row.workers).map(([name, number]) => `${name} ${number}`).join(", ") || "-"),
    element("td", { role: "cell", "data-title": "Pending" },
      reasons.length === 0 ? "-" : element("ul", { class: "words" }, reasons.map(([kind, text]) => element("li", { class: kind }, text)))),
  );
}

const cell = (title, kind, text) => element("td", { role: "cell", class: kind, "data-title": title }, text);
