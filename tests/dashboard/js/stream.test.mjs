import assert from "node:assert/strict";
import { test } from "node:test";

import { load } from "./page.mjs";

const { parser } = await load("stream.js");

const TEXT =
  'retry: 2000\n\nevent: run\nid: 7\ndata: {"a": "x: y"}\n\n: a comment\n\nevent: heartbeat\ndata: {"ts": 1}\n\n';

function told(pieces) {
  const events = [];
  const parse = parser((event) => events.push(event));
  pieces.forEach(parse);
  return events;
}

test("events are whole however their text comes", () => {
  const expected = [
    { name: "run", id: "7", data: { a: "x: y" } },
    { name: "heartbeat", data: { ts: 1 } },
  ];
  assert.deepEqual(told([TEXT]), expected);
  assert.deepEqual(told([...TEXT]), expected);
  for (let at = 0; at <= TEXT.length; at += 1) {
    assert.deepEqual(told([TEXT.slice(0, at), TEXT.slice(at)]), expected, `cut at ${at}`);
  }
});

test("half an event is none", () => {
  assert.deepEqual(told(['event: run\ndata: {"a": 1}\n']), []);
});
