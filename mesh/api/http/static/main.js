// The page: events of the worker update `known`, which is shown at most once per frame.

import { hash, parse } from "./address.js";
import { Announcer } from "./announcer.js";
import { CodeDialog } from "./codes.js";
import { element, mark, plain, say } from "./dom.js";
import { ALL } from "./elsewhere.js";
import { count, moment, octets, rate, serving } from "./format.js";
import { Happened } from "./happened.js";
import { Figure } from "./plot.js";
import { counted, matcher, serviceText, tally } from "./search.js";
import { Services, sorted } from "./services.js";
import { Stacks } from "./stacks.js";
import { ask, follow, keepToken, setToken } from "./stream.js";
import { onTurn } from "./way.js";
import { Workers } from "./workers.js";
import { Wrong } from "./wrong.js";

const STACKS = 10_000, NO_STACKS = 60_000; // ms between two looks at the stacks, and where there are none
const PAST = 500; // the most past events that are asked for at once

const at = (id) => document.getElementById(id);
const known = { worker: null, services: new Map(), traffic: new Map(), counted: false, ready: false };
const clock = { ahead: 0, live: 0 }; // seconds by which the worker's clock is ahead; when the last news came
let fresh = null; // the services of a connection until it has sent the complete state
let due = false;
let lost = ""; // why the connection is lost, in words
let order = ["trouble", false];
let alone = null; // the owner of the service that the address names
let entering = false; // whether that service still is to get the focus
let before = ""; // the hash before the dialog was opened
let flowing = null; // a flow that is not shown yet

const page = {
  own: "",
  now: () => Date.now() / 1000 + clock.ahead,
  happened: new Happened({ list: at("happened"), notes: at("event-notes"), more: at("more-events") }, (first) => {
    happened.asked ||= first;
    remark();
    soon();
  }),
  history: (owner) => ask(`/v1/history?of=${encodeURIComponent(owner.toWellFormed())}`),
  lines(owner, most, text) {
    const [path, grep] = [owner, text].map((each) => encodeURIComponent(each.toWellFormed()));
    return ask(`/v1/logs/${path}?workers=all&lines=${most}&grep=${grep}`);
  },
};
const announcer = new Announcer(at("announcements"));
const services = new Services(at("service-table"), at("more"), page);
const wrong = new Wrong(at("problems"));
const workers = new Workers(at("workers"), at("on-worker"));
const stacks = new Stacks({ section: at("stacks"), body: at("stack-rows"), note: at("stacks-note") });
const dialog = new CodeDialog(at("code"), () => {
  if (parse(location.hash)[0] === "code") history.replaceState(null, "", location.pathname + before);
});
const figures = {
  services: new Figure("Serving services", count),
  endpoints: new Figure("Serving endpoints", count),
  connections: new Figure("Connections", count),
  opened: new Figure("New per second", rate),
  bytes_in: new Figure("From clients", octets),
  bytes_out: new Figure("To clients", octets),
};
at("figures").append(...Object.values(figures).map((figure) => figure.node));
workers.offer([]);

const deliver = {
  worker(status) {
    if (fresh === null && known.worker === null) fresh = new Map();
    known.worker = status;
    page.own = page.happened.worker = status.worker;
  },
  service: (service) => (fresh ?? known.services).set(service.owner, service),
  gone: ({ owner }) => known.services.delete(owner),
  ready() {
    known.services = fresh ?? known.services;
    known.ready = true;
    document.querySelector("main").classList.add("ready");
    fresh = null;
    page.happened.begin();
    setTimeout(remember); // after the first paint
    setTimeout(listWorkers);
    setTimeout(listStacks);
  },
  flow(flow) {
    known.traffic = new Map(flow.services.map((each) => [each.owner, each]));
    known.counted = flow.counted;
    flowing = flow;
  },
  happened(event) {
    page.happened.add(event);
    if (event.event.kind.startsWith("worker-")) listWorkers();
  },
  bye: ({ reason }) => state("lost", reason),
};

