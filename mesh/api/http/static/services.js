// The table of services. Rows are updated in place, so that updates lose neither the focus nor the scroll position. Of
// thousands of services, the page holds only as many rows as the reader has asked for.

import { element, mark, say } from "./dom.js";
import { condition, count, place, rate, state } from "./format.js";
import { way } from "./way.js";

const STEP = 100;
const NUMBERS = new Set(["Weight", "Connections"]); // titles

export class Services {
  constructor(table, more) {
    this.table = table;
    this.more = more;
    this.most = STEP;
    this.rows = new Map(); // owner -> Row
    this.open = new Set(); // owners
    more.addEventListener("click", () => {
      this.most += STEP;
      this.show(this.last);
    });
  }

  /** Show these services, which are sorted; returns how many of them are on the page. */
  show(services) {
    this.last = services;
    const wanted = services.slice(0, this.most);
    const owners = new Set(wanted.map((service) => service.owner));
    for (const [owner, row] of this.rows) {
      if (!owners.has(owner)) {
        row.body.remove();
        this.rows.delete(owner);
      }
    }
    let next = this.table.tBodies[0] ?? null;
    for (const service of wanted) {
      let row = this.rows.get(service.owner);
      if (row === undefined) {
        row = new Row(service.owner, this.open);
        this.rows.set(service.owner, row);
      }
      row.show(service);
      if (row.body === next) next = next.nextElementSibling;
      else this.table.insertBefore(row.body, next);
    }
    this.more.hidden = services.length <= this.most;
    return wanted.length;
  }

  /** Show the traffic of each service, by owner. */
  flow(traffic, counted) {
    for (const [owner, row] of this.rows) row.flow(traffic.get(owner), counted);
  }
}

class Row {
  constructor(owner, open) {
    this.owner = owner;
    this.opened = open;
    const id = `details-${(Row.number = (Row.number ?? 0) + 1)}`;
    this.name = element("button", { type: "button", "aria-expanded": String(open.has(owner)), "aria-controls": id });
    this.name.addEventListener("click", () => this.toggle());
    [this.vip, this.serving] = [element("td", { class: "data" }), element("td")];
    [this.connections, this.rate] = [element("td", { class: "number" }, "0"), element("td", { class: "number" }, "-")];
    const line = element("tr", {}, element("th", { scope: "row" }, this.name), this.vip, this.serving, this.connections, this.rate);
    this.inside = element("td", { colspan: 5 });
    this.details = element("tr", { class: "details", id, hidden: !open.has(owner) }, this.inside);
    this.body = element("tbody", {}, line, this.details);
    this.counts = new Map(); // WORKER/ID -> cell
  }

  show(service) {
    if (service === this.service) return;
    this.service = service;
    say(this.name, service.name);
    say(this.vip, service.vip ?? "none");
    const [words, kind] = condition(service);
    say(this.serving, words);
    mark(this.serving, "class", kind);
    if (!this.details.hidden) this.tell();
  }

  flow(traffic, counted) {
    this.traffic = traffic;
    say(this.connections, count(traffic?.connections ?? 0));
    say(this.rate, counted ? rate(traffic?.opened ?? 0) : "-");
    for (const [key, cell] of this.counts) say(cell, count(traffic?.endpoints[key] ?? 0));
  }

  toggle() {
    const open = this.details.hidden;
    this.details.hidden = !open;
    this.name.setAttribute("aria-expanded", String(open));
    if (open) this.opened.add(this.owner);
    else this.opened.delete(this.owner);
    if (open) this.tell();
  }

  tell() {
    const service = this.service;
    this.counts.clear();
    this.inside.replaceChildren(
      element("dl", {},
        ...pair("declared by", service.owner),
        ...pair("names", service.names.join(", ") || service.name),
        ...pair("virtual servers", service.virtual_servers.join(", ") || "none"),
      ),
      element("h3", {}, "Request path"),
      way(service),
      element("h3", {}, "Endpoints"),
      service.endpoints.length > 0 ? this.endpoints(service) : element("p", {}, "None"),
    );
  }

  endpoints(service) {
    const titles = ["Endpoint", "Worker", "Address", "State", "Weight", "Release", "Last probe", "Connections"];
    const head = element("tr", {}, ...titles.map((title) => element("th", { scope: "col", class: NUMBERS.has(title) ? "number" : null }, title)));
    const rows = service.endpoints.map((endpoint) => {
      const [word, kind] = state(endpoint);
      const key = `${endpoint.worker}/${endpoint.id}`;
      const cell = element("td", { class: "number" }, count(this.traffic?.endpoints[key] ?? 0));
      this.counts.set(key, cell);
      return element("tr", {},
        element("th", { scope: "row", class: "data" }, endpoint.name ?? endpoint.id),
        element("td", {}, endpoint.worker), element("td", {}, place(endpoint)), element("td", { class: kind }, word),
        element("td", { class: "number" }, endpoint.weight), element("td", {}, endpoint.release ?? "-"),
        element("td", {}, endpoint.last_probe ?? "-"), cell,
      );
    });
    return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  }
}

const pair = (term, words) => [element("dt", {}, term), element("dd", {}, words)];
