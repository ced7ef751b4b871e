// A volume's limits in the data path: what comes too early waits and is not lost, a snapshot does
// not wait for it, a new limit counts for it too, and the limit is there after a restart.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Limits } from "../../engine/core/api.js";
import type { Client } from "../sim/client.js";
import { addVolume, counters, cutPower, finish, smallPool, write } from "../sim/small-pool.js";
import { drain, ended, isKind, track } from "../sim/steps.js";

const test = suite("limits");

async function limit(client: Client, change: Partial<Limits>): Promise<void> {
  await client.world.run(client.pool.setLimits("a", change));
}

/** More than a burst of the slowest limits here. */
const writeMany = (client: Client) =>
  Array.from({ length: 20 }, (_, at) => track(client.write("a", { sector: at, count: 1 })));

test("what is over the limit waits, and ends well", async () => {
  const client = await smallPool();
  await limit(client, { iops: 10 });
  const writes = writeMany(client);
  for (const one of writes) assert.ok(await ended(client.world, one));
  const { limitWaits } = await counters(client);
  assert.ok((limitWaits ?? 0) >= 18, `${limitWaits} waited`);
  for (const one of writes) assert.is(one.value, "ok");
  await finish(client);
});

test("bytes are limited too, and other volumes are not", async () => {
  const client = await smallPool();
  await addVolume(client, "b");
  await limit(client, { bytesPerSecond: 64 * 1024 });
  await write(client, "a", 0, 4);
  await write(client, "b", 0, 4);
  await write(client, "b", 0, 4);
  assert.is((await counters(client)).limitWaits ?? 0, 0);
  await write(client, "a", 0, 4);
  assert.is((await counters(client)).limitWaits, 1);
  await finish(client);
});

test("a snapshot drains what was admitted, and the rest goes to the new layer", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 20);
  await limit(client, { iops: 10 });
  const writes = writeMany(client);
  const snapshot = track(client.snapshot("a", "s"));
  await drain(world, isKind("durable"));
  assert.is(snapshot.state, "waiting");
  for (const one of [snapshot, ...writes]) assert.ok(await ended(world, one));
  assert.ok(((await counters(client)).limitWaits ?? 0) > 0);
  await cutPower(client, { keep: "all" });
  await finish(client);
});

test("a limit is there after a crash and gone when it is taken away", async () => {
  const client = await smallPool();
  await limit(client, { iops: 10, bytesPerSecond: 2 ** 20 });
  await limit(client, { bytesPerSecond: null });
  await cutPower(client);
  const { limits } = (await client.world.run(client.pool.getVolume("a")))?.value ?? {};
  assert.equal(limits, { iops: 10, bytesPerSecond: null });
  await client.world.run(client.open("a"));
  for (const one of writeMany(client)) assert.ok(await ended(client.world, one));
  const before = (await counters(client)).limitWaits ?? 0;
  assert.ok(before > 0);
  await limit(client, { iops: null });
  for (const one of writeMany(client)) assert.ok(await ended(client.world, one));
  assert.is((await counters(client)).limitWaits, before);
  await finish(client);
});

test("a limit of nothing is refused, and nothing changes", async () => {
  const client = await smallPool();
  const { commits } = client.world.store;
  const wrong: Partial<Limits>[] = [
    { iops: 0 },
    { iops: 1.5 },
    { iops: 2 ** 40 },
    { bytesPerSecond: 0 },
    { bytesPerSecond: 1000 },
  ];
  for (const change of wrong) {
    const tried = track(client.pool.setLimits("a", change));
    await drain(client.world);
    assert.is((tried.error as { code?: string }).code, "EINVAL");
  }
  assert.is(client.world.store.commits, commits);
  await finish(client);
});

test.run();