/** Ask for the traffic and the events of the last hour; a worker of an earlier version has none. */
async function remember() {
  try {
    const past = await ask(`/v1/events/past?last=${PAST}`);
    clock.ahead = past.now - Date.now() / 1000;
    page.happened.load(past.events);
    const hour = await ask("/v1/history");
    for (const [name, figure] of Object.entries(figures)) {
      figure.series.load(hour.at, hour[name]);
      figure.draw(page.happened.marks());
    }
  } catch {
    // the connection is lost, too, and says so; or there is no history
  }
  soon();
}

/** Ask which workers are registered: those without endpoints are not in the state of this one. */
async function listWorkers() {
  try {
    const { workers: found } = await ask("/v1/workers");
    workers.registered = found.map(({ name }) => name);
  } catch {
    // the connection is lost, too, and says so; or the worker is of an earlier version
  }
  soon();
}

/** Ask what the engine runs of stacks, now and again while somebody looks. */
async function listStacks() {
  clearTimeout(listStacks.next);
  try {
    if (!document.hidden) stacks.show(await ask("/v1/stacks"));
  } catch {
    // the connection is lost, too, and says so; or the worker is of an earlier version
  }
  clearTimeout(listStacks.next); // another call may have come meanwhile
  listStacks.next = setTimeout(listStacks, stacks.any ? STACKS : NO_STACKS);
}

function state(name, words, retry) {
  mark(at("connection"), "data-state", name);
  say(at("connection"), name === "refused" ? "token required" : words);
  document.querySelector("main").classList.toggle("stale", name !== "live" && known.ready);
  at("door").hidden = name !== "refused";
  lost = name === "lost" && known.ready ? `This page is ${words}; it shows the state of ${moment(clock.live)}` : "";
  if (name === "live") fresh = new Map(); // the complete state follows
  if (known.ready) soon();
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
  const all = [...known.services.values()];
  const service = alone === null ? null : known.services.get(alone);
  document.title = plain([service?.name, worker.worker, "vipmesh"].filter(Boolean).join(" - "));
  say(at("worker"), worker.worker);
  const about = [`version ${worker.version}`, `data plane ${worker.data_plane} (${worker.data_plane_reason})`, `DNS on ${worker.dns.join(", ")}`];
  say(at("about"), [...about, worker.store && `store ${worker.store}`].filter(Boolean).join(", "));
  const [errors, warnings] = wrong.show(worker, all, lost);
  if (show.wrong !== `${errors} ${warnings}`) {
    if (show.wrong !== undefined) announcer.news(`What is wrong: ${counted(errors, "errors")}, ${counted(warnings, "warnings")}`);
    show.wrong = `${errors} ${warnings}`;
  }
  workers.show(worker, all);
  offerKeepers(workers.names.filter((name) => name !== page.own));
  table(all, service);
  happened();
  if (flowing !== null && lost === "") {
    plot(flowing, all);
    services.flow(known.traffic, known.counted);
    flowing = null;
  }
}

function plot(flow, all) {
  const totals = { ...flow, services: all.filter((service) => serving(service) > 0).length, endpoints: all.reduce((sum, service) => sum + serving(service), 0) };
  const marks = page.happened.marks();
  for (const [name, figure] of Object.entries(figures)) figure.show(page.now(), totals[name], marks);
}

function table(all, service) {
  const worker = at("on-worker").value, filter = at("filter").value;
  const matches = matcher(filter, serviceText);
  const found = all.filter((each) =>
    (!at("troubled").checked || troubled(each)) && (worker === "" || each.endpoints.some((end) => end.worker === worker)) && matches(each));
  const chosen = alone === null ? sorted(found, order, known.traffic) : [service].filter(Boolean);
  const shown = services.show(chosen);
  at("alone").hidden = alone === null;
  say(at("alone").firstChild, service === undefined ? `No service is declared by ${alone} now. ` : "Only the service of this address is shown. ");
  const filtered = filter.trim() !== "" || worker !== "" || at("troubled").checked;
  const words = alone === null ? tally("services", { all: all.length, found: found.length, shown, filtered }) : `1 of ${counted(all.length, "services")}`;
  say(at("shown"), words);
  if (table.asked) announcer.answer(words);
  table.asked = false;
  if (entering) {
    entering = false;
    if (service) services.focus(alone);
  }
}

const troubled = (service) => service.endpoints.length === 0 || serving(service) < service.endpoints.length;

