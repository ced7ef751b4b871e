// Runs the tests: a process per file, two at a time, the exclusive ones alone. The last line is
// always `N passed, N failed, N skipped`, and the exit code is 0 only if nothing failed.
//
// Usage: main.js [--list] [--native-build DIR] [--sanitizer NAME] [NAME…]
//        NAME: a part of a file's name; --sanitizer: the C++ tests only, as built with it
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { discover, type TestFile } from "./discover.js";
import { failures } from "./outcome.js";
import { type FileResult, killAll, runFile } from "./run-file.js";

interface AllowedSkip {
  file: string;
  reason: string;
  /** Why CI cannot have it. */
  why: string;
}

const LANES = 2;
const SLOWEST_SHOWN = 5;
const OUTPUT_LINES_SHOWN = 200;

const root = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const inCi = process.env.CI === "true";

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      list: { type: "boolean", default: false },
      "native-build": { type: "string", default: join(root, "build-tests") },
      sanitizer: { type: "string" },
    },
  });
  const build = { directory: values["native-build"], sanitizer: values.sanitizer ?? null };
  const files = discover(root, build).filter(
    ({ name }) => positionals.length === 0 || positionals.some((part) => name.includes(part)),
  );
  if (values.list) {
    for (const { name } of files) console.log(name);
    return;
  }
  if (files.length === 0) {
    console.log(`error: no test's name contains ${positionals.join(" or ")}; try --list`);
  }
  const results: FileResult[] = [];
  const started = performance.now();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      killAll();
      results.push(endedBy(signal));
      report(results, performance.now() - started);
      process.exit(1);
    });
  }
  await runAll(files, results);
  report(results, performance.now() - started);
  if (files.length === 0 || results.some((result) => failures(result) > 0)) process.exitCode = 1;
}

async function runAll(files: TestFile[], results: FileResult[]): Promise<void> {
  const work = async (queue: TestFile[]): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const result = refuseSkips(await runFile(file));
      results.push(result);
      show(result);
    }
  };
  const shared = files.filter(({ exclusive }) => !exclusive);
  await Promise.all(Array.from({ length: LANES }, () => work(shared)));
  await work(files.filter(({ exclusive }) => exclusive));
}

/** A run that was cut short has not passed, whatever its files did. */
function endedBy(signal: string): FileResult {
  const problem = `the run was ended by ${signal}`;
  return { name: problem, passed: 0, failed: 0, skips: [], problem, output: "", elapsedMs: 0 };
}

/** On CI a skip that nobody has agreed to is a failure: what is skipped for ever is not tested. */
function refuseSkips(result: FileResult): FileResult {
  if (!inCi || result.problem !== null) return result;
  const list = join(root, "test/allowed-skips.json");
  const allowed = JSON.parse(readFileSync(list, "utf8")) as AllowedSkip[];
  const refused = result.skips.find(
    ({ reason }) => !allowed.some((one) => one.file === result.name && one.reason === reason),
  );
  if (refused === undefined) return result;
  return { ...result, problem: `CI may not skip it (${refused.reason}): test/allowed-skips.json` };
}

function show(result: FileResult): void {
  const failed = failures(result);
  const { passed, skips, problem } = result;
  const verdict = failed > 0 ? "FAIL" : passed === 0 ? "skip" : "ok";
  const counts = [`${passed} passed`];
  if (failed > 0) counts.push(`${failed} failed`);
  if (skips.length > 0) counts.push(`${skips.length} skipped`);
  const seconds = (result.elapsedMs / 1000).toFixed(1).padStart(6);
  console.log(`${verdict.padEnd(4)} ${seconds} s  ${result.name}: ${counts.join(", ")}`);
  for (const skip of skips) {
    const test = skip.test === null ? "" : `${skip.test}: `;
    console.log(`     ${" ".repeat(8)}   ${test}${skip.reason}`);
  }
  if (failed === 0) return;
  if (problem !== null) console.log(`     ${problem}`);
  const lines = result.output.trimEnd().split("\n");
  if (lines.length > OUTPUT_LINES_SHOWN) console.log(`     | (${lines.length} lines, the last:)`);
  for (const line of lines.slice(-OUTPUT_LINES_SHOWN)) console.log(`     | ${line}`);
}

function report(results: FileResult[], elapsedMs: number): void {
  const slowest = [...results].sort((a, b) => b.elapsedMs - a.elapsedMs).slice(0, SLOWEST_SHOWN);
  const list = slowest.map(({ name, elapsedMs }) => `${name} ${(elapsedMs / 1000).toFixed(1)} s`);
  console.log(`\n${results.length} files in ${(elapsedMs / 1000).toFixed(0)} s`);
  console.log(`slowest: ${list.join(", ")}`);
  const bad = results.filter((result) => failures(result) > 0);
  if (bad.length > 0) console.log(`failed: ${bad.map(({ name }) => name).join(", ")}`);
  const sum = (count: (result: FileResult) => number) =>
    results.reduce((total, result) => total + count(result), 0);
  const passed = sum((result) => result.passed);
  const skipped = sum((result) => result.skips.length);
  console.log(`${passed} passed, ${sum(failures)} failed, ${skipped} skipped`);
}

if (!existsSync(join(root, "dist/test"))) throw new Error("not compiled: npm run build:ts");
await main();
