// What is shown of one service when its row is open: the request path, its traffic, its endpoints and its events.

import { LONGEST, reference } from "./address.js";
import { arrange, element, say } from "./dom.js";
import { count, octets, place, rate, state } from "./format.js";
import { item, keyOf } from "./happened.js";
import { LogLines } from "./lines.js";
import { Figure } from "./plot.js";
import { way } from "./way.js";

const MOST = 100, EVENTS = 10;
const NUMBERS = new Set(["Weight", "Connections"]); // titles
const TITLES = ["Endpoint", "Worker", "Address", "State", "Weight", "Release", "Last probe", "Connections"];

export class Details {
  /** `page` has `own`, the name of the worker, `now()`, `happened`, `history(owner)` and `lines(owner, most, text)`. */
  constructor(owner, page) {
    [this.owner, this.page] = [owner, page];
    this.figures = {
      connections: new Figure("Connections", count),
      opened: new Figure("New per second", rate),
      bytes_in: new Figure("From clients", octets),
      bytes_out: new Figure("To clients", octets),
    };
    this.about = element("dl");
    this.path = element("div");
    this.ends = element("div");
    this.past = element("ol", { class: "words" });
    this.lines = new LogLines(owner, page);
    this.counts = new Map(); // WORKER/ID -> cell
    this.nodes = [
      this.about,
      element("p", {}, reference("service", owner, "Address of this service")),
      element("h3", {}, "Request path"), this.path,
      element("h3", {}, "Traffic through this worker"),
      element("div", { class: "figures" }, Object.values(this.figures).map((figure) => figure.node)),
      element("h3", {}, "Endpoints"), this.ends,
      element("h3", {}, "Events"), this.past,
      element("h3", {}, "Log lines"), ...this.lines.nodes,
    ];
    this.load();
  }

  async load() {
    if (this.owner.length > LONGEST) return; // the worker answers no such question
    try {
      const found = await this.page.history(this.owner);
      for (const [name, figure] of Object.entries(this.figures)) {
        figure.series.load(found.at, found[name]);
        figure.draw(this.page.happened.marks(this.owner));
      }
    } catch {
      // the worker has none, or the connection is lost; then the plots begin now
    }
  }

  show(service) {
    this.about.replaceChildren(
      ...pair("declared by", service.owner),
      ...pair("names", service.names.join(", ") || service.name),
      ...pair("virtual servers", service.virtual_servers.join(", ") || "none"),
      ...releasesOf(service),
      ...pair("published ports", (service.published ?? []).join(", ") || "none"),
    );
    this.path.replaceChildren(way(service, this.page.own));
    this.ends.replaceChildren(...this.endpoints(service));
    this.happened();
  }

  flow(traffic, counted) {
    this.traffic = traffic;
    this.lines.tick();
    for (const [key, cell] of this.counts) say(cell, count(traffic?.endpoints[key] ?? 0));
    const marks = this.page.happened.marks(this.owner);
    for (const [name, figure] of Object.entries(this.figures)) {
      const none = name === "connections" || counted ? 0 : null;
      figure.show(this.page.now(), traffic?.[name] ?? none, marks);
    }
  }

  happened() {
    const found = this.page.happened.of(this.owner, EVENTS);
    const shown = found.map(keyOf).join();
    if (shown === this.shown) return;
    this.shown = shown;
    arrange(this.past, found.length > 0 ? found.map((each) => item(each, false)) : [element("li", {}, "None is known")]);
  }

  endpoints(service) {
    this.counts.clear();
    if (service.endpoints.length === 0) return [element("p", {}, "None")];
    const head = TITLES.map((title) => element("th", { scope: "col", role: "columnheader", class: NUMBERS.has(title) ? "number" : null }, title));
    const wrongFirst = [...service.endpoints].sort((one, other) => Number(one.serving) - Number(other.serving));
    const rows = wrongFirst.slice(0, MOST).map((endpoint) => this.row(endpoint));
    const table = element("table", { role: "table", "aria-label": "Endpoints" },
      element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...head)), element("tbody", { role: "rowgroup" }, ...rows));
    const more = service.endpoints.length - MOST;
    return more > 0 ? [table, element("p", {}, `and ${more} more, which \`vipmesh status\` lists`)] : [table];
  }

  row(endpoint) {
    const [word, kind] = state(endpoint);
    const key = `${endpoint.worker}/${endpoint.id}`;
    const connections = cell("Connections", count(this.traffic?.endpoints[key] ?? 0));
    this.counts.set(key, connections);
    return element("tr", { role: "row" },
      element("th", { scope: "row", role: "rowheader", class: "data" }, endpoint.name ?? endpoint.id),
      cell("Worker", endpoint.worker), cell("Address", place(endpoint)), cell("State", word, kind),
      cell("Weight", endpoint.weight), cell("Release", endpoint.release ?? "-"), cell("Last probe", endpoint.last_probe ?? "-"), connections,
    );
  }
}

const cell = (title, words, kind = null) =>
  element("td", { role: "cell", "data-title": title, class: NUMBERS.has(title) ? "number" : kind }, words);

const pair = (term, words) => [element("dt", {}, term), element("dd", {}, words)];

/** Return the releases of a service with their parts of new connections; nothing if no endpoint names one. */
function releasesOf(service) {
  const rows = service.releases ?? [];
  if (rows.length === 0) return [];
  const parts = rows.map((each) => `${each.release ?? "(none)"} ${each.share} % on ${each.serving} of ${each.endpoints}`);
  const by = service.shares_by ? `; shares given by ${service.shares_by}` : "";
  return pair("releases", parts.join(", ") + by);
}
