// The judge of all other tests: each way in which a test file can be worthless is a failure.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Ending, failures, judgeNative, judgeUvu, type Outcome } from "../runner/outcome.js";

const CLEAN: Ending = { output: "", exitCode: 0, signal: null, timedOut: false };

function uvu(
  total: number,
  passed: number,
  skipped: number,
  ending: Partial<Ending> = {},
): Outcome {
  const output = `${ending.output ?? ""}• •\n
  Total:     ${total}
  Passed:    ${passed}
  Skipped:   ${skipped}
  Duration:  1.00ms\n\n`;
  return judgeUvu({ ...CLEAN, exitCode: total === passed ? 0 : 1, ...ending, output });
}

function problem(pattern: RegExp, outcome: Outcome): void {
  assert.is(failures(outcome) > 0, true);
  assert.match(outcome.problem ?? "", pattern);
}

test("counts what uvu counts", () => {
  assert.equal(uvu(3, 3, 0), { passed: 3, failed: 0, skips: [], problem: null });
  assert.equal(uvu(3, 1, 0), { passed: 1, failed: 2, skips: [], problem: null });
});

test("takes the totals that were printed last", () => {
  assert.is(uvu(2, 1, 0, { output: "\n  Total:     9\n  Passed:    9\n" }).failed, 1);
});

test("a skip has a reason, whether of a test or of the file", () => {
  const one = uvu(1, 1, 1, { output: 'skip: needs fio (test "writes")\n' });
  assert.equal(one.skips, [{ reason: "needs fio", test: "writes" }]);
  assert.is(failures(one), 0);
  const file = judgeUvu({ ...CLEAN, output: "skip: needs qemu\n" });
  assert.equal(file, {
    passed: 0,
    failed: 0,
    skips: [{ reason: "needs qemu", test: null }],
    problem: null,
  });
  problem(/reasons/, uvu(1, 1, 1));
});

test("a file that ends without totals, or with none, has failed", () => {
  problem(/ended before/, judgeUvu({ ...CLEAN, output: "• • " }));
  problem(/ended before/, judgeUvu(CLEAN));
  problem(/has no tests/, uvu(0, 0, 0));
});

test("a crash or a hang is a failure, even after the totals", () => {
  problem(/SIGSEGV/, uvu(2, 2, 0, { exitCode: null, signal: "SIGSEGV" }));
  problem(/timed out/, uvu(2, 2, 0, { exitCode: null, signal: "SIGKILL", timedOut: true }));
  problem(/exit code 3/, uvu(2, 2, 0, { exitCode: 3 }));
  problem(/exit code 0/, uvu(2, 1, 0, { exitCode: 0 }));
  problem(/exit code 1/, judgeUvu({ ...CLEAN, exitCode: 1, output: "skip: needs qemu\n" }));
});

test("a C++ test says how many checks it made", () => {
  const said = (output: string, ending: Partial<Ending> = {}) =>
    judgeNative({ ...CLEAN, ...ending, output });
  assert.is(said("ring_test: 12 checks passed\n").passed, 1);
  problem(/ended before/, said("ring_test: 1"));
  problem(/no checks/, said("ring_test: 0 checks passed\n"));
  problem(/SIGABRT/, said("ring_test: 12 checks passed\n", { exitCode: null, signal: "SIGABRT" }));
  problem(/exit code 1/, said("ring_test: 1 of 12 checks failed\n", { exitCode: 1 }));
  assert.equal(said("skip: needs IPv6\n", { exitCode: 77 }).skips, [
    { reason: "needs IPv6", test: null },
  ]);
  problem(/without a reason/, said("", { exitCode: 77 }));
});

test.run();
