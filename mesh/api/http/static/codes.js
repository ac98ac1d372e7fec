// What a code means, in a dialog of its own. The worker sends the texts of its version of docs/errors.md.

import { parse } from "./address.js";
import { element, say } from "./dom.js";

let texts = null; // a promise of the codes

async function load() {
  const answer = await fetch("/page/codes.json");
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}

export class CodeDialog {
  /** `leave` is called when the dialog is closed; the address is then the one from before. */
  constructor(dialog, leave) {
    this.dialog = dialog;
    [this.title, this.text] = [dialog.querySelector("h2"), dialog.querySelector("p")];
    dialog.addEventListener("close", leave);
  }

  async open(code) {
    say(this.title, code);
    say(this.text, "…");
    if (!this.dialog.open) this.dialog.showModal();
    try {
      texts ??= load();
      const found = Object.entries(await texts).find(([each]) => each === code);
      if (parse(location.hash)[1] !== code) return; // another one was asked for meanwhile
      if (found === undefined) return say(this.text, "This worker knows no such code.");
      say(this.title, `${code}: ${found[1].title}`);
      this.text.replaceChildren(...words(found[1].text));
    } catch (error) {
      texts = null;
      say(this.text, `The worker does not say what it means: ${error.message}`);
    }
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }
}

/** Return the nodes of a paragraph: `code` in backticks becomes an element, of [a link](...) only the words stay. */
function words(text) {
  const parts = text.replace(/\[([^\]]+)\]\([^)]*\)/g, "$1").split("`");
  return parts.map((part, index) => (index % 2 === 1 ? element("code", {}, part) : document.createTextNode(part)));
}
