// The gateway's figures (`GET /metrics`), asked for when something has changed.

import { text } from "./api.js";
import { listen, whenReady } from "./events.js";

/** Least time between two questions while runs change all the time. */
const REST_MS = 2000;

/** Follows the figures until the returned function is called. `tell(figures, error)`. */
export function followFigures(tell) {
  let ended = false;
  let busy = false;
  let wanted = false;
  const load = async () => {
    if (busy) {
      wanted = true;
      return;
    }
    busy = true;
    wanted = false;
    try {
      const figures = parse(await text("/metrics"));
      if (!ended) tell(figures, null);
    } catch (error) {
      if (!ended) tell(null, error);
    }
    setTimeout(() => {
      busy = false;
      if (wanted && !ended) load();
    }, REST_MS);
  };
  const stops = ["sync", "run", "run_removed", "worker", "worker_removed", "heartbeat"].map((name) =>
    listen(name, load),
  );
  stops.push(whenReady(load), () => (ended = true));
  return () => stops.forEach((stop) => stop());
}

/** Prometheus text as a function: `figure(name, labels)` is the value of the one sample, or null. */
export function parse(exposition) {
  const samples = new Map();
  for (const line of exposition.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!found) continue;
    const [, name, inner = "", value] = found;
    const labels = {};
    for (const [, label, raw] of inner.matchAll(/(\w+)="((?:\\.|[^"\\])*)"/g)) {
      labels[label] = raw.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    }
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value: Number(value) });
  }
  return {
    all: (name) => samples.get(name) ?? [],
    one(name, labels = {}) {
      const fits = (sample) => Object.entries(labels).every(([label, value]) => sample.labels[label] === value);
      return samples.get(name)?.find(fits)?.value ?? null;
    },
  };
}
