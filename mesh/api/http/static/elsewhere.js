// Past events that other workers have kept. This worker asks them when somebody wants to see them, and again at a modest
// pace as long as they are shown; there is no stream to each of them.

import { hash, LONGEST } from "./address.js";
import { ask } from "./stream.js";

const KEPT = 1000; // events
const PAUSE = 10, SHARE = 5; // seconds between two questions, and at least so many times what the last one took
const OVERLAP = 60, FURTHEST = 3600; // seconds that a question goes back behind the last one, and the most of them
const NAMES = 10, NOTES = 20;

export const ALL = "*";

export class Elsewhere {
  /** `changed(first)` is called after each answer; `first`: after the first one since the choice. */
  constructor(changed) {
    this.changed = changed;
    this.choice = "";
    this.timer = null;
    this.forget();
    document.addEventListener("visibilitychange", () => !document.hidden && this.missed && this.next());
  }

  forget() {
    clearTimeout(this.timer);
    this.missed = false; // whether a question was due while nobody saw the page
    this.events = new Map(); // key -> {number, event, worker}
    this.notes = []; // what is left out, as [text, code]
    this.answered = new Map(); // worker -> when it answered last
    this.asked = this.silent = 0; // workers that were asked, with this one; those that did not answer
    this.waiting = false;
    this.round = {}; // an answer to an earlier choice is of no use
  }

  /** Show no other worker (""), all of them, or the one of `worker=NAME`. */
  choose(choice) {
    this.choice = choice;
    this.forget();
    if (choice === "") return;
    this.waiting = true;
    this.next();
  }

  async next() {
    clearTimeout(this.timer);
    this.missed = false;
    const { round } = this, first = this.waiting, began = performance.now();
    try {
      const found = await this.question(began);
      if (round !== this.round) return;
      this.take(found, began);
    } catch (error) {
      if (round !== this.round) return;
      this.notes = [[`The events of other workers are not shown as they are now: ${error.message}`, error.code]];
    }
    this.waiting = false;
    this.changed(first);
    const took = (performance.now() - began) / 1000;
    const again = () => (document.hidden ? (this.missed = true) : this.next());
    this.timer = setTimeout(again, 1000 * Math.max(PAUSE, SHARE * took));
  }

  /** Ask for the events since the last answer of each worker; the clock of each says what is long ago. */
  async question(now) {
    const oldest = Math.min(...this.answered.values());
    const back = Number.isFinite(oldest) ? Math.min(FURTHEST, Math.ceil((now - oldest) / 1000) + OVERLAP) : null;
    const query = `last=${KEPT}${back === null ? "" : `&since=-${back}`}`;
    if (this.choice === ALL) return ask(`/v1/events/past?workers=all&${query}`);
    const name = this.choice.slice("worker=".length);
    if (name.length > LONGEST) throw new Error("its name is too long for a question");
    const found = await ask(`/v1/workers/${hash("worker", name).slice("#worker=".length)}/events/past?${query}`);
    return { events: found.events.map((each) => ({ ...each, worker: name })), workers: [{ worker: name }] };
  }

  take(found, began) {
    const newest = found.events.slice(-KEPT), read = newest.filter(readable);
    for (const each of read) this.events.set(`${each.worker} ${each.number} ${each.event.at}`, each);
    if (this.events.size > KEPT) {
      const sorted = [...this.events].sort(([, one], [, other]) => one.event.at - other.event.at);
      this.events = new Map(sorted.slice(-KEPT));
    }
    this.asked = found.workers.length;
    this.silent = found.workers.filter(({ error }) => error).length;
    const answered = new Map();
    // A worker that has not answered may have more to tell later than what the others have.
    for (const { worker, error } of found.workers) answered.set(worker, error ? this.answered.get(worker) ?? began - 1000 * FURTHEST : began);
    this.answered = answered;
    this.notes = notesOn(found);
    if (read.length < newest.length) this.notes.push([`${newest.length - read.length} events cannot be read by this page.`]);
  }
}

const TEXTS = ["kind", "code", "text", "owner", "service", "worker", "endpoint", "name", "reason"];

/** Return whether an event can be shown: one worker alone answers in its own words, which nobody has checked. */
function readable({ number, event }) {
  if (!Number.isInteger(number) || !Number.isFinite(event?.at)) return false;
  if (TEXTS.slice(0, 3).some((name) => typeof event[name] !== "string")) return false;
  return TEXTS.every((name) => event[name] === undefined || event[name] === null || (typeof event[name] === "string" && event[name].length <= LONGEST));
}

/** Return what the reader must know of an answer, as [text, code]. */
function notesOn(found) {
  const notes = [], missing = new Map();
  for (const { worker, error, code, clock, unreadable } of found.workers) {
    if (error) {
      const same = JSON.stringify([error, code]);
      missing.set(same, [...(missing.get(same) ?? []), worker]);
    }
    if (clock) notes.push([`The clock of worker ${worker} is ${Math.abs(clock)} s ${clock > 0 ? "ahead of" : "behind"} that of ${found.worker}.`]);
    if (unreadable) notes.push([`${unreadable} events of ${worker} cannot be read by ${found.worker}; update it.`]);
  }
  const left = [...missing].map(([same, names]) => {
    const [error, code] = JSON.parse(same);
    const more = names.length > NAMES ? ` and ${names.length - NAMES} more` : "";
    return [`Without the events of ${names.slice(0, NAMES).join(", ")}${more}: ${error}`, code];
  });
  const all = [...left, ...notes];
  return all.length > NOTES ? [...all.slice(0, NOTES), [`and ${all.length - NOTES} more`]] : all;
}
