// The tour of `npm start`, twice on one folder: it does the whole main job, and goes on with it.
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { pandoCommand, runPando, temporaryFolder } from "../support/pando.js";

const tour = fileURLToPath(new URL("../../engine/cli/start.js", import.meta.url));
const folder = temporaryFolder();
const TIMEOUT_MS = 120_000;

const running = new Set<ChildProcess>();

test.after(() => {
  for (const child of running) child.kill("SIGKILL");
  folder.remove();
});

/** Until it says that it serves. */
function start(): Promise<{ child: ChildProcess; said: string }> {
  const child = spawn(process.execPath, [tour, join(folder.path, "tour")], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.add(child);
  child.once("exit", () => running.delete(child));
  let said = "";
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => child.kill("SIGKILL"), TIMEOUT_MS);
    const hear = (chunk: Buffer) => {
      said += chunk.toString();
      if (!said.includes("Serving until Ctrl-C")) return;
      clearTimeout(timer);
      resolve({ child, said });
    };
    child.stdout?.on("data", hear);
    child.stderr?.on("data", hear);
    child.once("exit", (code) => reject(new Error(`it ended with ${code}:\n${said}`)));
  });
}

function interrupt(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => {
    child.once("exit", resolve);
    child.kill("SIGINT");
  });
}

/** What both rounds have to show. */
async function check(said: string): Promise<void> {
  assert.match(said, /block 0 of db {8}reads "one root system"\n/);
  assert.match(said, /block 0 of db-branch reads "many trunks"\n/);
  assert.match(said, /\nNAME +SIZE +OWN +SHARED +PARENT +SERVED\ndb +1 GiB +0 +64 MiB /);
  assert.match(said, /\n├ db@first .*\n|\n└ db@first .*\n/);
  assert.match(said, / {2}└ db-branch +1 GiB +4 KiB +63\.9 MiB +db@first /);
  assert.match(said, /nvme connect -t tcp -a 127\.0\.0\.1 -s \d+ -n nqn\.\S+ --hostnqn=nqn\.\S+\n/);
  const socket = /PANDO_SOCKET=(\S+)/.exec(said)?.[1] ?? "";
  const list = await runPando(pandoCommand("real"), ["volume", "list", "--socket", socket]);
  assert.is(list.code, 0, list.stderr);
}

test("the first time: everything is made, timed and shown", async () => {
  const { child, said } = await start();
  await check(said);
  for (const step of ["make a pool", "open the pool", "snapshot db@first", "clone it as"]) {
    assert.match(said, new RegExp(`${step}.*: \\d+\\.\\d ms`));
  }
  assert.is(await interrupt(child), 0);
});

test("again: it goes on with the same pool", async () => {
  const { child, said } = await start();
  await check(said);
  assert.match(said, /db is there already: going on with it/);
  assert.not.match(said, /make a pool|make the volume|clone it as/);
  assert.is(await interrupt(child), 0);
});

test.run();
