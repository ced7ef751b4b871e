// Free blocks go back to the device when their release is durable and nobody knows them any more,
// and are nobody's until the device has answered. The simulated disk destroys what it takes back.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { TrimProgress } from "../../engine/core/api.js";
import { native } from "../../native/native.js";
import type { Client } from "../sim/client.js";
import {
  addVolume,
  counters,
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

/** All of it, or until `stop` says so. */
async function trim(
  { pool }: Client,
  startBytes = 0,
  stop: (progress: TrimProgress) => boolean = () => false,
): Promise<TrimProgress | null> {
  let last: TrimProgress | null = null;
  for await (const progress of pool.trim(startBytes)) {
    last = progress;
    if (stop(progress)) break;
  }
  return last;
}

test("a trim gives back all that is free, and nothing else", async () => {
  const client = await smallPool({ dataBlocks: 400 });
  const { world } = client;
  await write(client, "a", 0, 12);
  await flush(client, "a");
  await world.run(client.discard("a", { sector: 2, count: 6 }));
  await world.run(client.checkpoint());
  assert.is(destroyed(client), 0);
  const done = await world.run(trim(client));
  const lent = (await counters(client)).lentBlocks ?? 0;
  assert.is(done?.value?.trimmedBytes, (400 - 6 - lent) * 4096);
  assert.is(done?.value?.doneBytes, 400 * 4096);
  assert.is(destroyed(client), 400 - 6 - lent);
  const info = await world.run(client.pool.info());
  assert.is(info?.value.usedBytes, 6 * 4096);
  await write(client, "a", 0, 20);
  await flush(client, "a");
  await cutPower(client, { keep: "random" });
  await finish(client);
});

test("a trim goes on where another was cut off, and is alone", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 2 * MANY);
  for (let at = 0; at < MANY; at++) {
    await world.run(client.discard("a", { sector: 2 * at, count: 1 }));
  }
  await world.run(client.checkpoint());
  const first = (await world.run(trim(client, 0, () => true)))?.value;
  assert.ok(first && first.doneBytes > 0);
  const before = destroyed(client);
  const second = track(trim(client, first.doneBytes));
  const third = track(trim(client));
  await drain(world, PUNCHES);
  assert.is(third.state, "failed");
  assert.ok(await ended(world, second));
  const rest = second.value as TrimProgress;
  assert.is(destroyed(client), before + rest.trimmedBytes / 4096);
  await finish(client);
});

test("a write that finds all that is free at the device waits for it, and does not fail", async () => {
  const client = await smallPool({ dataBlocks: FEW_BLOCKS + 40 });
  const { world } = client;
  await write(client, "a", 0, 30);
  await world.run(client.snapshot("a", "s"));
  const trimming = track(trim(client));
  await drain(world, PUNCHES);
  const info = track(client.pool.info());
  assert.ok(await ended(world, info, PUNCHES));
  assert.is(info.value?.usedBytes, 30 * 4096, "what is at the device is free");
  const writing = track(client.write("a", { sector: 0, count: 64 }));
  await drain(world, PUNCHES);
  assert.is(writing.state, "waiting");
  assert.ok(await ended(world, writing));
  assert.is(writing.value, "ok");
  await drain(world);
  assert.is(trimming.state, "waiting", "it rests, since a host was at work");
  world.tick();
  assert.ok(await ended(world, trimming));
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

test("a trim that the device refuses says so, and a file that keeps its room is not trimmed", async () => {
  const client = await smallPool();
  const { world } = client;
  const trimming = track(trim(client));
  await drain(world, PUNCHES);
  await take(world, PUNCHES, EOPNOTSUPP);
  await drain(world, PUNCHES);
  assert.is(trimming.state, "failed");
  assert.match(String(trimming.error), /EOPNOTSUPP/);
  await write(client, "a", 0, 40);
  await finish(client);
  const full = await smallPool({ keepsRoom: true });
  assert.throws(() => full.pool.trim(0), /has all of its room/);
  await finish(full);
});

test.run();
