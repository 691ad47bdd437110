// Texts that follow the clock: each second they are worked out anew.

import { el } from "./dom.js";
import { ago, isTime, moment } from "./format.js";

const moving = new Set();

/** A point in time, told relative to now, with the whole of it in the title. */
export function when(seconds) {
  if (!isTime(seconds)) return el("span", { class: "quiet" }, "–");
  const node = el("time", { datetime: new Date(seconds * 1000).toISOString(), title: moment(seconds) });
  return follow(node, () => ago(seconds));
}

/** A text that is worked out anew each second. */
export function running(text) {
  return follow(el("span", { class: "running-text" }), text);
}

function follow(node, text) {
  node.textContent = text();
  moving.add({ node, text, missed: 0 });
  return node;
}

setInterval(() => {
  for (const one of moving) {
    // A node may be made a little before it is shown; one that is gone for longer is forgotten.
    one.missed = one.node.isConnected ? 0 : one.missed + 1;
    if (one.missed > 2) {
      moving.delete(one);
      continue;
    }
    const text = one.text();
    if (one.node.textContent !== text) one.node.textContent = text;
  }
}, 1000);
