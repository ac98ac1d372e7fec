// Past events: a list, the newest first, and marks for the plots. Those of this worker come by its stream; those of the
// other workers are asked for, if somebody wants to see them.

import { reference } from "./address.js";
import { arrange, element } from "./dom.js";
import { ALL, Elsewhere } from "./elsewhere.js";
import { moment } from "./format.js";
import { eventText, matcher } from "./search.js";

const KEPT = 1000, STEP = 25;
const SAME_WITHIN = 5; // seconds within which several workers notice the same
const NAMES = 3;
const KINDS = {
  bad: ["endpoint-failed", "container-died", "service-empty", "conflict", "label-refused", "problem-began", "worker-lost", "gap"],
  good: ["endpoint-healthy", "service-serves", "problem-ended", "worker-back"],
  warn: ["endpoint-drained", "endpoint-gone", "endpoint-restarted", "service-gone", "service-scaled", "repaired", "daemon-started", "daemon-stopped"],
};
const KIND = new Map(Object.entries(KINDS).flatMap(([kind, names]) => names.map((name) => [name, kind])));

export class Happened {
  /** `nodes` has the `list`, the `notes` on it, and the button for `more`. `answered(first)`: other workers have answered. */
  constructor(nodes, answered) {
    this.nodes = nodes;
    this.own = []; // the oldest first
    this.worker = ""; // the name of this one
    this.elsewhere = new Elsewhere((first) => {
      this.turn();
      answered(first);
    });
    this.items = new Map(); // key -> li
    this.most = STEP;
    this.live = []; // those that have come since the connection began
    this.turn();
  }

  turn() {
    this.changed = true;
    this.merged = null;
  }

  /** The events of the workers that were chosen, the oldest first. */
  get all() {
    this.merged ??= this.gather();
    return this.merged;
  }

  gather() {
    const { choice, events } = this.elsewhere;
    if (choice === "") return this.own;
    const others = [...events.values()];
    if (choice !== ALL) return others.sort((one, other) => one.event.at - other.event.at);
    const own = this.own.map((each) => ({ ...each, worker: this.worker }));
    return folded([...own, ...others.filter((each) => each.worker !== this.worker)]);
  }

  /** The number of the last event of this worker that is known; 0 for none. */
  get last() {
    return this.own.at(-1)?.number ?? 0;
  }

  /** A connection has begun, perhaps to another ring of events. */
  begin() {
    this.live = [];
  }

  add(event) {
    this.live = [...this.live, event].slice(-KEPT);
    if (event.number > this.last) this.keep([...this.own, event]);
  }

  /** Take over the events that the worker has kept. */
  load(events) {
    const last = events.at(-1)?.number ?? 0;
    this.keep([...events, ...this.live.filter((each) => each.number > last)]);
    this.live = [];
  }

  keep(events) {
    this.own = events.slice(-KEPT);
    this.turn();
  }

  choose(choice) {
    this.elsewhere.choose(choice);
    this.turn();
  }

  /** Return [time, kind] of each event of a service, or of all events. */
  marks(owner = null) {
    return this.all.filter(({ event }) => KIND.has(event.kind) && (owner === null || event.owner === owner)).map(({ event }) => [event.at, KIND.get(event.kind)]);
  }

  /** Return the last events of a service, the newest first. */
  of(owner, most) {
    const found = [], { all } = this;
    for (let at = all.length - 1; at >= 0 && found.length < most; at -= 1) {
      if (all[at].event.owner === owner) found.push(all[at]);
    }
    return found;
  }

  /** Show the events that match; returns [matches, shown]. */
  show(filter) {
    const matches = matcher(filter, eventText);
    const found = this.all.filter(matches).reverse();
    const shown = found.slice(0, this.most);
    const before = this.items;
    this.items = new Map(shown.map((each) => [keyOf(each), before.get(keyOf(each)) ?? item(each, true)]));
    arrange(this.nodes.list, [...this.items.values()]);
    this.nodes.more.hidden = found.length <= this.most;
    this.note();
    return [found.length, shown.length];
  }

  note() {
    const { notes } = this.elsewhere, same = JSON.stringify(notes);
    if (this.noted === same) return;
    this.noted = same;
    const lines = notes.map(([text, code]) => element("li", { class: "warn" }, text, code ? [" ", reference("code", code, code)] : null));
    this.nodes.notes.replaceChildren(...lines);
    this.nodes.notes.hidden = notes.length === 0;
  }

  /** Return in words how many of the other workers were asked and have answered; nothing if none was asked. */
  get answers() {
    const { choice, waiting, asked, silent } = this.elsewhere;
    if (choice === "") return "";
    if (waiting) return "; the other workers are asked";
    return choice === ALL && asked > 0 ? `; ${asked - silent} of ${asked} workers have answered` : "";
  }

  showMore() {
    this.most += 4 * STEP;
  }
}

/** Return events in the order of their times; those of several workers that say the same are one, with all of them. */
function folded(events) {
  events.sort((one, other) => one.event.at - other.event.at || (one.worker < other.worker ? -1 : 1));
  const found = [], newest = new Map();
  for (const each of events) {
    const said = `${each.event.kind} ${each.event.text}`, before = newest.get(said);
    if (before && !before.workers.includes(each.worker) && each.event.at - before.event.at <= SAME_WITHIN) {
      before.workers.push(each.worker);
      continue;
    }
    const kept = { number: each.number, event: each.event, workers: [each.worker] };
    newest.set(said, kept);
    found.push(kept);
  }
  return found;
}

/** Return what tells an event from all others that may be shown. */
export const keyOf = ({ number, event, worker, workers }) => JSON.stringify([number, event.at, workers ?? worker ?? ""]);

/** Return the list item of an event; `linked`: with a link to its service. */
export function item({ event, worker, workers }, linked) {
  const kind = KIND.get(event.kind) ?? "quiet";
  const when = new Date(event.at * 1000);
  const by = workers ?? (worker === undefined ? [] : [worker]);
  const more = by.length > NAMES ? ` and ${by.length - NAMES} more` : "";
  return element("li", {},
    element("time", { datetime: Number.isNaN(when.getTime()) ? null : when.toISOString() }, moment(event.at)), " ",
    by.length > 0 ? [element("span", { class: "data quiet keeper" }, `${by.slice(0, NAMES).join(", ")}${more}:`), " "] : null,
    element("span", { class: `data ${kind}` }, event.text), " ",
    reference("code", event.code, event.code),
    linked && event.owner ? [" ", reference("service", event.owner, "service", `service ${event.service ?? event.owner}`)] : null,
  );
}
