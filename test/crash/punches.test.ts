// Free blocks go back to the device when their release is durable and nobody knows them any more,
// and are nobody's until the device has answered. The simulated disk destroys what it takes back.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../native/native.js";
import type { Client } from "../sim/client.js";
import {
  addVolume,
  cutPower,
  FEW_BLOCKS,
  finish,
  flush,
  smallPool,
  write,
} from "../sim/small-pool.js";
import { drain, ended, type Holds, isKind, take, track } from "../sim/steps.js";

const test = suite("punches");
const STORE: Holds = isKind("commit", "durable");
const READS: Holds = isKind("read");
const PUNCHES: Holds = isKind("discard");
const EIO = 5;
const EOPNOTSUPP = 95;
/** Runs at the device at a time. */
const BATCH = 64;
const MANY = BATCH + 8;

const punchingPool = (dataBlocks: number) => smallPool({ dataBlocks, discard: true });

async function discardInfo(client: Client) {
  const info = await client.world.run(client.pool.info());
  assert.ok(info);
  return info.value.discard;
}

/** Blocks that read as what the simulated disk makes of a discard. */
function destroyed({ world }: Client): number {
  const { dataBlocks, dataOffsetBytes, blockSizeBytes } = world.superblock;
  let count = 0;
  for (let block = 0; block < dataBlocks; block++) {
    const offset = dataOffsetBytes + block * blockSizeBytes;
    const bytes = native.deviceRead(world.device, offset, blockSizeBytes);
    if (bytes.every((byte) => byte === 0xd5)) count++;
  }
  return count;
}

test("what was discarded goes back to the device, as one hole, and only where it is wanted", async () => {
  for (const discard of [true, false]) {
    const client = await smallPool({ discard });
    const { world } = client;
    await write(client, "a", 0, 12);
    await flush(client, "a");
    await world.run(client.discard("a", { sector: 2, count: 3 }));
    await world.run(client.discard("a", { sector: 5, count: 3 }));
    await world.run(client.checkpoint());
    assert.is(world.steps.discard, discard ? 1 : 0);
    assert.is(destroyed(client), discard ? 6 : 0);
    const state = discard ? "on" : "off";
    const punchedBytes = discard ? 6 * 4096 : 0;
    assert.equal(await discardInfo(client), { state, punchedBytes, skippedBytes: 0 });
    await finish(client);
  }
});

test("nothing goes back before its release is durable", async () => {
  const client = await punchingPool(400);
  const { world } = client;
  await write(client, "a", 0, 12);
  await flush(client, "a");
  await world.run(client.checkpoint());
  await world.run(client.discard("a", { sector: 0, count: 8 }));
  void client.checkpoint();
  await drain(world, STORE);
  assert.is(world.steps.discard, 0);
  await cutPower(client, { keep: "all" });
  await finish(client);
});

test("nothing goes back while a read that began earlier knows it", async () => {
  const client = await punchingPool(400);
  const { world } = client;
  await write(client, "a", 0, 12);
  await flush(client, "a");
  const reading = track(client.read("a", { sector: 0, count: 8 }));
  await drain(world, READS);
  assert.ok(await ended(world, track(client.discard("a", { sector: 0, count: 8 })), READS));
  assert.ok(await ended(world, track(client.checkpoint()), READS));
  await drain(world, READS);
  assert.is(world.steps.discard, 0);
  assert.ok(await ended(world, reading));
  await drain(world);
  assert.is(destroyed(client), 8);
  await finish(client);
});

test("what is at the device is lent to nobody", async () => {
  const client = await punchingPool(FEW_BLOCKS);
  const { world } = client;
  await write(client, "a", 0, 60);
  await flush(client, "a");
  await addVolume(client, "b");
  await world.run(client.discard("a", { sector: 0, count: 8 }));
  const checkpoint = track(client.checkpoint());
  await drain(world, PUNCHES);
  const writing = track(client.write("b", { sector: 500, count: 8 }));
  await drain(world, PUNCHES);
  assert.is(writing.state, "waiting", "there is nothing but what the device takes back");
  assert.ok(await ended(world, checkpoint));
  assert.ok(await ended(world, writing));
  assert.is(writing.value, "ok");
  await flush(client, "b");
  await cutPower(client, { keep: "random" });
  await finish(client);
});

test("a write takes what waits for its turn at the device", async () => {
  const client = await punchingPool(2 * MANY + 4);
  const { world } = client;
  await write(client, "a", 0, 2 * MANY);
  await flush(client, "a");
  for (let sector = 0; sector < 2 * MANY; sector += 2) {
    await world.run(client.discard("a", { sector, count: 1 }));
  }
  const checkpoint = track(client.checkpoint());
  await drain(world, PUNCHES);
  const waiting = MANY - BATCH;
  const writing = track(client.write("a", { sector: 500, count: waiting }));
  assert.ok(await ended(world, writing, PUNCHES));
  assert.is(writing.value, "ok");
  assert.ok(await ended(world, checkpoint));
  const { punchedBytes, skippedBytes } = await discardInfo(client);
  assert.equal([punchedBytes, skippedBytes], [BATCH * 4096, waiting * 4096]);
  await finish(client);
});

test("the device fails, or cannot: the blocks are free all the same", async () => {
  const client = await punchingPool(FEW_BLOCKS);
  const { world } = client;
  for (const errno of [EIO, EOPNOTSUPP]) {
    await write(client, "a", 0, 60);
    await flush(client, "a");
    await world.run(client.discard("a", { sector: 0, count: 60 }));
    const checkpoint = track(client.checkpoint());
    await drain(world, PUNCHES);
    await take(world, PUNCHES, errno);
    assert.ok(await ended(world, checkpoint));
    assert.is((await discardInfo(client)).state, errno === EIO ? "on" : "unsupported");
  }
  const before = world.steps.discard;
  await write(client, "a", 0, 60);
  await flush(client, "a");
  await finish(client);
  assert.is(world.steps.discard, before);
});

test("a clean stop waits for the device, and for nothing else", async () => {
  const client = await punchingPool(400);
  const { world } = client;
  await write(client, "a", 0, 12);
  await world.run(client.discard("a", { sector: 0, count: 8 }));
  await world.run(client.close("a"));
  await world.close();
  client.died("kill");
  await world.open();
  await client.resume();
  await finish(client);
});

test.run();
