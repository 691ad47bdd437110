// Where the bars of a run stand, in pixels: the arithmetic of its timeline.

import { now } from "./format.js";

/** A wait that is longer than this part of the run is drawn shorter than it was, with a break. */
const WAIT_SHARE = 0.2;
/** The width of a letter. */
export const LETTER = 7;
/** The least width between two lines of the axis. */
const BETWEEN_LINES = 90;

/** Tasks in the order in which they began; those that have not begun come last. */
export function rows(run) {
  const records = run.task_records ?? {};
  const tasks = Object.entries(run.tasks ?? {}).map(([name, state]) => ({ name, state, ...times(records[name]) }));
  return tasks.sort((a, b) => (a.from ?? Infinity) - (b.from ?? Infinity) || 0);
}

function times(record) {
  return { from: record?.started_at ?? null, to: record?.ended_at ?? null };
}

/** Where a time stands: labels on the left, then the wait, then the run. */
export function measure(run, width) {
  const names = Math.min(190, Math.max(90, width * 0.28));
  const end = run.end_time ?? now();
  const start = run.start_time ?? end;
  const submitted = Math.min(run.submitted_at ?? start, start);
  const ran = Math.max(end - start, 0.001);
  const waited = start - submitted;
  const room = width - names - 8;
  const share = run.start_time ? Math.min(waited / (waited + ran), WAIT_SHARE) : 1;
  const isBroken = run.start_time !== null && run.start_time !== undefined && waited / (waited + ran) > WAIT_SHARE;
  const zero = names + room * share;
  const perSecond = (room * (1 - share)) / ran;
  return {
    names,
    end,
    start,
    submitted,
    ran,
    waited,
    zero,
    isBroken,
    width,
    perSecond,
    x: (time) => zero + Math.max(0, time - start) * perSecond,
  };
}

/** The times at which the axis has lines, in seconds since the start. */
export function ticks({ ran, zero, width }) {
  const steps = Math.max(1, Math.floor((width - zero) / BETWEEN_LINES));
  const step = nice(ran / steps);
  const found = [];
  for (let at = 0; at <= ran * 1.0001; at += step) found.push(at);
  return found;
}

/** The next round number: 1, 2 or 5 times a power of ten, or a round number of minutes or hours. */
export function nice(seconds) {
  if (seconds > 60) {
    const units = [120, 300, 600, 1800, 3600, 7200, 21600, 86400];
    return units.find((unit) => unit >= seconds) ?? Math.ceil(seconds / 86400) * 86400;
  }
  const power = 10 ** Math.floor(Math.log10(seconds));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= seconds);
}

/** As much of a name as fits into a width. */
export function cut(name, width) {
  // Letters of East Asian scripts are about twice as wide.
  let room = Math.floor((width - 12) / LETTER);
  let kept = "";
  for (const letter of name) {
    room -= letter.codePointAt(0) > 0x2e80 ? 2 : 1;
    if (room < 1) return `${kept}…`;
    kept += letter;
  }
  return kept;
}
