import assert from "node:assert/strict";
import { test } from "node:test";

import { holdClock, load } from "./page.mjs";

const { ago, isTime, moment, number, size, span } = await load("format.js");

test("a span has at most two units, and the smaller one is rounded", () => {
  for (const [seconds, text] of [
    [-5, "0 ms"],
    [0, "0 ms"],
    [0.0001, "<1 ms"],
    [0.0015, "2 ms"],
    [0.9994, "999 ms"],
    // Not "1,000 ms".
    [0.9996, "1 s"],
    [9.94, "9.9 s"],
    [12.6, "13 s"],
    [59.4, "59 s"],
    [60, "1 min 0 s"],
    [3599, "59 min 59 s"],
    [3599.6, "1 h 0 min"],
    [86399, "23 h 59 min"],
    [86400, "1 d 0 h"],
    [90000 * 10, "10 d 10 h"],
  ]) {
    assert.equal(span(seconds), text, String(seconds));
  }
});

test("a size changes its unit at powers of 1024", () => {
  assert.deepEqual([0, 1023, 1024, 1536, 1048575, 1048576].map(size), [
    "0 B",
    "1,023 B",
    "1 KiB",
    "1.5 KiB",
    "1,024 KiB",
    "1 MiB",
  ]);
});

test("what is past is told in the largest unit", (t) => {
  holdClock(t.mock, 1_000_000);
  for (const [seconds, text] of [
    [0, "now"],
    // A clock that is ahead of ours.
    [-5, "now"],
    [1, "1 sec ago"],
    [59.9, "59 sec ago"],
    [60, "1 min ago"],
    [3600, "1 hr ago"],
    [2 * 86400, "2 days ago"],
  ]) {
    // Versions of node differ in the dot.
    assert.equal(ago(1_000_000 - seconds).replace(".", ""), text, String(seconds));
  }
});

test("what is no time is shown as such", () => {
  for (const value of [null, undefined, "5", NaN, Infinity, 1e13, -1e13]) {
    assert.equal(isTime(value), false, String(value));
    assert.equal(moment(value), "–");
  }
  assert.ok(isTime(0) && isTime(-1) && isTime(8.64e12));
});

test("numbers and dates are those of the visitor's own English", () => {
  assert.equal(number(1234567.89), "1,234,567.9");
  // The day comes first, as in Britain.
  assert.match(moment(86400 * 60), /^[12] Mar 1970, /);
});
