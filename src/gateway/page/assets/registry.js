// The registry of wheels and its history, asked for when something may have changed.

import { get } from "./api.js";
import { listen, whenReady } from "./events.js";

/** Least time between two questions while workers change all the time. */
const REST_MS = 2000;
/** The most that the gateway gives. */
const HISTORY = 500;
/** How often the history is read after a change: the gateway learns of an event a moment after its wheel. */
const READINGS = 2;

/**
 * Follows the registry until `close()` is called, and calls
 * `tell({loaded, wheels, problem, history, historyProblem})`. The last known value of each part stays beside
 * its error. `reload()` asks at once.
 */
export function followRegistry(tell) {
  const state = { loaded: false, wheels: [], problem: null, history: null, historyProblem: null };
  let known = null;
  let owed = 0;
  let ended = false;
  let busy = false;
  let wanted = false;

  async function load() {
    if (busy) {
      wanted = true;
      return;
    }
    busy = true;
    wanted = false;
    await readWheels();
    if (!ended) tell(state);
    if (owed > 0 && !ended) {
      await readHistory();
      if (!ended) tell(state);
    }
    // One that the reader asks for does not wait.
    setTimeout(rested, wanted ? 0 : REST_MS);
  }

  function rested() {
    busy = false;
    if ((wanted || owed > 0) && !ended) load();
  }

  async function readWheels() {
    try {
      state.wheels = await get("/wheels");
      state.loaded = true;
      state.problem = null;
    } catch (error) {
      state.problem = error;
      return;
    }
    const sign = JSON.stringify(state.wheels.map((one) => [one.name, one.nuid]));
    if (sign !== known) owed = READINGS;
    known = sign;
  }

  async function readHistory() {
    try {
      state.history = await get(`/wheels/history?limit=${HISTORY}`);
      state.historyProblem = null;
      owed -= 1;
    } catch (error) {
      state.historyProblem = error;
      // Another question with this key has the same answer; any other error passes.
      owed = error.status === 403 ? 0 : READINGS;
    }
  }

  // The gateway tells nothing of wheels, but its workers do, and it says something every few seconds.
  const stops = ["sync", "worker", "worker_removed", "heartbeat"].map((name) => listen(name, load));
  stops.push(whenReady(load), () => (ended = true));
  return { reload: load, close: () => stops.forEach((stop) => stop()) };
}
