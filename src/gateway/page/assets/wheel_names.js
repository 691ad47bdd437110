// What the file names of wheels say, and which workers use them.

import { isAlive } from "./fleet.js";

/** The most wheels that the record of a worker names. */
export const LISTED = 50;

/** Package, version and what it fits, of a file name; of another name than a wheel's, the name. */
export function parts(name) {
  const list = name.replace(/\.whl$/, "").split("-");
  if (list.length < 5 || list.length > 6) return { package: name, version: "", build: "", fits: "" };
  return {
    package: list[0].toLowerCase().replace(/[-_.]+/g, "-"),
    version: list[1].replaceAll("_", "-"),
    build: list.length === 6 ? list[2] : "",
    fits: list.slice(-3).join("-"),
  };
}

/**
 * The wheels with their parts, by package, the newest version first. The registry takes a version only above
 * all others of its package, so the order of the uploads is that of the versions.
 */
export function sorted(wheels) {
  const list = wheels.map((wheel) => ({ ...wheel, ...parts(wheel.name) }));
  list.sort((a, b) => (a.package < b.package ? -1 : a.package > b.package ? 1 : b.modified - a.modified));
  list.forEach((one, at) => (one.isNewest = list[at - 1]?.package !== one.package));
  return list;
}

/**
 * Workers that give a wheel to runs (`by`), and workers that serve its tags and cannot use it (`skipped`,
 * with reasons). `meant` counts the workers that synchronise and serve its tags. With `atLeast` some records
 * name not all of their wheels.
 */
export function uses(wheel, workers) {
  const found = { by: [], skipped: [], meant: 0, atLeast: false };
  for (const one of workers) {
    const sync = one.wheel_sync;
    if (!sync?.enabled || !isAlive(one)) continue;
    const installed = sync.installed_wheels ?? [];
    const mine = installed.some(
      (other) => other.wheel_name === wheel.name && (!other.nuid || other.nuid === wheel.nuid),
    );
    const skipped = (sync.skipped_incompatible ?? []).find((other) => other.wheel_name === wheel.name);
    if (mine) found.by.push(one.worker_id);
    else if (skipped) found.skipped.push({ worker: one.worker_id, reason: skipped.reason });
    if (wheel.tags.length === 0 || wheel.tags.some((tag) => one.tags.includes(tag))) found.meant += 1;
    found.atLeast ||= installed.length >= LISTED && !mine;
  }
  found.by.sort();
  return found;
}
