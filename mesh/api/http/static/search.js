// Finds services and events by words: each word must be somewhere in the thing's text.

const texts = new WeakMap();

/** Return the text of a service that a filter searches. */
export function serviceText(service) {
  const ends = service.endpoints.flatMap((each) => [each.name, each.id, each.worker, each.address, each.health, each.drain, each.release, each.last_probe]);
  return [service.name, service.owner, service.vip ?? "refused", ...service.names, ...service.virtual_servers, ...(service.published ?? []), ...ends];
}

/** Return the text of an event that a filter searches. */
export const eventText = ({ event, workers }) => [...(workers ?? []), event.text, event.code, event.kind, event.worker, event.owner, event.service, event.name, event.endpoint, event.reason];

/** Return a function that says whether a thing has all words of a filter. */
export function matcher(filter, textOf) {
  const words = filter.trim().toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return () => true;
  return (thing) => {
    if (!texts.has(thing)) texts.set(thing, textOf(thing).filter(Boolean).join("\n").toLowerCase());
    const text = texts.get(thing);
    return words.every((word) => text.includes(word));
  };
}

/** Return a number with its word: `1 event`, `2 events`. */
export const counted = (number, things) => `${number} ${number === 1 ? things.slice(0, -1) : things}`;

/** Return how many things there are, how many match, and how many of these are shown, in words. */
export function tally(things, { all, found, shown, filtered }) {
  const count = filtered ? `${found} of ${counted(all, things)} match` : counted(all, things);
  return shown < found ? `${count}, the first ${shown} are shown` : count;
}
