// Running one file: its totals come back, a hang ends, and what it leaves behind ends with it.
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { failures } from "../runner/outcome.js";
import { runFile } from "../runner/run-file.js";

const directory = mkdtempSync(join(tmpdir(), "files-"));

function run(script: string, timeoutMs = 20_000) {
  const path = join(directory, "file.mjs");
  writeFileSync(path, script);
  return runFile({
    name: "file",
    language: "typescript",
    root: directory,
    command: process.execPath,
    args: [path],
    timeoutMs,
    exclusive: false,
  });
}

test("a file that passes has passed, and its temporary directory is gone", async () => {
  const result = await run(`
    import { writeFileSync } from "node:fs";
    writeFileSync(process.env.TMPDIR + "/litter", "x");
    console.log("  Total:     2\\n  Passed:    2\\n  Skipped:   0\\n" + process.env.TMPDIR);
  `);
  assert.is(failures(result), 0);
  assert.is(result.passed, 2);
  assert.is(existsSync(result.output.trim().split("\n").at(-1) ?? "/"), false);
});

test("a hang is ended", async () => {
  const result = await run("setInterval(() => {}, 1000);", 500);
  assert.is(result.problem, "timed out");
  assert.ok(result.elapsedMs < 15_000);
});

test("a child left behind, holding the pipes, is ended", async () => {
  const result = await run(`
    import { spawn } from "node:child_process";
    import { writeFileSync } from "node:fs";
    const child = spawn("sleep", ["1000"], { stdio: "inherit" });
    writeFileSync(${JSON.stringify(join(directory, "pid"))}, String(child.pid));
    child.unref();
    console.log("  Total:     1\\n  Passed:    1\\n  Skipped:   0");
  `);
  assert.is(failures(result), 0);
  const pid = Number(readFileSync(join(directory, "pid"), "utf8"));
  const stat = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, "utf8") : ") Z";
  assert.match(stat, /\) [ZX]/, "the child lives on");
});

test("what cannot be started has failed", async () => {
  const result = await runFile({
    name: "absent",
    language: "native",
    root: directory,
    command: join(directory, "absent"),
    args: [],
    timeoutMs: 1000,
    exclusive: false,
  });
  assert.is(failures(result), 1);
});

test.run();
