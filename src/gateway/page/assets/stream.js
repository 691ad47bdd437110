// Reads server-sent events with fetch, because EventSource can send no key; connects again by itself.

import { ApiError, headers, refusal } from "./api.js";

/** The gateway says something at least every 5 s; after this silence the connection is dead. */
const SILENCE_MS = 15_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
/** A tab in the background closes its connection: browsers allow six per server. */
const HIDDEN_MS = 10_000;

/**
 * Opens a stream. `on.event({name, data})` gets each event, `on.lost(seconds)` says when the next try
 * comes, `on.refused(error)` that there will be none, `on.ended()` decides (true) whether an orderly
 * end is the end. Returns a function that closes it.
 */
export function openStream(path, on) {
  const state = { closed: false, lastId: null, pause: FIRST_PAUSE_MS, abort: null, wake: () => {} };
  const visibility = watchVisibility(state);
  follow(path, on, state);
  return () => {
    state.closed = true;
    state.abort?.abort();
    state.wake();
    visibility.stop();
  };
}

async function follow(path, on, state) {
  while (!state.closed) {
    let wait = state.pause;
    try {
      await connect(path, on, state);
      if (state.closed || on.ended?.()) return;
      // An orderly end, a time-out for instance: go on at once, but not in a circle.
      wait = state.pause;
    } catch (error) {
      if (state.closed) return;
      if (error instanceof ApiError && error.status >= 400 && error.status < 500) {
        on.refused?.(error);
        return;
      }
      if (error.retryAfter) wait = Math.max(wait, error.retryAfter * 1000);
      on.lost?.(wait / 1000, error);
    }
    state.pause = Math.min(state.pause * 2, LONGEST_PAUSE_MS);
    await pause(wait * (0.8 + 0.4 * Math.random()), state);
    while (document.hidden && !state.closed) await pause(60_000, state);
  }
}

async function connect(path, on, state) {
  const abort = new AbortController();
  state.abort = abort;
  let watchdog = setTimeout(() => abort.abort(), SILENCE_MS);
  try {
    const more = { Accept: "text/event-stream" };
    if (state.lastId) more["Last-Event-ID"] = state.lastId;
    const response = await fetch(path, { headers: headers(more), signal: abort.signal, cache: "no-store" });
    if (!response.ok) throw await refusal(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parse = parser((event) => {
      if (event.id) state.lastId = event.id;
      state.pause = FIRST_PAUSE_MS;
      on.event(event);
    });
    for (;;) {
      const { done, value } = await reader.read();
      if (done || state.closed) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(() => abort.abort(), SILENCE_MS);
      parse(value);
    }
  } finally {
    clearTimeout(watchdog);
    abort.abort();
  }
}

/** Takes pieces of text, and tells whole events. */
export function parser(tell) {
  let rest = "";
  let event = {};
  return (piece) => {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const at = line.indexOf(":");
      const value = line.slice(at + 1).trimStart();
      if (line.startsWith("event:")) event.name = value;
      else if (line.startsWith("id:")) event.id = value;
      else if (line.startsWith("data:")) event.data = value;
      else if (line === "" && event.data !== undefined) {
        tell({ ...event, data: JSON.parse(event.data) });
        event = {};
      }
    }
  };
}

function pause(milliseconds, state) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    state.wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

function watchVisibility(state) {
  let timer = null;
  const changed = () => {
    clearTimeout(timer);
    if (document.hidden) {
      timer = setTimeout(() => state.abort?.abort(), HIDDEN_MS);
    } else {
      state.pause = FIRST_PAUSE_MS;
      state.wake();
    }
  };
  document.addEventListener("visibilitychange", changed);
  addEventListener("online", changed);
  return {
    stop() {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", changed);
      removeEventListener("online", changed);
    },
  };
}
