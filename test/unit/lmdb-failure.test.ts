// A system call of LMDB's fails in the middle of its life, each in its turn. A commit that did not
// become durable says so, one that did is there when the store is opened again, and nobody waits
// for ever: not who asked, not those behind it, not who closes. After a meta page that could not be
// written LMDB refuses everything, reads too: that is a store that has failed, not one that is
// damaged.
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isPandoError } from "../../engine/base/errors.js";
import { openEnvironment } from "../../engine/store/lmdb-environment.js";
import { LmdbReader, openLmdbStore } from "../../engine/store/lmdb-store.js";
import { callsIn, failingCalls, hasFailed } from "../support/fail-call.js";
import { temporaryFolder } from "../support/pando.js";
import { needsCommands, skip } from "../support/skip.js";

const test = suite("a call of LMDB's fails");
const PATIENCE_MS = 5_000;
const ONE_BY_ONE = 2;
const AT_ONCE = 3;

type Outcome = "done" | "hangs" | { code: string; message: string };

const keyOf = (number: number): Buffer => Buffer.from([number]);
const contentOf = (number: number): Buffer => Buffer.alloc(5000, number);

/** What this process does while a call fails: each key's outcome, of its writing and reading. */
async function scenario(path: string): Promise<Record<string, Outcome>> {
  const outcomes: Record<string, Outcome> = {};
  const tell = async (name: string, work: () => Promise<unknown>): Promise<void> => {
    outcomes[name] = await outcomeOf(work());
  };
  const store = openLmdbStore(path);
  const worker = new LmdbReader(openEnvironment(path)); // as the index worker has it
  const write = (number: number) => (): Promise<unknown> =>
    store.transact((txn) => txn.put("index", keyOf(number), contentOf(number)));
  for (let number = 0; number < ONE_BY_ONE; number++) {
    await tell(`write ${number}`, write(number));
    await tell(`read ${number}`, async () => store.get("index", keyOf(number)));
  }
  const more: Promise<void>[] = [];
  for (let number = ONE_BY_ONE; number < ONE_BY_ONE + AT_ONCE; number++) {
    more.push(tell(`write ${number}`, write(number)));
    // The commit of those before has begun: this one waits behind it.
    await new Promise((resolve) => setImmediate(resolve));
  }
  await Promise.all(more);
  await tell("write 9", write(9));
  await tell("the worker's read", async () => {
    worker.refresh();
    worker.get("index", keyOf(9));
  });
  await tell("close", () => store.close());
  return outcomes;
}

async function outcomeOf(work: Promise<unknown>): Promise<Outcome> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Outcome>((resolve) => {
    timer = setTimeout(() => resolve("hangs"), PATIENCE_MS);
  });
  const settled = work.then(
    (): Outcome => "done",
    (error: unknown): Outcome => ({
      code: isPandoError(error) ? error.code : "none",
      message: String(error),
    }),
  );
  const outcome = await Promise.race([settled, late]);
  clearTimeout(timer);
  return outcome;
}

function requireRight(call: string, path: string, outcomes: Record<string, Outcome>): void {
  for (const [what, outcome] of Object.entries(outcomes)) {
    if (outcome === "done") continue;
    assert.is.not(outcome, "hangs", `${call}: ${what} hangs`);
    if (outcome === "hangs") continue;
    assert.ok(/^(EIO|ENOSPC)$/.test(outcome.code), `${call}: ${what}: ${outcome.message}`);
  }
  assert.is(outcomes.close, "done", `${call}: it closes`);
  const store = openLmdbStore(path);
  for (const [what, outcome] of Object.entries(outcomes)) {
    const [, number] = /^write (\d)$/.exec(what) ?? [];
    if (number === undefined || outcome !== "done") continue;
    const found = store.get("index", keyOf(Number(number)));
    assert.equal(found, contentOf(Number(number)), `${call}: ${what} is there`);
  }
  void store.close();
}

const [role, place] = process.argv.slice(2);
if (role === "scenario") {
  console.log(JSON.stringify(await scenario(place as string)));
  process.exit(0);
}
const missing = needsCommands("c++");
if (missing !== null) skip(missing);
const folder = temporaryFolder();
test.after(() => folder.remove());
const fail = failingCalls(folder.path);

async function run(call: string): Promise<{ calls: Map<string, number>; failed: boolean }> {
  const path = join(folder.path, call);
  mkdirSync(path);
  await openLmdbStore(path, { create: true }).close();
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    [fileURLToPath(import.meta.url), "scenario", path],
    { encoding: "utf8", env: { ...process.env, ...fail(call) } },
  );
  assert.equal({ status, signal }, { status: 0, signal: null }, `${call}: ${stderr}`);
  requireRight(call, path, JSON.parse(stdout) as Record<string, Outcome>);
  return { calls: callsIn(stderr), failed: hasFailed(stderr) };
}

/** A write fails by EIO and ENOSPC in turns. */
for (const [kind, errnos] of [
  ["store-write", [5, 28]],
  ["store-sync", [5]],
] as const) {
  test(`the n-th ${kind} fails`, async () => {
    const { calls } = await run(`${kind}:0`);
    const count = calls.get(kind) ?? 0;
    assert.ok(count >= ONE_BY_ONE, `${count} calls`);
    for (let number = 1; number <= count; number++) {
      const { failed } = await run(`${kind}:${number}:${errnos[number % errnos.length]}`);
      // Commits that wait together may become one.
      assert.ok(failed || number > ONE_BY_ONE, `call ${number} is made`);
    }
    console.log(`${kind}: ${count} calls, each failed in its turn`);
  });
}

test.run();
