// The page: events of the worker update `known`, which is shown at most once per frame.

import { element, mark, plain, say } from "./dom.js";
import { count, octets, rate } from "./format.js";
import { Figure } from "./plot.js";
import { Services } from "./services.js";
import { follow, keepToken, setToken } from "./stream.js";

const WORDS = 200; // the most problems on the page

const at = (id) => document.getElementById(id);
const known = { worker: null, services: new Map(), traffic: new Map(), counted: false, ready: false };
let fresh = null; // the services of a connection until it has sent the complete state
let due = false;

const services = new Services(at("service-table"), at("more"));
const figures = {
  serving: new Figure("Serving services", count),
  endpoints: new Figure("Serving endpoints", count),
  connections: new Figure("Connections", count),
  opened: new Figure("New per second", rate),
  bytes_in: new Figure("From clients", octets),
  bytes_out: new Figure("To clients", octets),
};
at("figures").append(...Object.values(figures).map((figure) => figure.node));

const deliver = {
  worker(status) {
    if (fresh === null && known.worker === null) fresh = new Map();
    known.worker = status;
  },
  service: (service) => (fresh ?? known.services).set(service.owner, service),
  gone: ({ owner }) => known.services.delete(owner),
  ready() {
    known.services = fresh ?? known.services;
    known.ready = true;
    document.querySelector("main").classList.add("ready");
    fresh = null;
  },
  flow(flow) {
    known.traffic = new Map(flow.services.map((each) => [each.owner, each]));
    known.counted = flow.counted;
    plot(flow);
  },
  bye: ({ reason }) => state("lost", reason),
};

function plot(flow) {
  const all = [...known.services.values()];
  figures.serving.push(all.filter((service) => service.endpoints.some((endpoint) => endpoint.serving)).length);
  figures.endpoints.push(all.reduce((sum, service) => sum + service.endpoints.filter((each) => each.serving).length, 0));
  for (const name of ["connections", "opened", "bytes_in", "bytes_out"]) figures[name].push(flow[name]);
}

function state(name, words, retry) {
  mark(at("connection"), "data-state", name);
  say(at("connection"), name === "refused" ? "token required" : words);
  document.querySelector("main").classList.toggle("stale", name !== "live" && known.ready);
  at("door").hidden = name !== "refused";
  if (name === "live") fresh = new Map(); // the complete state follows
  if (name !== "refused") return;
  say(at("door-error"), words);
  at("token").value = "";
  at("token").focus();
  at("door").onsubmit = (event) => {
    event.preventDefault();
    setToken(at("token").value.trim());
    retry();
  };
}

function soon() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    if (known.ready) show();
  });
}

function show() {
  const { worker } = known;
  document.title = `${plain(worker.worker)} - vipmesh`;
  say(at("worker"), worker.worker);
  const about = [`version ${worker.version}`, `data plane ${worker.data_plane} (${worker.data_plane_reason})`, `DNS on ${worker.dns.join(", ")}`];
  say(at("about"), [...about, worker.store && `store ${worker.store}`].filter(Boolean).join(", "));
  const alerts = worker.frozen.map((words) => `Frozen, the last good state stays in force: ${words}`);
  list(at("alerts"), [...alerts, ...worker.suspicions.map((words) => `Suspected mass failure: ${words}`)], "p", "alert");
  const problems = [...worker.failures.map((words) => `The data plane refuses: ${words}`), ...worker.problems];
  if (worker.repairs > 0) problems.push(`${worker.repairs} changes from outside vipmesh were reverted; see the log.`);
  const shown = problems.slice(0, WORDS);
  if (problems.length > WORDS) shown.push(`and ${problems.length - WORDS} more, which \`vipmesh status\` lists`);
  list(at("problems"), shown.length > 0 ? shown : ["None"], "li", null);
  table();
  workers();
}

/** Show each text as an element; nothing changes if the texts are the same. */
function list(node, texts, tag, kind) {
  const now = [...node.children].map((child) => child.textContent);
  if (now.length === texts.length && texts.every((text, index) => plain(text) === now[index])) return;
  node.replaceChildren(...texts.map((text) => element(tag, { class: kind }, text)));
}

function table() {
  const words = at("filter").value.trim().toLowerCase().split(/\s+/);
  const all = [...known.services.values()].sort((one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : one.owner < other.owner ? -1 : 1));
  const found = all.filter((service) => (!at("troubled").checked || troubled(service)) && words.every((word) => hay(service).includes(word)));
  const here = services.show(found);
  services.flow(known.traffic, known.counted);
  say(at("shown"), `${here} of ${all.length} services shown`);
}

const troubled = (service) => service.endpoints.length === 0 || !service.endpoints.every((endpoint) => endpoint.serving);

const hays = new WeakMap();

/** Return the text that a filter searches. */
function hay(service) {
  if (!hays.has(service)) {
    const ends = service.endpoints.flatMap((each) => [each.name, each.id, each.worker, each.address, each.health, each.drain, each.release, each.last_probe]);
    const words = [service.name, service.owner, service.vip ?? "refused", ...service.names, ...service.virtual_servers, ...ends];
    hays.set(service, words.filter(Boolean).join("\n").toLowerCase());
  }
  return hays.get(service);
}

function workers() {
  const found = new Map(known.worker.workers.map(({ name }) => [name, { services: new Set(), endpoints: 0, serving: 0 }]));
  for (const service of known.services.values()) {
    for (const endpoint of service.endpoints) {
      const row = found.get(endpoint.worker) ?? { services: new Set(), endpoints: 0, serving: 0 };
      row.services.add(service.owner);
      row.endpoints += 1;
      row.serving += endpoint.serving ? 1 : 0;
      found.set(endpoint.worker, row);
    }
  }
  const rows = [...found].sort(([one], [other]) => (one < other ? -1 : 1));
  const same = JSON.stringify(rows.map(([worker, row]) => [worker, row.services.size, row.endpoints, row.serving]));
  if (same === workers.shown) return;
  workers.shown = same;
  at("workers").replaceChildren(...rows.map(([worker, row]) =>
    element("tr", {},
      element("th", { scope: "row", class: "data" }, worker, worker === known.worker.worker ? element("span", { class: "quiet" }, " (this one)") : null),
      element("td", { class: "number" }, count(row.services.size)),
      element("td", { class: "number" }, count(row.endpoints)),
      element("td", { class: `number ${row.serving < row.endpoints ? "warn" : ""}` }, count(row.serving)),
    )));
}

at("filter").addEventListener("input", soon);
at("troubled").addEventListener("change", soon);
keepToken();
follow({
  state,
  event(name, data) {
    deliver[name]?.(data);
    soon();
  },
});
