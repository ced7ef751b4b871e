// What deleting a volume or a snapshot would free is said before, to the block: over random
// histories, everything in them is deleted in random order, and each time exactly as much comes
// back. A list, which counts nothing, says at least as much.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkStore } from "../../engine/core/check.js";
import { type Random, seeded } from "../prng.js";
import type { Client } from "../sim/client.js";
import { smallPool, write } from "../sim/small-pool.js";

const test = suite("freed by delete");
const BLOCK = 4096;
/** Around each: places that meet often. */
const PLACES = [0, 8, 508, 1024];

interface Thing {
  volume: string;
  snapshot: string | null;
}

const keyOf = ({ volume, snapshot }: Thing): string =>
  snapshot === null ? volume : `${volume}@${snapshot}`;

/** Nothing waits any more. */
async function settled(client: Client): Promise<void> {
  await client.world.run(client.pool.settle());
  await client.world.quiesce();
}

const owned = (client: Client): number => checkStore(client.world.store).ownedBlocks;

/** Null: it cannot be said. */
async function counted(client: Client, { volume, snapshot }: Thing): Promise<number | null> {
  const count = async (): Promise<number | null> => {
    const counting = client.pool.countFreed(volume, snapshot);
    for (;;) {
      const { done, value } = await counting.next();
      if (done) return value as number | null;
    }
  };
  const bytes = (await client.world.run(count()))?.value ?? null;
  return bytes === null ? null : bytes / BLOCK;
}

async function listed(client: Client, { volume, snapshot }: Thing): Promise<[number, boolean]> {
  const { pool, world } = client;
  const found = await world.run<{ freedByDeleteBytes: number; freedByDeleteAtMost: boolean }>(
    snapshot === null ? pool.getVolume(volume) : pool.getSnapshot(volume, snapshot),
  );
  assert.ok(found);
  return [found.value.freedByDeleteBytes / BLOCK, found.value.freedByDeleteAtMost];
}

async function deleteAndCompare(client: Client, thing: Thing): Promise<void> {
  const { world } = client;
  await settled(client);
  const said = await counted(client, thing);
  const [atMost, isBound] = await listed(client, thing);
  const before = owned(client);
  const { volume, snapshot } = thing;
  await world.run(
    snapshot === null ? client.deleteVolume(volume) : client.deleteSnapshot(keyOf(thing)),
  );
  await settled(client);
  const freed = before - owned(client);
  assert.is(said, freed, keyOf(thing));
  if (isBound) assert.ok(freed <= atMost, `${keyOf(thing)}: ${freed} of at most ${atMost}`);
  else assert.is(atMost, freed, `${keyOf(thing)}, as listed`);
}

/** A tree of volumes and snapshots, with some of it deleted on the way. */
async function history(client: Client, random: Random): Promise<Thing[]> {
  const { world } = client;
  const things: Thing[] = [{ volume: "a", snapshot: null }];
  const volumes = (): Thing[] => things.filter(({ snapshot }) => snapshot === null);
  for (let step = 0; step < 18 && volumes().length > 0; step++) {
    const { volume } = random.pick(volumes());
    const name = `n${step}`;
    switch (random.below(6)) {
      case 0:
        await world.run(client.snapshot(volume, name));
        things.push({ volume, snapshot: name });
        break;
      case 1: {
        const snapshots = things.filter((thing) => thing.snapshot !== null);
        const source = snapshots.length === 0 ? null : random.pick(snapshots);
        if (source === null) await world.run(client.cloneVolume(volume, name));
        else await world.run(client.cloneSnapshot(keyOf(source), name));
        await world.run(client.open(name));
        things.push({ volume: name, snapshot: null });
        break;
      }
      case 2:
        if (things.length > 3) {
          const [thing] = things.splice(random.below(things.length), 1) as [Thing];
          await deleteAndCompare(client, thing);
        }
        break;
      default:
        await write(client, volume, random.pick(PLACES), 1 + random.below(8));
        if (random.oneIn(4)) {
          await world.run(client.discard(volume, { sector: random.pick(PLACES), count: 3 }));
        }
    }
  }
  return things;
}

test("as much comes back as was said, for whatever is deleted", async () => {
  for (let seed = 1; seed <= 24; seed++) {
    const random = seeded(seed);
    const client = await smallPool({ absorbFrom: seed % 2 === 0 ? 1 : 1000 });
    const things = await history(client, random);
    while (things.length > 0) {
      const [thing] = things.splice(random.below(things.length), 1) as [Thing];
      await deleteAndCompare(client, thing);
    }
    assert.is(owned(client), 0, "nothing is left");
    client.world.destroy();
  }
});

test("what is dirty counts", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 16);
  await world.run(client.snapshot("a", "s"));
  await settled(client);
  await write(client, "a", 4, 3);
  const snapshot: Thing = { volume: "a", snapshot: "s" };
  assert.equal(await listed(client, snapshot), [16, true]);
  assert.is(await counted(client, snapshot), 3);
  await deleteAndCompare(client, snapshot);
  assert.is(owned(client), 16);
  world.destroy();
});

test.run();
