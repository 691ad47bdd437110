import assert from "node:assert/strict";
import { test } from "node:test";

import { holdClock, load } from "./page.mjs";

const { cut, measure, nice, rows, ticks } = await load("timeline_scale.js");

const ENDED = { submitted_at: 100, start_time: 101, end_time: 111 };

test("tasks stand in the order in which they began, those that have not at the end", () => {
  const run = {
    tasks: { late: "RUNNING", never: "PENDING", first: "SUCCEEDED" },
    task_records: { late: { started_at: 5 }, first: { started_at: 1, ended_at: 4 } },
  };
  assert.deepEqual(rows(run), [
    { name: "first", state: "SUCCEEDED", from: 1, to: 4 },
    { name: "late", state: "RUNNING", from: 5, to: null },
    { name: "never", state: "PENDING", from: null, to: null },
  ]);
  assert.deepEqual(rows({}), []);
});

test("wait and run share the width by their length", () => {
  const scale = measure(ENDED, 1000);
  assert.deepEqual([scale.names, scale.waited, scale.ran, scale.isBroken], [190, 1, 10, false]);
  const room = 1000 - 190 - 8;
  assert.ok(Math.abs(scale.zero - (190 + room / 11)) < 1e-9);
  assert.equal(scale.x(101), scale.zero);
  assert.ok(Math.abs(scale.x(111) - 992) < 1e-9);
  // Nothing stands before the start, whatever a worker's clock says.
  assert.equal(scale.x(50), scale.zero);
});

test("a long wait is drawn shorter, with a break", () => {
  const scale = measure({ ...ENDED, submitted_at: 1 }, 1000);
  assert.equal(scale.isBroken, true);
  assert.equal(scale.zero, 190 + (1000 - 198) * 0.2);
});

test("a run that goes on ends now, and one that has not begun is all wait", (t) => {
  holdClock(t.mock, 121);
  const goesOn = measure({ submitted_at: 100, start_time: 101 }, 1000);
  assert.deepEqual([goesOn.end, goesOn.ran], [121, 20]);
  const waits = measure({ submitted_at: 100 }, 1000);
  assert.deepEqual([waits.waited, waits.zero, waits.perSecond, waits.isBroken], [21, 992, 0, false]);
});

test("odd times give no odd widths", () => {
  // Submitted after its start, and over in no time.
  const scale = measure({ submitted_at: 200, start_time: 101, end_time: 101 }, 300);
  assert.deepEqual([scale.waited, scale.names], [0, 90]);
  assert.ok(scale.ran > 0 && Number.isFinite(scale.perSecond));
});

test("lines of the axis stand at round numbers and not too close", () => {
  for (const [seconds, step] of [
    [0.03, 0.05],
    [0.5, 0.5],
    [1, 1],
    [1.1, 2],
    [6, 10],
    [59, 100],
    [61, 120],
    [301, 600],
    [50000, 86400],
    [86401, 172800],
  ]) {
    assert.ok(Math.abs(nice(seconds) - step) < 1e-9, `${seconds}: ${nice(seconds)}`);
  }
  assert.deepEqual(ticks({ ran: 10, zero: 200, width: 1000 }), [0, 2, 4, 6, 8, 10]);
  assert.deepEqual(ticks({ ran: 10, zero: 950, width: 1000 }), [0, 10]);
});

test("a name is cut where its letters end to fit", () => {
  assert.equal(cut("short", 190), "short");
  assert.equal(cut("x".repeat(40), 90), `${"x".repeat(10)}…`);
  // Letters of East Asian scripts count twice.
  assert.equal(cut("日本語日本語", 90), "日本語日本…");
});
