// A pool for directed tests: one volume "a", open, of a little more than one span.
import { assert } from "../../engine/base/assert.js";
import type { Range } from "./books.js";
import { Client } from "./client.js";
import { type Tracked, until } from "./steps.js";
import { World, type WorldOptions } from "./world.js";

export const SECTORS = 1040;
/** The smallest a free map lends at once: so many blocks are all lent. */
export const FEW_BLOCKS = 64;

const PLACES: Range[] = [
  { sector: 0, count: 64 },
  { sector: 500, count: 24 },
  { sector: 1000, count: 40 },
];

export async function smallPool(options: Partial<WorldOptions> = {}): Promise<Client> {
  const world = new World({ dataBlocks: 400, journalBlocks: 64, atomicUnit: 512, ...options });
  await world.format();
  await world.open();
  const client = new Client(world, PLACES);
  await addVolume(client, "a");
  return client;
}

export async function addVolume(client: Client, name: string): Promise<void> {
  await client.world.run(client.create(name, SECTORS));
  await client.world.run(client.open(name));
}

/** Writes, and says that it must succeed. */
export async function write(
  client: Client,
  name: string,
  sector: number,
  count = 1,
): Promise<void> {
  const done = await client.world.run(client.write(name, { sector, count }));
  assert(done?.value === "ok", `the write ends with ${done?.value}`);
}

export async function flush(client: Client, name: string): Promise<void> {
  const done = await client.world.run(client.flush(name));
  assert(done?.value === "ok", `the flush ends with ${done?.value}`);
}

export async function read(client: Client, name: string, sector: number, count = 1): Promise<void> {
  const done = await client.world.run(client.read(name, { sector, count }));
  assert(done?.value === "ok", `the read ends with ${done?.value}`);
}

/** Loses power: nothing survives that was not flushed, or everything, or what the seed says. */
export async function cutPower(
  client: Client,
  { keep = "none", transactions = "none", seed = 1 }: CutOptions = {},
): Promise<void> {
  const all = transactions === "all";
  client.world.cutPower(keep, seed, (limit) => (all ? limit - 1 : 0));
  client.died("power");
  await client.world.open();
  await client.resume();
}

export interface CutOptions {
  keep?: "none" | "all" | "completed" | "random";
  transactions?: "none" | "all";
  seed?: number;
}

/** Nothing is left to happen: compares everything, deletes it, and finds nothing left. */
export async function finish(client: Client): Promise<void> {
  await client.world.quiesce();
  await client.compareAll();
  await client.deleteAll();
  client.world.destroy();
}

export async function counters(client: Client): Promise<Record<string, number>> {
  const info = await client.world.run(client.pool.info());
  return info?.value.counters ?? {};
}

/**
 * After each step that the work comes to power is lost, on trial, with any number of the store's
 * last commits kept.
 */
export async function cutAfterEachStep(client: Client, work: Tracked<unknown>): Promise<void> {
  const { world } = client;
  while (work.state === "waiting") {
    for (let kept = 0; kept <= world.store.pendingCount; kept++) {
      await client.tryCrash(
        "power",
        world.afterPowerCut("none", 1, () => kept),
      );
    }
    const steps = world.stepCount;
    await until(world, () => work.state !== "waiting" || world.stepCount > steps);
  }
  assert(work.state === "done", `the work ends with ${work.error}`);
}