function happened() {
  const filter = at("event-filter").value;
  if (!page.happened.changed && filter === happened.filter) return;
  [page.happened.changed, happened.filter] = [false, filter];
  const [found, shown] = page.happened.show(filter);
  const words = tally("events", { all: page.happened.all.length, found, shown, filtered: filter.trim() !== "" }) + page.happened.answers;
  say(at("events-shown"), words);
  if (happened.asked) announcer.answer(words);
  happened.asked = false;
  services.happened();
}

/** Draw the marks of the events anew. */
function remark() {
  const marks = page.happened.marks();
  for (const figure of Object.values(figures)) figure.draw(marks);
}

/** Offer the workers whose events can be shown; the chosen one stays, even if it is gone. */
function offerKeepers(others) {
  const choice = at("event-worker"), chosen = choice.value;
  const offered = [["", `this worker, ${page.own}`], [ALL, "all workers"], ...others.map((name) => [`worker=${name}`, name])];
  if (!offered.some(([value]) => value === chosen)) offered.push([chosen, chosen.slice("worker=".length)]);
  at("event-choice").hidden = offered.length < 3;
  const same = JSON.stringify(offered);
  if (offerKeepers.shown === same) return;
  offerKeepers.shown = same;
  choice.replaceChildren(...offered.map(([value, words]) => element("option", { value }, words)));
  choice.value = chosen;
}

/** Follow the address: one service alone, one worker in the filter, or what a code means. */
function arrive() {
  const [kind, value] = parse(location.hash);
  if (kind === "code") return void dialog.open(value);
  dialog.close();
  before = location.hash;
  const was = alone;
  alone = kind === "service" ? value : null;
  if (alone !== null) {
    services.open.add(alone);
    entering = true;
  } else if (was !== null && location.hash === "") at("services").focus();
  if (kind === "worker") {
    workers.choose(value);
    table.asked = true;
    at("services").focus();
  }
  soon();
}

function sortBy(column) {
  order = [column, order[0] === column && !order[1]];
  markOrder();
  soon();
}

function markOrder() {
  for (const button of document.querySelectorAll("[data-sort]")) {
    const on = button.dataset.sort === order[0];
    // Names and addresses rise, while what is wrong, and what is much, comes first.
    const rises = (["name", "vip", "trouble"].includes(order[0])) !== order[1];
    if (on) mark(button.closest("th"), "aria-sort", rises ? "ascending" : "descending");
    else button.closest("th").removeAttribute("aria-sort");
  }
}

function onEscape(event) {
  if (event.key !== "Escape" || event.defaultPrevented || at("code").open) return;
  const field = event.target instanceof HTMLInputElement && event.target.type === "search" ? event.target : null;
  if (field !== null && field.value !== "") return; // the browser empties it
  if (services.leave() || alone === null) return;
  location.hash = "";
}

const asks = (what) => () => {
  what.asked = true;
  soon();
};
at("filter").addEventListener("input", asks(table));
at("troubled").addEventListener("change", asks(table));
at("on-worker").addEventListener("change", () => {
  if (parse(location.hash)[0] === "worker") history.replaceState(null, "", at("on-worker").value === "" ? location.pathname : hash("worker", at("on-worker").value));
  table.asked = true;
  soon();
});
at("event-filter").addEventListener("input", asks(happened));
at("event-worker").addEventListener("change", () => {
  page.happened.choose(at("event-worker").value);
  remark();
  asks(happened)();
});
at("more").addEventListener("click", () => {
  services.showMore();
  asks(table)();
});
at("more-events").addEventListener("click", () => {
  page.happened.showMore();
  page.happened.changed = true;
  asks(happened)();
});
for (const button of document.querySelectorAll("[data-sort]")) button.addEventListener("click", () => sortBy(button.dataset.sort));
addEventListener("keydown", onEscape);
document.addEventListener("visibilitychange", () => {
  if (known.ready && !document.hidden) listStacks();
});
addEventListener("hashchange", arrive);
onTurn(() => services.redraw());
keepToken();
markOrder();
arrive();
follow({
  state,
  event(name, data) {
    if (Object.hasOwn(deliver, name)) deliver[name](data);
    clock.live = Date.now() / 1000;
    soon();
  },
});
