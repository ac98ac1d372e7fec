// Follows the worker: the events of /v1/events, read with fetch, since EventSource cannot send a token. A connection that
// ends is opened again after a growing delay; the worker then sends the complete state again.

const TOKEN = "vipmesh token";
const CODE = "Vipmesh-Code";
const FIRST = 1000, LONGEST = 15000, SILENCE = 40000; // ms; the worker sends at least a comment every 15 s

/** Keep the token of a link for this tab, and remove it from the address. What is behind the # is never sent. */
export function keepToken() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (found === null) return;
  try {
    sessionStorage.setItem(TOKEN, decodeURIComponent(found[1]));
  } catch {
    // no valid percent-encoding: the page asks for the token
  }
  history.replaceState(null, "", location.pathname);
}

export const setToken = (token) => sessionStorage.setItem(TOKEN, token);

/**
 * Call `on.event(name, data)` for each event and `on.state(state, words)` with `live`, `lost` or `refused`, as long as the
 * page is open. After a refusal it waits for a call of `retry`, which `on.state` is given.
 */
export async function follow(on) {
  let wait = FIRST;
  for (;;) {
    try {
      await read(on, () => (wait = FIRST));
      on.state("lost", "not connected");
    } catch (error) {
      if (error instanceof Refused) {
        await new Promise((retry) => on.state("refused", error.message, retry));
        continue;
      }
      on.state("lost", `not connected: ${error.message}`);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(LONGEST, wait * 2);
  }
}

class Refused extends Error {}

// A token counts in the header alone: logs and referrers keep URLs.
const credentials = (token) => (token === null ? {} : { Authorization: `Bearer ${token}` });

/** Return the JSON document of a path; raises an Error if the worker does not give it, with its `code` if there is one. */
export async function ask(path) {
  const headers = credentials(sessionStorage.getItem(TOKEN));
  const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(SILENCE) });
  if (answer.ok) return answer.json();
  const refusal = await answer.json().catch(() => null); // something between may have answered
  throw Object.assign(new Error(refusal?.error ?? `status ${answer.status}`), { code: answer.headers.get(CODE) });
}

async function read(on, begun) {
  const token = sessionStorage.getItem(TOKEN);
  const abort = new AbortController();
  const headers = credentials(token);
  let silence = setTimeout(() => abort.abort(), SILENCE);
  try {
    const answer = await fetch("/v1/events", { headers, signal: abort.signal, cache: "no-store" });
    if (answer.status === 401) throw new Refused(token === null ? "" : "That is not the token of this worker.");
    if (!answer.ok) throw new Error((await answer.json()).error);
    on.state("live", "live");
    begun();
    const parser = events(on.event);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), SILENCE);
      parser(value);
    }
  } finally {
    clearTimeout(silence);
  }
}

/** Return a parser that takes the text in any pieces. It only understands the subset of the format that this worker sends. */
export function events(deliver) {
  let rest = "";
  return (text) => {
    const blocks = (rest + text).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      let name = "message", data = null;
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) name = line.slice(7);
        else if (line.startsWith("data: ")) data = line.slice(6);
      }
      if (data !== null) deliver(name, JSON.parse(data));
    }
  };
}
