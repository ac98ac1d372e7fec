// Tells screen readers what has changed: one sentence at a time, the last one if there are several, and never the same
// twice. What merely goes on changing is not announced.

import { plain } from "./dom.js";

const SETTLE = 700, PAUSE = 10000; // ms: after the last keystroke; between two announcements that nobody asked for

export class Announcer {
  constructor(node) {
    this.node = node;
    this.timer = null;
    this.next = 0;
  }

  /** Announce the result of what the reader has just done. */
  answer(text) {
    this.wait(text, SETTLE);
  }

  /** Announce news, some seconds after the last ones. */
  news(text) {
    this.wait(text, Math.max(SETTLE, this.next - Date.now()));
  }

  wait(text, delay) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.next = Date.now() + PAUSE;
      const wanted = plain(text);
      if (this.node.textContent !== wanted) this.node.textContent = wanted;
    }, delay);
  }
}
