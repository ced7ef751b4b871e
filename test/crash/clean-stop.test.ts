// A pool that is closed in the middle of everything: what is under way ends, one way or the other,
// nothing that was acknowledged is left to the journal, and nobody is heard of afterwards.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isPandoError } from "../../engine/base/errors.js";
import { seeded } from "../prng.js";
import { FaultDice, NO_FAULTS } from "../sim/faults.js";
import { SeededScheduler } from "../sim/seeded-scheduler.js";
import { addVolume, finish, flush, smallPool, write } from "../sim/small-pool.js";

const test = suite("clean stop");

/** Refused because the pool was closing. */
async function mayBeRefused(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!isPandoError(error, "ECLOSED") && !isPandoError(error, "EBUSY")) throw error;
  }
}

test("an idle pool leaves nothing to replay", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 8);
  await world.close();
  client.died("kill");
  await world.open();
  assert.is(world.recovered?.replayedRecords, 0);
  await client.resume();
  await finish(client);
});

for (const dataBlocks of [400, 64]) {
  test(`a pool of ${dataBlocks} blocks, closed under load`, async () => {
    for (let seed = 1; seed <= 30; seed++) {
      const random = seeded(seed);
      const dice = new FaultDice(seed, { ...NO_FAULTS, hang: 25 });
      const scheduler = new SeededScheduler(random, { dice });
      const client = await smallPool({ dataBlocks, indexCacheBytes: 2 * 2400 });
      const { world } = client;
      await addVolume(client, "b");
      await world.run(client.create("c", 1040));
      await write(client, "a", 0, 30);
      await flush(client, "a");
      const works = [
        client.write("a", { sector: 10, count: 8 }),
        client.write("b", { sector: 508, count: 8 }),
        client.discard("a", { sector: 4, count: 8 }),
        client.read("a", { sector: 0, count: 20 }),
        client.flush("a"),
        client.write("b", { sector: 0, count: 20 }, { fua: true }),
        client.snapshot("a", "s"),
        client.deleteVolume("c"),
        client.checkpoint(),
      ].map(mayBeRefused);
      for (let steps = random.below(30); steps > 0; steps--) {
        await world.settle();
        scheduler.choose(world.choices())?.take();
      }
      if (random.oneIn(2)) world.tick();
      await world.close(scheduler.pick);
      await Promise.all(works);
      client.died("kill");
      await world.open();
      assert.is(world.recovered?.replayedRecords, 0, `seed ${seed}`);
      await client.resume();
      await finish(client);
    }
  });
}

test.run();
