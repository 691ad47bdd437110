// The one stream of changes of this tab (`GET /events`), shared by all parts of the page.

import { openStream } from "./stream.js";

/** How long a part waits for the stream before it loads its list all the same. */
const PATIENCE_MS = 1500;
const listeners = new Map();
let close = null;
/**
 * `state` is `connecting`, `open`, `lost` (for `why`, if the gateway has said so) or `refused`; `live` is
 * whether the gateway sees NATS (null: unknown).
 */
export const connection = { state: "connecting", live: null, retryAt: null, why: null };

/**
 * Listens to `run`, `run_removed`, `worker`, `worker_removed`, `heartbeat`, to `sync` (load your
 * lists now) or to `connection`. Returns a function that ends it.
 */
export function listen(name, tell) {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(tell);
  return () => listeners.get(name).delete(tell);
}

/** Calls `load` when the lists are worth loading: now, or with the stream's first word. */
export function whenReady(load) {
  if (connection.state !== "connecting") {
    load();
    return () => {};
  }
  const timer = setTimeout(load, PATIENCE_MS);
  const stop = listen("sync", () => {
    // The listener of `sync` loads.
    clearTimeout(timer);
    stop();
  });
  return () => {
    clearTimeout(timer);
    stop();
  };
}

/** Opens the stream, or opens it anew with another key. */
export function start() {
  close?.();
  set({ state: "connecting", live: null, retryAt: null });
  close = openStream("/events", {
    event({ name, data }) {
      if (name === "state") {
        set({ state: "open", live: data.live, retryAt: null });
        if (data.live) tell("sync");
      } else if (name === "reset") {
        tell("sync");
      } else {
        tell(name, data);
      }
    },
    lost(seconds, error) {
      const why = error?.status ? error.message : null;
      set({ state: "lost", live: null, retryAt: Date.now() / 1000 + seconds, why });
    },
    refused() {
      set({ state: "refused", live: null, retryAt: null });
    },
  });
}

function set(change) {
  Object.assign(connection, change);
  tell("connection", connection);
}

function tell(name, data) {
  for (const one of [...(listeners.get(name) ?? [])]) {
    try {
      one(data);
    } catch (error) {
      // One part's fault is not the others'.
      console.error(`a listener of ${name} failed`, error);
    }
  }
}
