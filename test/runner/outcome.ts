// What a finished test process proves. A process that says nothing has proved nothing: only totals
// that it printed itself count, and an exit code that contradicts them is a failure of its own.
import { stripVTControlCharacters } from "node:util";

export interface Ending {
  output: string;
  exitCode: number | null;
  signal: string | null;
  timedOut: boolean;
}

export interface Outcome {
  passed: number;
  failed: number;
  skips: Skip[];
  /** What went wrong beyond single tests; it counts as one failure. */
  problem: string | null;
}

export interface Skip {
  reason: string;
  /** Null: the whole file. */
  test: string | null;
}

/** A C++ test exits with this after `skip: REASON` (as in Automake). */
const NATIVE_SKIP_CODE = 77;

export function failures(outcome: Outcome): number {
  return outcome.failed + (outcome.problem === null ? 0 : 1);
}

/** A uvu file: counts are its totals, skips its `skip:` lines (test/support/skip.ts). */
export function judgeUvu(ending: Ending): Outcome {
  const text = stripVTControlCharacters(ending.output);
  const skips = findSkips(text);
  const abrupt = abruptEnd(ending);
  const total = lastNumber(text, "Total");
  const passed = lastNumber(text, "Passed") ?? 0;
  const skipped = lastNumber(text, "Skipped") ?? 0;
  if (total === null) {
    const wholeFile = skips.length === 1 && skips[0]?.test === null;
    if (wholeFile && abrupt === null) return { passed: 0, failed: 0, skips, problem: null };
    return { passed: 0, failed: 0, skips, problem: abrupt ?? "ended before its tests did" };
  }
  const failed = total - passed;
  let problem: string | null = null;
  if (abrupt !== null && !(failed > 0 && ending.exitCode === 1)) problem = abrupt;
  else if (failed > 0 && ending.exitCode === 0) problem = "failed, but exit code 0 (a hook threw?)";
  else if (skipped !== skips.length) {
    problem = `skips ${skipped} tests and gives ${skips.length} reasons (test.only, test.skip?)`;
  } else if (total === 0 && skipped === 0) problem = "has no tests";
  return { passed, failed, skips, problem };
}

/** A C++ executable is one test; its last line is `NAME: N checks passed`. */
export function judgeNative(ending: Ending): Outcome {
  const skips = findSkips(ending.output);
  const bad = (problem: string): Outcome => ({ passed: 0, failed: 0, skips, problem });
  if (ending.exitCode === NATIVE_SKIP_CODE) {
    if (skips.length !== 1) return bad("skips without a reason");
    return { passed: 0, failed: 0, skips, problem: null };
  }
  const abrupt = abruptEnd(ending);
  if (abrupt !== null) return bad(abrupt);
  const checks = /^\S+: (\d+) checks passed$/m.exec(ending.output);
  if (checks === null) return bad("ended before its checks did");
  if (Number(checks[1]) === 0) return bad("has no checks");
  return { passed: 1, failed: 0, skips, problem: null };
}

function abruptEnd({ timedOut, signal, exitCode }: Ending): string | null {
  if (timedOut) return "timed out";
  if (signal !== null) return `killed by ${signal}`;
  return exitCode === 0 ? null : `exit code ${exitCode}`;
}

function findSkips(text: string): Skip[] {
  return [...text.matchAll(/^skip: (.+?)(?: \(test "(.*)"\))?$/gm)].map((match) => ({
    reason: match[1] ?? "",
    test: match[2] ?? null,
  }));
}

function lastNumber(text: string, label: string): number | null {
  const match = [...text.matchAll(new RegExp(`^ {2}${label}: +(\\d+)$`, "gm"))].at(-1);
  return match === undefined ? null : Number(match[1]);
}
