// The workers of the cluster: a table, and the choice of one of them in the filter of the services.

import { reference } from "./address.js";
import { element } from "./dom.js";
import { count } from "./format.js";

export class Workers {
  constructor(body, choice) {
    this.body = body;
    this.choice = choice;
    this.shown = "";
    this.names = [];
    this.registered = []; // names, also of those without endpoints
  }

  show(worker, services) {
    const all = [...this.registered, ...worker.workers.map(({ name }) => name)];
    const found = new Map(all.map((name) => [name, { services: 0, endpoints: 0, serving: 0 }]));
    for (const service of services) {
      const here = new Set();
      for (const endpoint of service.endpoints) {
        let row = found.get(endpoint.worker);
        if (row === undefined) found.set(endpoint.worker, (row = { services: 0, endpoints: 0, serving: 0 }));
        row.endpoints += 1;
        row.serving += endpoint.serving ? 1 : 0;
        if (!here.has(row)) row.services += 1;
        here.add(row);
      }
    }
    const rows = [...found].sort(([one], [other]) => (one < other ? -1 : 1));
    const same = JSON.stringify([worker.worker, rows]);
    if (same === this.shown) return;
    this.shown = same;
    const focused = this.body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    this.body.replaceChildren(...rows.map(([name, row]) => line(name, row, name === worker.worker)));
    if (focused !== null) [...this.body.querySelectorAll("a")].find((each) => each.getAttribute("href") === focused)?.focus({ preventScroll: true });
    this.names = rows.map(([name]) => name);
    this.offer(this.names);
  }

  /** Offer the workers in the filter; the chosen one stays, even if it is gone. */
  offer(names) {
    const chosen = this.choice.value;
    if (chosen !== "" && !names.includes(chosen)) names = [...names, chosen];
    const offered = ["", ...names];
    const now = [...this.choice.options].map((each) => each.value);
    if (now.length === offered.length && now.every((each, index) => each === offered[index])) return;
    this.choice.replaceChildren(...offered.map((name) => element("option", { value: name }, name === "" ? "all" : name)));
    this.choice.value = chosen;
  }

  choose(name) {
    if (![...this.choice.options].some((each) => each.value === name)) this.choice.append(element("option", { value: name }, name));
    this.choice.value = name;
  }
}

const line = (name, row, own) =>
  element("tr", { role: "row" },
    element("th", { scope: "row", role: "rowheader", class: "data" }, reference("worker", name, name), own ? element("span", { class: "quiet" }, " (this one)") : null),
    element("td", { role: "cell", class: "number", "data-title": "Services" }, count(row.services)),
    element("td", { role: "cell", class: "number", "data-title": "Endpoints" }, count(row.endpoints)),
    element("td", { role: "cell", class: `number ${row.serving < row.endpoints ? "warn" : ""}`, "data-title": "Serving" }, count(row.serving)),
  );
