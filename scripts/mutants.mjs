// Seeded bugs. Each entry of test/mutants/*.json puts one known bug into a copy of the tree and
// names the test that must then fail. A mutant that survives means that the test has stopped
// testing.
//
//   npm run mutants -- [--only NAME]… [--minutes N] [--list] [--check] [--no-setup]
//
//   --only   those whose name contains NAME
//   --minutes  those that are not begun by then are skipped, and counted
//   --check  only whether each entry still fits the sources; builds and runs nothing
//
// Those in by-hand.json name tests that take minutes: each is run only by its whole name.
//
// Bugs in TypeScript and bugs in C++ are two lanes, each a process with a copy of the tree of its
// own. The copies stay in build-mutants/, built, so that the next run compiles only what differs.
import { fork, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { buildAddon, buildTests, testsDirectory } from "./build-native.mjs";
import { setup } from "./setup.mjs";

const KEYS = ["name", "trap", "file", "find", "replace", "test", "why"];
const MIN_TIMEOUT_MS = 30_000;
/** A mutant may make its test slower; beyond this times the clean run it hangs. */
const TIMEOUT_FACTOR = 5;
const BY_HAND = "by-hand.json";
const NOT_COPIED = /^(node_modules|dist|build.*|\.git|\.pando|test-output)$/;

const root = dirname(dirname(fileURLToPath(import.meta.url)));
/** Lane → which mutants are its own. */
const LANES = new Map([
  ["cpp", ({ file }) => !file.endsWith(".ts")],
  ["ts", ({ file }) => file.endsWith(".ts")],
]);
/** This process' copy of the tree, if it is a lane. */
let tree;

async function main() {
  const { values } = parseArgs({
    options: {
      only: { type: "string", multiple: true, default: [] },
      list: { type: "boolean", default: false },
      minutes: { type: "string", default: "600" },
      check: { type: "boolean", default: false },
      "no-setup": { type: "boolean", default: false },
      lane: { type: "string" }, // by this script only: be that lane
    },
  });
  const all = readMutants();
  const isNamed = ({ name, byHand }) =>
    values.only.some((part) => (byHand ? name === part : name.includes(part)));
  const looksOnly = values.list || values.check;
  const mutants = all.filter((mutant) =>
    values.only.length > 0 ? isNamed(mutant) : looksOnly || !mutant.byHand,
  );
  if (values.lane !== undefined) {
    tree = join(root, "build-mutants", values.lane);
    const own = mutants.filter(LANES.get(values.lane));
    process.send(await runAll(own, Number(values.minutes) * 60_000));
    return;
  }
  if (values.list) {
    for (const { name, test, why } of mutants) console.log(`${name}  (${test}): ${why}`);
    return;
  }
  if (mutants.length === 0) throw new Error(`no mutant is called ${values.only.join(" or ")}`);
  const misfits = mutants.flatMap(misfit);
  for (const text of misfits) console.log(text);
  if (values.check || misfits.length > 0) {
    report({ passed: mutants.length - misfits.length, failed: misfits.length, skipped: 0 });
    return;
  }
  if (!values["no-setup"]) setup({ tests: true });
  const lanes = [...LANES.keys()].filter((lane) => mutants.some(LANES.get(lane)));
  const results = await Promise.all(lanes.map(runLane));
  console.log("");
  printTable(results.flatMap(({ rows }) => rows));
  const sum = (verdict) => results.reduce((total, { counts }) => total + counts[verdict], 0);
  report({ passed: sum("passed"), failed: sum("failed"), skipped: sum("skipped") });
}

/** What its process sends; a lane that dies is one failure more. */
async function runLane(lane) {
  const child = fork(process.argv[1], [...process.argv.slice(2), "--lane", lane]);
  let result = null;
  child.on("message", (message) => {
    result = message;
  });
  const [code, signal] = await once(child, "exit");
  if (result !== null && code === 0) return result;
  console.log(`the lane ${lane} ended with ${signal ?? `exit code ${code}`}`);
  return { counts: { passed: 0, failed: 1, skipped: 0 }, rows: result?.rows ?? [] };
}

/** Each entry, with `find` and `replace` as text: in the file they may be lists of lines. */
function readMutants() {
  const directory = join(root, "test/mutants");
  const entries = readdirSync(directory)
    .sort()
    .flatMap((file) =>
      JSON.parse(readFileSync(join(directory, file), "utf8")).map((entry) => ({ file, entry })),
    );
  const text = (value) => (Array.isArray(value) ? value.join("\n") : value);
  return entries.map(({ file, entry }) => ({
    ...entry,
    byHand: file === BY_HAND,
    find: text(entry.find),
    replace: text(entry.replace),
    keys: Object.keys(entry).sort().join(),
    isNamesake: entries.filter((other) => other.entry.name === entry.name).length > 1,
  }));
}

/** What keeps a mutant from being applied: a list of at most one sentence. */
function misfit({ name, file, find, replace, test, keys, isNamesake, byHand }) {
  const say = (text) => [`${name}: ${text}`];
  if (keys !== [...KEYS].sort().join()) return say(`its keys are ${keys}, not ${KEYS.join()}`);
  if (isNamesake) return say("there is another mutant of this name");
  if (find === replace) return say("changes nothing");
  if (!existsSync(join(root, file))) return say(`no such file: ${file}`);
  const count = readFileSync(join(root, file), "utf8").split(find).length - 1;
  if (count !== 1) return say(`what it looks for is in ${file} ${count} times, not once`);
  const sources = isNative(test)
    ? [`native/test/${executable(test)}.cc`]
    : [`test/${test}.test.ts`, ...(byHand ? [`test/${test}.ts`] : [])];
  if (sources.some((source) => existsSync(join(root, source)))) return [];
  return say(`no such test: ${test}`);
}

async function runAll(mutants, limitMs) {
  const begin = performance.now();
  copyTree();
  const tests = await prepareTests(mutants);
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const rows = [];
  for (const mutant of mutants) {
    const started = performance.now();
    const { verdict, detail } =
      started - begin > limitMs
        ? { verdict: "skipped", detail: "no time is left" }
        : await runMutant(mutant, tests.get(mutant.test));
    counts[verdict] += 1;
    const word = { passed: "killed", failed: "SURVIVED", skipped: "skipped" }[verdict];
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    rows.push([
      word,
      mutant.name,
      `trap ${mutant.trap ?? "-"}`,
      mutant.test,
      detail,
      `${seconds} s`,
    ]);
    console.log(`${word.padEnd(8)} ${seconds.padStart(6)} s  ${mutant.name}: ${detail}`);
  }
  return { counts, rows };
}

/** Builds the clean tree and runs every named test in it: only one that passes can convict. */
async function prepareTests(mutants) {
  const { discover, typescriptTest } = await import(join(root, "dist/test/runner/discover.js"));
  const build = { directory: testsDirectory({ tree }), sanitizer: null };
  const known = new Map(discover(tree, build).map((file) => [file.name, file]));
  const names = [...new Set(mutants.map(({ test }) => test))].sort();
  const targets = names.filter(isNative).map(executable);
  if (targets.length > 0) buildTests({ tree, targets });
  if (names.some((name) => !isNative(name))) {
    buildAddon({ tree });
    compile();
  }
  const tests = new Map();
  for (const name of names) {
    const file = known.get(name) ?? typescriptTest(tree, `${name}.ts`);
    const { failed, skip, elapsedMs, result } = await runTest(file);
    if (failed) console.log(`${result.output}\n${name} fails without any mutant`);
    const timeoutMs = Math.max(MIN_TIMEOUT_MS, elapsedMs * TIMEOUT_FACTOR);
    tests.set(name, { file: { ...file, timeoutMs }, broken: failed, skip });
  }
  return tests;
}

async function runMutant(mutant, { file, broken, skip }) {
  if (broken) return { verdict: "failed", detail: "its test fails without it" };
  if (skip !== null) return { verdict: "skipped", detail: skip };
  const path = join(tree, mutant.file);
  const original = readFileSync(path, "utf8");
  writeFileSync(
    path,
    original.replace(mutant.find, () => mutant.replace),
  );
  try {
    buildFor(mutant);
    const { failed, detail } = await runTest(file);
    return { verdict: failed ? "passed" : "failed", detail };
  } catch (error) {
    if (error.output === undefined) throw error;
    console.log(error.output);
    return { verdict: "failed", detail: "does not build" };
  } finally {
    writeFileSync(path, original); // compiled with the next one
  }
}

let addonIsMutant = false;

/** Builds what the mutant's test runs, and nothing of an earlier mutant in it. */
function buildFor(mutant) {
  if (isNative(mutant.test)) return buildTests({ tree, targets: [executable(mutant.test)] });
  const isAddon = !mutant.file.endsWith(".ts");
  if (isAddon) addonIsMutant = true;
  if (addonIsMutant) buildAddon({ tree });
  addonIsMutant = isAddon;
  if (!isAddon) compile();
}

async function runTest(file) {
  const { runFile } = await import(join(root, "dist/test/runner/run-file.js"));
  const { failures } = await import(join(root, "dist/test/runner/outcome.js"));
  const result = await runFile(file);
  const failed = failures(result) > 0;
  const skip = !failed && result.passed === 0 ? (result.skips[0]?.reason ?? "skipped") : null;
  const detail = failed ? (result.problem ?? `${result.failed} tests fail`) : "its test passes";
  return { failed, skip, detail, elapsedMs: result.elapsedMs, result };
}

function compile() {
  const compiler = join(root, "node_modules/typescript/bin/tsc");
  // A mutant may well leave something unused.
  const args = ["--noUnusedLocals", "false", "--noUnusedParameters", "false"];
  const result = spawnSync(process.execPath, [compiler, "-p", tree, ...args], { encoding: "utf8" });
  if (result.status === 0) return;
  throw Object.assign(new Error("the TypeScript does not compile"), { output: result.stdout });
}

/** Makes the copy equal to the tree. Writes only what differs, so that little is built again. */
function copyTree() {
  mkdirSync(tree, { recursive: true });
  const link = join(tree, "node_modules");
  rmSync(link, { force: true });
  symlinkSync(join(root, "node_modules"), link);
  copyFolder(root, tree);
}

function copyFolder(from, to) {
  mkdirSync(to, { recursive: true });
  const wanted = readdirSync(from, { withFileTypes: true }).filter(
    (entry) => !NOT_COPIED.test(entry.name) && (entry.isFile() || entry.isDirectory()),
  );
  const names = new Set(wanted.map(({ name }) => name));
  for (const name of readdirSync(to)) {
    if (!names.has(name) && !NOT_COPIED.test(name)) rmSync(join(to, name), { recursive: true });
  }
  for (const entry of wanted) {
    const source = join(from, entry.name);
    const target = join(to, entry.name);
    if (entry.isDirectory()) {
      copyFolder(source, target);
      continue;
    }
    const content = readFileSync(source);
    if (!existsSync(target) || !readFileSync(target).equals(content)) {
      writeFileSync(target, content);
    }
  }
}

function isNative(test) {
  return test.startsWith("native/");
}

function executable(test) {
  return test.slice("native/".length);
}

function printTable(rows) {
  if (rows.length === 0) return;
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  for (const row of rows) {
    console.log(
      row
        .map((cell, column) => cell.padEnd(widths[column]))
        .join("  ")
        .trimEnd(),
    );
  }
}

function report({ passed, failed, skipped }) {
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  process.exitCode = failed === 0 ? 0 : 1;
}

try {
  await main();
} catch (error) {
  console.log(`${error.output ?? ""}\nerror: ${error.message}`);
  report({ passed: 0, failed: 1, skipped: 0 });
}
