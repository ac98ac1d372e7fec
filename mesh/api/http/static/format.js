// Formats numbers, addresses and states for people.

const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const RATE = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const UNITS = ["B", "kB", "MB", "GB", "TB"];

export const count = (value) => (value === null || value === undefined ? "-" : COUNT.format(value));

export const rate = (value) => (value === null || value === undefined ? "-" : RATE.format(value));

/** Format bytes per second, with decimal units. */
export function octets(value) {
  if (value === null || value === undefined) return "-";
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${RATE.format(value)} ${UNITS[unit]}/s`;
}

/** Return where an endpoint is reached; without a port of its own, the address alone. */
export function place(endpoint) {
  const host = endpoint.address.includes(":") ? `[${endpoint.address}]` : endpoint.address;
  return endpoint.port === null ? host : `${host}:${endpoint.port}`;
}

/** Return the state of an endpoint as [words, kind]. */
export function state(endpoint) {
  if (endpoint.drain) return [`draining: ${endpoint.drain}`, "warn"];
  if (endpoint.serving && endpoint.health === "unhealthy") return [endpoint.kept ? "serving: too many failed at once" : "serving: no better endpoint", "warn"];
  if (endpoint.serving) return [endpoint.health === "not probed" ? "serving, not probed" : "serving", "good"];
  if (endpoint.health === "unhealthy") return ["unhealthy", "bad"];
  if (endpoint.health === "starting") return ["starting", "warn"];
  return ["waiting for its VIP", "warn"];
}

/** Return the state of a service as [words, kind]. */
export function condition(service) {
  const up = serving(service);
  const all = service.endpoints.length;
  if (service.vip === null) return ["refused", "bad"];
  if (all === 0) return ["has no endpoints", "bad"];
  if ((service.not_arriving ?? []).length > 0) return [`${up} of ${all}: requests do not arrive`, "bad"];
  const words = `${up} of ${all}`;
  if (up === all) return [words, "good"];
  return [up === 0 ? `${words}: none serving` : words, up === 0 ? "bad" : "warn"];
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-CA", { year: "numeric", month: "2-digit", day: "2-digit" });

/** Format a time in seconds since 1970: of today the time alone. */
export function moment(seconds) {
  const then = new Date(seconds * 1000);
  if (Number.isNaN(then.getTime())) return "at no time";
  const day = DAY.format(then);
  return day === DAY.format(new Date()) ? CLOCK.format(then) : `${day} ${CLOCK.format(then)}`;
}

const counts = new WeakMap();

/** Return how many endpoints of a service serve. */
export function serving(service) {
  if (!counts.has(service)) counts.set(service, service.endpoints.filter((endpoint) => endpoint.serving).length);
  return counts.get(service);
}

const RANKS = { bad: 0, warn: 1, good: 2 };
const ranks = new WeakMap();

/** Return 0 for a service that does not answer, 1 for one that answers in part, else 2. */
export function rank(service) {
  if (!ranks.has(service)) ranks.set(service, RANKS[condition(service)[1]]);
  return ranks.get(service);
}
