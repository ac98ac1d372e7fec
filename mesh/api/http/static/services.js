// The table of services. Rows are updated in place, so that updates lose neither the focus nor the scroll position. Of
// thousands of services, the page holds only as many rows as the reader has asked for.

import { arrange, element, mark, say } from "./dom.js";
import { condition, count, rank, rate } from "./format.js";
import { Details } from "./details.js";

const FIRST = 25, STEP = 100;
const COLLATOR = new Intl.Collator("en", { numeric: true });
const byName = (one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : one.owner < other.owner ? -1 : 1);
const ORDERS = {
  name: () => byName,
  vip: () => (one, other) => COLLATOR.compare(one.vip ?? "", other.vip ?? "") || byName(one, other),
  trouble: () => (one, other) => rank(one) - rank(other) || byName(one, other),
  connections: (traffic) => busiest(traffic, "connections"),
  opened: (traffic) => busiest(traffic, "opened"),
};

function busiest(traffic, name) {
  const of = (service) => traffic.get(service.owner)?.[name] ?? 0;
  return (one, other) => of(other) - of(one) || byName(one, other);
}

/** Return services in an order: [name of a column, whether it is turned round]. */
export function sorted(services, [column, turned], traffic) {
  const order = ORDERS[column](traffic);
  return services.sort(turned ? (one, other) => order(other, one) : order);
}

export class Services {
  /** `page` is what `Details` needs. */
  constructor(table, more, page) {
    [this.table, this.more, this.page] = [table, more, page];
    this.most = FIRST;
    this.rows = new Map(); // owner -> Row
    this.open = new Set(); // owners
  }

  showMore() {
    this.most += STEP;
  }

  /** Show these services, which are sorted; returns how many of them are on the page. */
  show(services) {
    const wanted = services.slice(0, this.most);
    const rows = new Map();
    for (const service of wanted) {
      const row = this.rows.get(service.owner) ?? new Row(service.owner, this.open, this.page);
      row.show(service);
      rows.set(service.owner, row);
    }
    this.rows = rows;
    arrange(this.table, [...rows.values()].map((row) => row.body), 1);
    this.more.hidden = services.length <= this.most;
    return wanted.length;
  }

  /** Show the traffic of each service, by owner. */
  flow(traffic, counted) {
    for (const [owner, row] of this.rows) row.flow(traffic.get(owner), counted);
  }

  /** Show new events in the open rows. */
  happened() {
    for (const row of this.rows.values()) if (!row.details.hidden) row.inside.happened();
  }

  /** Draw the open rows again, for another width of the window. */
  redraw() {
    for (const row of this.rows.values()) row.tell();
  }

  /** Open the row of a service and give it the focus, if there is one. */
  focus(owner) {
    const row = this.rows.get(owner);
    if (row === undefined) return;
    row.turn(true);
    row.name.focus({ preventScroll: true });
    row.body.scrollIntoView({ block: "nearest" });
  }

  /** Close the open row that has the focus inside of its details; returns whether there was one. */
  leave() {
    const row = [...this.rows.values()].find((each) => each.details.contains(document.activeElement));
    if (row === undefined) return false;
    row.turn(false);
    row.name.focus();
    return true;
  }
}

class Row {
  constructor(owner, open, page) {
    [this.owner, this.opened, this.page] = [owner, open, page];
    const id = `details-${(Row.number = (Row.number ?? 0) + 1)}`;
    this.name = element("button", { type: "button", "aria-expanded": "false", "aria-controls": id });
    this.name.addEventListener("click", () => this.turn(this.details.hidden));
    const cell = (title, kind, words) => element("td", { role: "cell", class: kind, "data-title": title }, words);
    [this.vip, this.serving] = [cell("VIP", "data", ""), cell("Serving endpoints", null, "")];
    [this.connections, this.rate] = [cell("Connections", "number", "0"), cell("New/s", "number", "-")];
    const head = element("th", { scope: "row", role: "rowheader" }, this.name);
    const line = element("tr", { role: "row", class: "service" }, head, this.vip, this.serving, this.connections, this.rate);
    this.place = element("td", { colspan: 5, role: "cell" });
    this.details = element("tr", { class: "details", role: "row", id, hidden: true }, this.place);
    this.body = element("tbody", { role: "rowgroup" }, line, this.details);
    this.inside = null;
  }

  show(service) {
    if (service === this.service) return;
    this.service = service;
    say(this.name, service.name);
    say(this.vip, service.vip ?? "none");
    const [words, kind] = condition(service);
    say(this.serving, words);
    mark(this.serving, "class", kind);
    if (this.opened.has(this.owner) && this.details.hidden) this.turn(true);
    else this.tell();
  }

  flow(traffic, counted) {
    [this.traffic, this.counted] = [traffic, counted];
    say(this.connections, count(traffic?.connections ?? 0));
    say(this.rate, counted ? rate(traffic?.opened ?? 0) : "-");
    if (!this.details.hidden) this.inside.flow(traffic, counted);
  }

  turn(open) {
    this.details.hidden = !open;
    mark(this.name, "aria-expanded", String(open));
    if (!open) return this.opened.delete(this.owner);
    this.opened.add(this.owner);
    if (this.inside === null) {
      this.inside = new Details(this.owner, this.page);
      this.place.append(...this.inside.nodes);
    }
    this.tell();
    if (this.counted !== undefined) this.inside.flow(this.traffic, this.counted);
  }

  tell() {
    if (!this.details.hidden) this.inside.show(this.service);
  }
}
