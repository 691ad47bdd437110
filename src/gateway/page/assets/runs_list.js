// One page of runs, loaded once and then kept current by events.

import { get } from "./api.js";
import { listen, whenReady } from "./events.js";
import { asQuery, fits } from "./runs_limits.js";

/** Runs per page. */
const PAGE = 50;
/** A first page may grow to this by what comes; then it is loaded anew, so that the next page fits on. */
const LARGEST = 2 * PAGE;
/** Runs that have moved away are counted up to this: a tab may stay open for weeks. */
export const MOST_MOVED = 1000;
/** Least time between two drawings, and between two loads that events cause. */
const DRAW_MS = 250;
const LOAD_MS = 1500;

export class RunsList {
  /** `limits` as of runs_limits.js; `draw` is called after changes. */
  constructor(limits, draw) {
    this.limits = limits;
    this.draw = draw;
    this.byId = new Map();
    this.next = null;
    this.error = null;
    this.isLoaded = false;
    /** On a later page: runs that have moved to the pages before. */
    this.movedAway = new Set();
    this.since = null;
    this.timers = {};
    this.stops = [];
  }

  /** Newest first. */
  get runs() {
    return [...this.byId.values()].sort((a, b) => b.updated_at - a.updated_at || (a.run_id < b.run_id ? 1 : -1));
  }

  get changesBefore() {
    return this.movedAway.size;
  }

  start() {
    this.stops = [
      listen("sync", () => this.load()),
      listen("run", (run) => this.put(run)),
      listen("run_removed", ({ run_id: id }) => this.remove(id)),
      whenReady(() => this.load()),
    ];
  }

  close() {
    this.stops.forEach((stop) => stop());
    Object.values(this.timers).forEach(clearTimeout);
    this.since = null;
    this.draw = () => {};
  }

  /** Other limits: the list begins anew, and the old one stays until the new one is there. */
  change(limits) {
    if (JSON.stringify(limits) === JSON.stringify(this.limits)) {
      this.draw();
      return;
    }
    this.limits = limits;
    this.load();
  }

  async load() {
    // What comes while the answer is under way may be newer than the answer.
    const since = (this.since = []);
    try {
      const page = await get(`/runs?${asQuery(this.limits, PAGE)}`);
      if (this.since !== since) return;
      this.since = null;
      this.byId = new Map(page.items.map((run) => [run.run_id, run]));
      this.next = page.next_cursor;
      this.movedAway.clear();
      this.error = null;
      this.isLoaded = true;
      for (const change of since) change();
    } catch (error) {
      if (this.since !== since) return;
      this.since = null;
      this.error = error;
    }
    this.draw();
  }

  put(run) {
    if (this.since) this.since.push(() => this.put(run));
    // Events come in the order of the writes. The times in them do not: each writer has a clock of its own.
    const known = this.byId.get(run.run_id);
    const fitting = fits(run, this.limits);
    if (known && fitting) this.byId.set(run.run_id, run);
    else if (known) this.byId.delete(run.run_id);
    else if (!fitting || !this.isLoaded) return;
    else if (this.limits.cursor) this.movedAway.size < MOST_MOVED && this.movedAway.add(run.run_id);
    else this.byId.set(run.run_id, run);
    this.changed();
  }

  remove(id) {
    if (this.since) this.since.push(() => this.remove(id));
    if (this.byId.delete(id)) this.changed();
  }

  changed() {
    this.later("draw", DRAW_MS, () => {
      this.trim();
      this.draw();
    });
    const isShort = this.byId.size < PAGE / 2 && this.next !== null;
    if (this.byId.size >= LARGEST || isShort) this.later("load", LOAD_MS, () => this.load());
  }

  /** However many come while the next load is under way, no more are shown. */
  trim() {
    if (this.byId.size > LARGEST) this.byId = new Map(this.runs.slice(0, LARGEST).map((run) => [run.run_id, run]));
  }

  later(name, after, act) {
    this.timers[name] ??= setTimeout(() => {
      this.timers[name] = null;
      act();
    }, after);
  }
}
