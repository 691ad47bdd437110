import assert from "node:assert/strict";
import { test } from "node:test";

import "./page.mjs";
import { load } from "./page.mjs";

const { MINUTES, perMinute, roundUp, size } = await load("chart_bars.js");

test("ends are counted in the minute of the clock in which they were", () => {
  const last = 1000;
  const ends = new Map([
    ["now", { status: "COMPLETED", at: last * 60 + 1 }],
    ["also now", { status: "FAILED", at: last * 60 + 59.9 }],
    ["before", { status: "CANCELLED", at: last * 60 - 0.1 }],
    ["oldest", { status: "COMPLETED", at: (last - MINUTES + 1) * 60 }],
    ["too old", { status: "COMPLETED", at: (last - MINUTES + 1) * 60 - 0.1 }],
    // The clock of its worker is ahead of ours: its minute comes.
    ["to come", { status: "COMPLETED", at: (last + 1) * 60 }],
  ]);
  const bars = perMinute(ends, last);
  assert.equal(bars.length, MINUTES);
  assert.deepEqual(bars.at(-1), { COMPLETED: 1, FAILED: 1, CANCELLED: 0 });
  assert.deepEqual(bars.at(-2), { COMPLETED: 0, FAILED: 0, CANCELLED: 1 });
  assert.deepEqual(bars[0], { COMPLETED: 1, FAILED: 0, CANCELLED: 0 });
  assert.equal(bars.reduce((sum, bar) => sum + size(bar), 0), 4);
  assert.deepEqual([...ends.keys()], ["now", "also now", "before", "oldest", "to come"]);
  // A minute later it is counted.
  assert.equal(perMinute(ends, last + 1).at(-1).COMPLETED, 1);
});

test("the axis ends at a round number", () => {
  assert.deepEqual([1, 2, 3, 5, 6, 10, 11, 20, 21, 51, 101].map(roundUp), [1, 2, 5, 5, 10, 10, 20, 20, 50, 100, 200]);
});
