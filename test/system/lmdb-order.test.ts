// The order of LMDB's own system calls against the engine's promises, by strace: what a promise of
// the store says is durable has been synced, and the meta page that makes it count was written
// after that, and before the promise. (The data path's writes go through io_uring, which strace
// does not see; crash/journal-order has their order, on the simulated disk.)
import { spawnSync } from "node:child_process";
import { readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { createPool } from "../../engine/core/format.js";
import { openLmdbStore } from "../../engine/store/lmdb-store.js";
import { IO_OP } from "../../native/native.js";
import { temporaryFolder } from "../support/pando.js";
import { openSamplePool } from "../support/sample-pool.js";
import { needsCommands, skip } from "../support/skip.js";

const test = suite("order of LMDB's system calls");
const TIMEOUT_MS = 180_000;
const META_PAGES_END = 2 * 4096;
const MARK_FD = 2;

/** What strace saw; a call that was interrupted by others begins and ends on lines of its own. */
interface Event {
  kind: "mark" | "data" | "meta" | "sync";
  edge: "begin" | "end";
  text: string;
}

/** Writes a line that strace shows where it happened. */
function mark(text: string): void {
  writeSync(MARK_FD, `MARK ${text}\n`);
}

/** What is traced: a checkpoint, a snapshot, and a commit alone, each between two marks. */
async function traced(path: string): Promise<void> {
  const size = 16 * 1024 * 1024;
  await createPool(path, { sizeBytes: size, journalBytes: 64 * 4096, sparse: true });
  const { pool, close } = await openSamplePool(path);
  await pool.createVolume("db", 4 * 1024 * 1024);
  await pool.hold("db");
  await pool.io("db", IO_OP.write, 0, 4096, new Uint8Array(4096).fill(7), true);
  for (const [name, work] of [
    ["checkpoint", () => pool.checkpoint()],
    ["snapshot", () => pool.createSnapshot("db", "s")],
  ] as const) {
    mark(`${name} begins`);
    await work();
    mark(`${name} ends`);
  }
  await pool.release("db");
  await close();
  const store = openLmdbStore(join(path, "meta"));
  for (let i = 0; i < 3; i++) {
    mark(`commit ${i} begins`);
    await store.transact((txn) => txn.put("reclaim", Buffer.from([i]), Buffer.alloc(3000)));
    mark(`commit ${i} ends`);
  }
  await store.close();
}

/** Calls on LMDB's file, and marks, in the order in which they began and ended. */
function eventsOf(trace: string): Event[] {
  const events: Event[] = [];
  const begun = new Map<string, Event>();
  for (const line of trace.split("\n")) {
    const [, thread = "", text = ""] = /^(\d+)\s+(.*)$/.exec(line) ?? [];
    const resumed = /^<\.\.\. \w+ resumed>/.test(text);
    const event = resumed ? begun.get(thread) : kindOf(text);
    if (event === undefined) continue;
    if (!resumed) events.push({ ...event, edge: "begin" });
    if (text.includes("<unfinished ...>")) begun.set(thread, event);
    else {
      events.push({ ...event, edge: "end" });
      begun.delete(thread);
    }
  }
  return events;
}

function kindOf(text: string): Event | undefined {
  const marked = /^write\(\d+<[^>]*>, "MARK ([^"\\]*)/.exec(text);
  if (marked !== null) return { kind: "mark", edge: "begin", text: marked[1] ?? "" };
  if (!text.includes("/meta/data.mdb>")) return undefined;
  if (/^f(data)?sync\(/.test(text)) return { kind: "sync", edge: "begin", text };
  if (!/^pwritev?(64)?\(/.test(text)) return undefined;
  const offset = Number(/, (\d+)(?:\)| <unfinished)/.exec(text)?.[1]);
  assert.ok(Number.isSafeInteger(offset), text);
  return { kind: offset < META_PAGES_END ? "meta" : "data", edge: "begin", text };
}

/** Of one operation: each commit in it is data, sync, meta, and nothing is left open. */
function commitsBetween(events: Event[], name: string): number {
  const isMark = (text: string) => (event: Event) => event.kind === "mark" && event.text === text;
  const from = events.findIndex(isMark(`${name} begins`));
  const to = events.findIndex(isMark(`${name} ends`));
  assert.ok(from >= 0 && to > from, `${name} is in the trace`);
  let unsynced = 0;
  let writing = 0;
  let commits = 0;
  for (const { kind, edge, text } of events.slice(from, to)) {
    if (kind === "data") {
      if (edge === "begin") writing++;
      else {
        writing--;
        unsynced++;
      }
    } else if (kind === "sync" && edge === "begin") {
      assert.is(writing, 0, `${name}: a sync begins while data is being written: ${text}`);
    } else if (kind === "sync") {
      unsynced = 0;
    } else if (kind === "meta" && edge === "begin") {
      assert.is(unsynced + writing, 0, `${name}: a meta page before its data is synced: ${text}`);
    } else if (kind === "meta") {
      commits++;
    }
  }
  assert.is(unsynced + writing, 0, `${name}: settled before its data is synced`);
  return commits;
}

const [role, place] = process.argv.slice(2);
if (role === "traced") {
  await traced(place as string);
} else {
  const missing = needsCommands("strace");
  if (missing !== null) skip(missing);
  const folder = temporaryFolder();
  test.after(() => folder.remove());

  test("data, sync, meta page, promise", () => {
    const output = join(folder.path, "trace");
    const calls = "trace=write,pwrite64,pwritev,fsync,fdatasync,open,openat";
    const self = fileURLToPath(import.meta.url);
    const program = [process.execPath, self, "traced", join(folder.path, "pool")];
    const args = ["-f", "-y", "-s", "40", "-e", calls, "-o", output, ...program];
    const { status, stderr } = spawnSync("strace", args, { encoding: "utf8", timeout: TIMEOUT_MS });
    assert.is(status, 0, stderr.slice(-2000));
    const trace = readFileSync(output, "utf8");
    // The meta page is written through a descriptor that syncs by itself.
    const opened = trace.split("\n").filter((line) => /open(at)?\(.*\/meta\/data\.mdb"/.test(line));
    assert.ok(
      opened.some((line) => /O_DSYNC/.test(line)),
      opened.join("\n"),
    );
    const events = eventsOf(trace);
    const meta = events.filter(({ kind }) => kind === "meta");
    assert.ok(meta.length > 0);
    const counts = ["checkpoint", "snapshot", "commit 0", "commit 1", "commit 2"].map((name) =>
      commitsBetween(events, name),
    );
    console.log(`commits in each: ${counts.join(", ")}`);
    assert.ok(counts.every((count) => count >= 1));
  });

  test.run();
}
