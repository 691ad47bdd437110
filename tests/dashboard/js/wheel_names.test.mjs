import assert from "node:assert/strict";
import { test } from "node:test";

import { load } from "./page.mjs";

const { LISTED, parts, sorted, uses } = await load("wheel_names.js");

test("a file name is taken apart", () => {
  assert.deepEqual(parts("My_Tasks-1.0_1-py3-none-any.whl"), {
    package: "my-tasks",
    version: "1.0-1",
    build: "",
    fits: "py3-none-any",
  });
  assert.deepEqual(parts("a-1-2b-cp311-cp311-linux_x86_64.whl"), {
    package: "a",
    version: "1",
    build: "2b",
    fits: "cp311-cp311-linux_x86_64",
  });
  for (const name of ["notes.txt", "a-1.whl", "a-1-b-c-d-e-f.whl", ""]) {
    assert.deepEqual(parts(name), { package: name, version: "", build: "", fits: "" });
  }
});

test("the newest upload of a package comes first and is marked", () => {
  const wheel = (name, modified) => ({ name: `${name}-py3-none-any.whl`, modified });
  const list = sorted([wheel("b-1", 5), wheel("a-1", 1), wheel("A-2", 3)]);
  assert.deepEqual(
    list.map((one) => [one.package, one.version, one.isNewest]),
    [
      ["a", "2", true],
      ["a", "1", false],
      ["b", "1", true],
    ],
  );
});

test("who uses a wheel, who cannot, and who is meant to", () => {
  const wheel = { name: "a-1-py3-none-any.whl", nuid: "n", tags: ["gpu"] };
  const has = (nuid) => ({ enabled: true, installed_wheels: [{ wheel_name: wheel.name, nuid }] });
  const skips = { enabled: true, skipped_incompatible: [{ wheel_name: wheel.name, reason: "unfit" }] };
  const many = Array.from({ length: LISTED }, (_, n) => ({ wheel_name: `other-${n}` }));
  const base = { state: "IDLE", tags: ["gpu"] };
  const worker = (worker_id, wheel_sync, more = {}) => ({ ...base, worker_id, wheel_sync, ...more });
  const workers = [
    worker("w2", has("n")),
    worker("w1", has(undefined)),
    worker("other-upload", has("m")),
    worker("unfit", skips),
    worker("gone", has("n"), { state: "DISCONNECTED" }),
    worker("off", { ...has("n"), enabled: false }),
    worker("elsewhere", { enabled: true }, { tags: ["cpu"] }),
  ];
  const found = uses(wheel, workers);
  assert.deepEqual(found, {
    by: ["w1", "w2"],
    skipped: [{ worker: "unfit", reason: "unfit" }],
    meant: 4,
    atLeast: false,
  });
  assert.equal(uses({ ...wheel, tags: [] }, workers).meant, 5, "a wheel without tags is for all");
  assert.ok(uses(wheel, [worker("full", { enabled: true, installed_wheels: many })]).atLeast);
});
