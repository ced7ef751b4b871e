// A full pool fails what needs a block, and nothing else; space comes back by itself.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Client } from "../sim/client.js";
import {
  addVolume,
  counters,
  cutPower,
  FEW_BLOCKS,
  finish,
  flush,
  read,
  smallPool,
  write,
} from "../sim/small-pool.js";
import { drain, ended, isKind, track, until } from "../sim/steps.js";

const test = suite("pool full");

async function fullPool(): Promise<Client> {
  const client = await smallPool({ dataBlocks: FEW_BLOCKS });
  await write(client, "a", 0, 60);
  await write(client, "a", 500, 4);
  await flush(client, "a");
  await addVolume(client, "b");
  return client;
}

async function outcome(
  client: Client,
  name: string,
  sector: number,
  count: number,
): Promise<string> {
  const done = await client.world.run(client.write(name, { sector, count }));
  return done?.value ?? "nothing";
}

test("the write that needs a block fails with no-space; in-place writes, reads and flushes go on", async () => {
  const client = await fullPool();
  assert.is(await outcome(client, "b", 0, 1), "no-space");
  assert.is(await outcome(client, "a", 510, 1), "no-space");
  assert.ok(((await counters(client)).noSpace ?? 0) >= 2);
  await write(client, "a", 0, 60);
  await read(client, "a", 0, 60);
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

test("names can be made and deleted while the pool is full", async () => {
  const client = await fullPool();
  const { world } = client;
  assert.is(await outcome(client, "b", 0, 1), "no-space");
  await world.run(client.create("c", 1040));
  await world.run(client.snapshot("a", "s"));
  await world.run(client.cloneSnapshot("a@s", "d"));
  assert.is(await outcome(client, "a", 0, 1), "no-space", "a's blocks are the snapshot's now");
  await world.run(client.deleteVolume("d"));
  await cutPower(client);
  await finish(client);
});

test("after a delete the space comes back by itself", async () => {
  const client = await fullPool();
  const { world } = client;
  assert.is(await outcome(client, "b", 0, 8), "no-space");
  await world.run(client.deleteVolume("a"));
  await world.quiesce();
  await write(client, "b", 0, 40);
  await finish(client);
});

test("a write waits for what was just deleted, instead of failing at once", async () => {
  for (const what of ["volume", "snapshot"]) {
    const client = await fullPool();
    const { world } = client;
    if (what === "snapshot") {
      await world.run(client.snapshot("a", "s"));
      await world.run(client.discard("a", { sector: 0, count: 60 }));
    }
    assert.is(await outcome(client, "b", 0, 8), "no-space");
    const deleted = track(
      what === "volume" ? client.deleteVolume("a") : client.deleteSnapshot("a@s"),
    );
    assert.ok(await until(world, () => deleted.state === "done"));
    // Nothing is reclaimed yet.
    await write(client, "b", 0, 40);
    await cutPower(client);
    await finish(client);
  }
});

test("deleting what frees nothing leaves the pool full", async () => {
  const client = await fullPool();
  const { world } = client;
  await world.run(client.create("c", 1040));
  assert.is(await outcome(client, "b", 0, 8), "no-space");
  const deleted = track(client.deleteVolume("c"));
  assert.ok(await until(world, () => deleted.state === "done"));
  assert.is(await outcome(client, "b", 0, 8), "no-space");
  await finish(client);
});

test("how full it is shows as a level, on the way up and on the way down", async () => {
  const client = await smallPool({ dataBlocks: 100 });
  const { world } = client;
  const level = async (): Promise<number | undefined> =>
    (await world.run(client.pool.info()))?.value.spaceLevel;
  const levels = [await level()];
  for (const [sector, count] of [
    [0, 60],
    [500, 20],
    [520, 10],
    [1000, 5],
  ] as const) {
    await write(client, "a", sector, count);
    levels.push(await level());
  }
  assert.equal(levels, [0, 0, 1, 2, 3]);
  await world.run(client.discard("a", { sector: 0, count: 60 }));
  assert.is(await level(), 3, "it is pending");
  await world.run(client.checkpoint());
  assert.is(await level(), 0);
  await finish(client);
});

test("a discard in a clone gives its own blocks back with the next checkpoint", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 16);
  await world.run(client.snapshot("a", "s"));
  await world.run(client.cloneSnapshot("a@s", "b"));
  await world.run(client.open("b"));
  await write(client, "b", 0, 8);
  await world.run(client.checkpoint());
  const used = async (): Promise<number> =>
    ((await world.run(client.pool.info()))?.value.usedBytes ?? 0) / 4096;
  assert.is(await used(), 24);
  // Four of its own, one by one, and four that it shares.
  for (const sector of [1, 3, 5, 7]) await world.run(client.discard("b", { sector, count: 1 }));
  await world.run(client.discard("b", { sector: 8, count: 4 }));
  assert.is((await world.run(client.pool.info()))?.value.pendingBytes, 4 * 4096);
  await world.run(client.checkpoint());
  assert.is(await used(), 20);
  const [, clone] = (await world.run(client.pool.listVolumes()))?.value ?? [];
  assert.is(clone?.ownBytes, 4 * 4096);
  assert.is(clone?.sharedBytes, 4 * 4096);
  assert.is(clone?.freedByDeleteBytes, 4 * 4096);
  await finish(client);
});

