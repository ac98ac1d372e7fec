// The events that the worker has kept: a list, the newest first, and marks for the plots.

import { reference } from "./address.js";
import { arrange, element } from "./dom.js";
import { moment } from "./format.js";
import { eventText, matcher } from "./search.js";

const KEPT = 1000, STEP = 25;
const KINDS = {
  bad: ["endpoint-failed", "container-died", "service-empty", "conflict", "label-refused", "problem-began", "worker-lost", "gap"],
  good: ["endpoint-healthy", "service-serves", "problem-ended", "worker-back"],
  warn: ["endpoint-drained", "endpoint-gone", "endpoint-restarted", "service-gone", "repaired", "daemon-started", "daemon-stopped"],
};
const KIND = new Map(Object.entries(KINDS).flatMap(([kind, names]) => names.map((name) => [name, kind])));

export class Happened {
  constructor(list, more) {
    this.list = list;
    this.more = more;
    this.all = []; // the oldest first
    this.items = new Map(); // number -> li
    this.most = STEP;
    this.live = []; // those that have come since the connection began
    this.changed = true;
  }

  /** The number of the last event that is known; 0 for none. */
  get last() {
    return this.all.at(-1)?.number ?? 0;
  }

  /** A connection has begun, perhaps to another ring of events. */
  begin() {
    this.live = [];
  }

  add(event) {
    this.live = [...this.live, event].slice(-KEPT);
    if (event.number > this.last) this.keep([...this.all, event]);
  }

  /** Take over the events that the worker has kept. */
  load(events) {
    const last = events.at(-1)?.number ?? 0;
    this.keep([...events, ...this.live.filter((each) => each.number > last)]);
    this.live = [];
  }

  keep(events) {
    this.all = events.slice(-KEPT);
    this.changed = true;
  }

  /** Return [time, kind] of each event of a service, or of all events. */
  marks(owner = null) {
    return this.all.filter(({ event }) => KIND.has(event.kind) && (owner === null || event.owner === owner)).map(({ event }) => [event.at, KIND.get(event.kind)]);
  }

  /** Return the last events of a service, the newest first. */
  of(owner, most) {
    const found = [];
    for (let at = this.all.length - 1; at >= 0 && found.length < most; at -= 1) {
      if (this.all[at].event.owner === owner) found.push(this.all[at]);
    }
    return found;
  }

  /** Show the events that match; returns [matches, shown]. */
  show(filter) {
    const matches = matcher(filter, eventText);
    const found = this.all.filter(matches).reverse();
    const shown = found.slice(0, this.most);
    const before = this.items;
    this.items = new Map(shown.map((each) => [each.number, before.get(each.number) ?? item(each, true)]));
    arrange(this.list, [...this.items.values()]);
    this.more.hidden = found.length <= this.most;
    return [found.length, shown.length];
  }

  showMore() {
    this.most += 4 * STEP;
  }
}

/** Return the list item of an event; `linked`: with a link to its service. */
export function item({ event }, linked) {
  const kind = KIND.get(event.kind) ?? "quiet";
  const when = new Date(event.at * 1000);
  return element("li", {},
    element("time", { datetime: Number.isNaN(when.getTime()) ? null : when.toISOString() }, moment(event.at)), " ",
    element("span", { class: `data ${kind}` }, event.text), " ",
    reference("code", event.code, event.code),
    linked && event.owner ? [" ", reference("service", event.owner, "service", `service ${event.service ?? event.owner}`)] : null,
  );
}
