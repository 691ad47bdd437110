// All workers, kept current: loaded once per connection, then changed by events.

import { get } from "./api.js";
import { listen, whenReady } from "./events.js";

let records = new Map();
let problem = null;
let loaded = false;
let loading = null;
const watchers = new Set();

/** Every known worker, by id. */
export function workers() {
  return records;
}

/** One worker's record, or undefined. */
export function worker(id) {
  return records.get(id);
}

/** Whether the list is there, and the error when it could not be loaded. */
export function fleetState() {
  return { loaded, problem };
}

/** Workers that take the jobs of `tag`, hidden or not. */
export function serving(tag) {
  return [...records.values()].filter((one) => takesJobs(one) && one.tags.includes(tag));
}

/** The tags that some worker serves or has served. */
export function knownTags() {
  return [...new Set([...records.values()].flatMap((one) => one.tags))];
}

export function isAlive(record) {
  return takesJobs(record) || record.state === "UNAVAILABLE";
}

function takesJobs(record) {
  return record.state === "RUNNING" || record.state === "IDLE";
}

/** Calls `tell` on each change until the returned function is called. */
export function followFleet(tell) {
  watchers.add(tell);
  return () => watchers.delete(tell);
}

/** Takes over a change that this page has made itself. */
export function changed(id, fields) {
  const known = records.get(id);
  if (known) records.set(id, { ...known, ...fields });
  tellAll();
}

export async function loadFleet() {
  const since = (loading = new Map());
  try {
    const list = await get("/workers?scope=all&include_hidden=true&limit=500");
    if (loading !== since) return;
    records = new Map(list.map((one) => [one.worker_id, one]));
    for (const [id, record] of since) put(id, record);
    loaded = true;
    problem = null;
  } catch (error) {
    if (loading !== since) return;
    problem = error;
  }
  loading = null;
  tellAll();
}

function put(id, record) {
  if (record) records.set(id, record);
  else records.delete(id);
  // What comes while the list is under way is newer than the list.
  loading?.set(id, record);
}

function tellAll() {
  for (const tell of [...watchers]) tell();
}

/** Begins to follow the workers; once per page. */
export function startFleet() {
  listen("sync", loadFleet);
  listen("worker", (record) => {
    put(record.worker_id, record);
    tellAll();
  });
  listen("worker_removed", ({ worker_id: id }) => {
    put(id, null);
    tellAll();
  });
  whenReady(loadFleet);
}
