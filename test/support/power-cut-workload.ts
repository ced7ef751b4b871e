// The workload of system/power-cuts, inside the guest: a pool on devices whose writes are logged.
// After each step everything is flushed, and a mark is set in the log: whatever state of the
// devices has that mark must have that step. What each step does is told first, a line of JSON
// each.
//
//   node dist/test/support/power-cut-workload.js DEVICE META LOG STEPS SEED
import { spawnSync } from "node:child_process";
import { assert } from "../../engine/base/assert.js";
import { SECTOR_BYTES } from "../../engine/base/constants.js";
import { makeLog } from "../../engine/base/log.js";
import { createPool } from "../../engine/core/format.js";
import type { Pool } from "../../engine/core/pool.js";
import { openRealPool } from "../../engine/open-pool.js";
import { IO_OP } from "../../native/native.js";
import { type Random, seeded } from "../prng.js";
import { sectorsOf } from "./version-book.js";

export interface CutStep {
  step: number;
  /** [volume, first sector, sectors, version] */
  writes: [string, number, number, number][];
  snapshot: [string, string] | null;
  remove: [string, string] | null;
  checkpoint: boolean;
}

export const CUT_VOLUMES = ["a", "b"];
export const CUT_SECTORS = 1040;
const JOURNAL_BLOCKS = 64;
const LONGEST_WRITE = 8;
/** Few, so that blocks are overwritten and freed. */
const PLACES = [0, 40, 300, 504, 520, 1000, 1020];

function plan(step: number, dice: Random, snapshots: [string, string][]): CutStep {
  // At different places, so that the order in which they come makes no difference.
  const writes = PLACES.filter(() => dice.oneIn(2)).map((place, at): CutStep["writes"][0] => {
    const sector = place + dice.below(LONGEST_WRITE);
    const count = Math.min(1 + dice.below(LONGEST_WRITE), CUT_SECTORS - sector);
    return [dice.pick(CUT_VOLUMES), sector, count, step * 100 + at + 1];
  });
  const snapshot: [string, string] | null =
    step % 4 === 2 ? [dice.pick(CUT_VOLUMES), `s${step}`] : null;
  const remove = step % 7 === 6 ? (snapshots.shift() ?? null) : null;
  return { step, writes, snapshot, remove, checkpoint: step % 5 === 4 };
}

async function run(pool: Pool, { writes, snapshot, remove, checkpoint }: CutStep): Promise<void> {
  // One volume after the other, so that the last flush has records of its own: nothing after it
  // makes them durable in its place.
  for (const volume of CUT_VOLUMES) {
    const own = writes.filter(([name]) => name === volume);
    const done = own.map(async ([name, sector, count, version]) => {
      const data = sectorsOf(sector, count, version);
      const { status } = await pool.io(name, IO_OP.write, sector * SECTOR_BYTES, data.length, data);
      assert(status === "ok", `a write ends with ${status}`);
    });
    await Promise.all(done);
    const { status } = await pool.io(volume, IO_OP.flush, 0, 0);
    assert(status === "ok", `a flush ends with ${status}`);
  }
  if (snapshot !== null) await pool.createSnapshot(...snapshot);
  if (remove !== null) await pool.deleteSnapshot(...remove);
  if (checkpoint) await pool.checkpoint();
}

async function main(args: string[]): Promise<void> {
  const [device = "", meta = "", log = "", steps = "", seed = ""] = args;
  const mark = (name: string): void => {
    const message = ["message", log, "0", "mark", name];
    const { status, stderr } = spawnSync("dmsetup", message, { encoding: "utf8" });
    assert(status === 0, `dmsetup: ${stderr}`);
  };
  await createPool(device, { metaPath: meta, journalBytes: JOURNAL_BLOCKS * SECTOR_BYTES });
  const indexCacheBytes = 1024 * 1024;
  const options = { path: device, metaPath: meta, indexCacheBytes, log: makeLog("error") };
  const { pool } = await openRealPool(options);
  for (const name of CUT_VOLUMES) {
    await pool.createVolume(name, CUT_SECTORS * SECTOR_BYTES);
    await pool.hold(name);
  }
  mark("step-1");
  const dice = seeded(Number(seed));
  const snapshots: [string, string][] = [];
  for (let step = 0; step < Number(steps); step++) {
    const planned = plan(step, dice, snapshots);
    process.stdout.write(`${JSON.stringify(planned)}\n`);
    await run(pool, planned);
    if (planned.snapshot !== null) snapshots.push(planned.snapshot);
    mark(`step${step}`);
  }
  // As the power cut that it is about: nothing is closed, nothing runs at the exit.
  process.kill(process.pid, "SIGKILL");
}

if (process.argv[1]?.endsWith("power-cut-workload.js")) await main(process.argv.slice(2));
