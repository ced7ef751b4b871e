// The simulator's own tools: what leaves operations out, what counts faults, what makes a failing
// run shorter.
import { fork } from "node:child_process";
import { once } from "node:events";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { FaultDice, NO_FAULTS } from "../sim/faults.js";
import { formatRanges, parseRanges } from "../sim/ranges.js";
import { Reached } from "../sim/reached.js";
import { Run } from "../sim/run.js";
import { type Masks, shrink } from "../sim/shrink.js";
import type { Job } from "../sim/worker.js";

const test = suite("simulator");

test("ranges are written as they are read", () => {
  assert.equal([...parseRanges("0-3,7,9-10")], [0, 1, 2, 3, 7, 9, 10]);
  assert.is(formatRanges([10, 0, 1, 2, 3, 9, 7]), "0-3,7,9-10");
  assert.equal([...parseRanges("")], []);
  assert.is(formatRanges([]), "");
  for (const text of ["a", "3-", "5-2", "1,-2"]) assert.throws(() => parseRanges(text), text);
});

test("a fault that is left out leaves the later ones where they were", () => {
  const roll = (skipped: number[]): boolean[] => {
    const dice = new FaultDice(7, { ...NO_FAULTS, kill: 5 }, new Set(skipped));
    return Array.from({ length: 200 }, () => dice.roll("kill"));
  };
  const all = roll([]);
  const some = roll([1, 2]);
  const at = all.flatMap((injected, index) => (injected ? [index] : []));
  assert.ok(at.length > 10);
  assert.equal(
    some.flatMap((injected, index) => (injected ? [index] : [])),
    at.filter((_, number) => number !== 1 && number !== 2),
  );
});

test("a worker ends with its parent", async () => {
  const worker = new URL("../sim/worker.js", import.meta.url).pathname;
  const job: Job = { first: 1, stride: 1, seeds: 1000 };
  const child = fork(worker, [JSON.stringify(job)], { stdio: "ignore" });
  await once(child, "message");
  child.disconnect();
  assert.equal(await once(child, "exit"), [0, null]);
});

test("after healing there are no faults", () => {
  const dice = new FaultDice(1, { ...NO_FAULTS, kill: 1 });
  assert.ok(dice.roll("kill"));
  dice.heal();
  assert.not.ok(dice.roll("kill"));
});

test("a failing run is made as short as what it takes", async () => {
  const needed = { operations: [3, 40, 41], faults: [2] };
  const holds = (masks: Masks): boolean =>
    needed.operations.every((number) => !masks.operations.has(number)) &&
    needed.faults.every((number) => !masks.faults.has(number));
  const { skipped, attempts } = await shrink({
    sizes: { operations: 100, faults: 9 },
    fails: async (masks) => holds(masks),
    endMs: Number.POSITIVE_INFINITY,
  });
  assert.is(formatRanges(skipped.operations), "0-2,4-39,42-99");
  assert.is(formatRanges(skipped.faults), "0-1,3-8");
  assert.ok(attempts < 120, `${attempts} attempts`);
});

test("a run without most of its operations and faults is a run, and the same each time", async () => {
  const logOf = async (): Promise<string[]> => {
    const lines: string[] = [];
    const run = new Run(
      {
        seed: 2,
        operations: 60,
        skippedOperations: parseRanges("3-30"),
        skippedFaults: parseRanges("0-4"),
        tell: (line) => lines.push(line),
      },
      new Reached(),
    );
    await run.run();
    assert.is(run.summary.operations, 60 - 28);
    return lines;
  };
  const lines = await logOf();
  assert.match(lines.at(-1) ?? "", /^\d+ steps, digest [0-9a-f]{8}$/);
  assert.not.ok(lines.some((line) => /^fault [0-4]:/.test(line)));
  assert.equal(await logOf(), lines);
});

test("what is tried leaves a run as it is", async () => {
  const logOf = async (trialCuts: number): Promise<string[]> => {
    const lines: string[] = [];
    const run = new Run(
      { seed: 3, operations: 60, trialCuts, tell: (line) => lines.push(line) },
      new Reached(),
    );
    await run.run();
    assert.is(run.summary.trialCuts > 0, trialCuts > 0);
    return lines.filter((line) => !line.startsWith("power cut on trial"));
  };
  assert.equal(await logOf(4), await logOf(0));
});

test.run();