test("what a volume takes is told before a checkpoint has stored it", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 16);
  await world.run(client.snapshot("a", "s"));
  await world.run(client.cloneSnapshot("a@s", "b"));
  await world.run(client.open("b"));
  await write(client, "b", 12, 8);
  const [, clone] = (await world.run(client.pool.listVolumes()))?.value ?? [];
  assert.is(clone?.logicalBytes, 20 * 4096);
  assert.is(clone?.ownBytes, 8 * 4096);
  assert.is(clone?.sharedBytes, 12 * 4096);
  await finish(client);
});

test("after a discard the space comes back by itself", async () => {
  const client = await fullPool();
  const { world } = client;
  assert.is(await outcome(client, "b", 0, 8), "no-space");
  await world.run(client.discard("a", { sector: 0, count: 16 }));
  await world.quiesce();
  await write(client, "b", 0, 16);
  assert.is(await outcome(client, "b", 500, 1), "no-space");
  await finish(client);
});

test("space that a read held back comes back when the read ends", async () => {
  const client = await fullPool();
  const { world } = client;
  const reads = isKind("read");
  const reading = track(client.read("a", { sector: 0, count: 16 }));
  await world.settle();
  assert.ok(await ended(world, track(client.discard("a", { sector: 0, count: 16 })), reads));
  await drain(world, reads);
  const refused = track(client.write("b", { sector: 500, count: 1 }));
  assert.ok(await ended(world, refused, reads));
  assert.is(refused.value, "no-space");
  await drain(world);
  assert.is(reading.value, "ok");
  await write(client, "b", 0, 16);
  await finish(client);
});

test("a write that asks for blocks gets those that a checkpoint frees", async () => {
  const client = await fullPool();
  const { world } = client;
  await world.run(client.discard("a", { sector: 0, count: 16 }));
  await write(client, "b", 0, 8);
  assert.is((await counters(client)).noSpace, 0);
  await finish(client);
});

test("writes that fail for want of space leave nothing behind", async () => {
  const client = await fullPool();
  const { world } = client;
  const works = [0, 4, 8, 500].map((sector) => track(client.write("b", { sector, count: 4 })));
  works.push(track(client.write("a", { sector: 2, count: 4 })));
  for (const work of works) assert.ok(await ended(world, work));
  assert.equal(
    works.map(({ value }) => value),
    ["no-space", "no-space", "no-space", "no-space", "ok"],
  );
  await cutPower(client, { keep: "all" });
  await finish(client);
});

test("a write larger than what is left fails whole, a smaller one succeeds", async () => {
  const client = await fullPool();
  const { world } = client;
  await world.run(client.discard("a", { sector: 0, count: 4 }));
  await world.run(client.checkpoint());
  await world.quiesce();
  assert.is(await outcome(client, "b", 0, 6), "no-space");
  await write(client, "b", 0, 4);
  await finish(client);
});

test.run();
