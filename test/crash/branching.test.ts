// The instant of a snapshot: what the gate holds, when it opens, and that nobody else opens it.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { SnapshotInfo } from "../../engine/core/api.js";
import { IO_OP, native } from "../../native/native.js";
import type { Client } from "../sim/client.js";
import {
  addVolume,
  counters,
  cutPower,
  finish,
  flush,
  SECTORS,
  smallPool,
  write,
} from "../sim/small-pool.js";
import { drain, ended, type Holds, isKind, take, track } from "../sim/steps.js";

const test = suite("branching");
const DURABLE: Holds = isKind("durable");
const WRITES: Holds = isKind("write");

/** What a question gives that waits for nothing that is held back. */
async function settled<T>(client: Client, question: Promise<T>): Promise<T> {
  const asked = track(question);
  await client.world.settle();
  if (asked.state === "failed") throw asked.error;
  assert.is(asked.state, "done");
  return asked.value as T;
}

async function codeOf(client: Client, question: Promise<unknown>): Promise<unknown> {
  const asked = track(question);
  await client.world.settle();
  return (asked.error as { code?: string } | undefined)?.code;
}

const named = ({ volume, name }: { volume: string; name: string }) => `${volume}@${name}`;

async function shown(client: Client): Promise<string[]> {
  return (await settled(client, client.pool.listSnapshots())).map(named);
}

/** The same, page by page: an empty one would be the end. */
async function pageOf(client: Client): Promise<string[]> {
  const all: string[] = [];
  for (let after: { volume: string; snapshot: string } | null = null; ; ) {
    const page: SnapshotInfo[] = await settled(
      client,
      client.pool.listSnapshots(undefined, { after, limit: 1 }),
    );
    const [one] = page;
    if (one === undefined) return all;
    all.push(named(one));
    after = { volume: one.volume, snapshot: one.name };
  }
}

test("the gate of a snapshot opens when its transaction is durable, not when it is committed", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  const snapshot = track(client.snapshot("a", "s"));
  await drain(world, DURABLE);
  assert.is(snapshot.state, "waiting");
  const writing = track(client.write("a", { sector: 0, count: 2 }));
  const flushing = track(client.flush("a"));
  await drain(world, DURABLE);
  assert.is(
    writing.state,
    "waiting",
    "a record of the new layer would be in the journal before it",
  );
  assert.is(flushing.state, "done");
  assert.is((await counters(client)).gateWaits, 1);
  await cutPower(client, { keep: "all" });
  await finish(client);
});

test("two snapshots at once do not open each other's gate", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  const snapshots = [track(client.snapshot("a", "s")), track(client.snapshot("a", "t"))];
  for (const snapshot of snapshots) {
    await drain(world, DURABLE);
    const writing = track(client.write("a", { sector: 0, count: 2 }));
    await drain(world, DURABLE);
    assert.is(writing.state, "waiting");
    await take(world, DURABLE);
    assert.ok(await ended(world, snapshot, DURABLE));
  }
  await drain(world);
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

test("a snapshot has the writes that ended before it, after any crash", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  const late = track(client.write("a", { sector: 2, count: 4 }));
  await world.settle();
  const snapshot = track(client.snapshot("a", "s"));
  await drain(world, WRITES);
  assert.is(snapshot.state, "waiting", "a write is under way");
  assert.ok(await ended(world, snapshot));
  assert.is(late.value, "ok");
  await cutPower(client);
  await finish(client);
});

test("a snapshot has what was written before the volume was closed, after any crash", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await world.run(client.close("a"));
  await world.run(client.snapshot("a", "s"));
  await cutPower(client);
  await finish(client);
});

test("reads go on while a snapshot holds the writes", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  const snapshot = track(client.snapshot("a", "s"));
  await drain(world, DURABLE);
  assert.ok(await ended(world, track(client.read("a", { sector: 0, count: 8 })), DURABLE));
  assert.ok(await ended(world, snapshot));
  await finish(client);
});

test("a group of volumes is frozen at one instant", async () => {
  const client = await smallPool();
  const { world } = client;
  await addVolume(client, "b");
  await write(client, "a", 0, 4);
  await write(client, "b", 0, 4);
  const slow = track(client.write("a", { sector: 500, count: 2 }));
  await world.settle();
  // The data path numbers volumes in the order in which they were opened.
  const frozen = track(native.volumeFreeze(world.pool.handle, [1, 2]));
  await world.settle();
  const after = track(client.write("b", { sector: 500, count: 2 }));
  await drain(world, WRITES);
  assert.is(frozen.state, "waiting", "a write to a is under way");
  assert.is(after.state, "waiting", "b stands still, though nothing of it was under way");
  assert.ok(await ended(world, slow));
  assert.ok(await ended(world, frozen));
  assert.is(after.state, "waiting");
  await Promise.all([1, 2].map((id) => world.run(native.volumeThaw(world.pool.handle, id, 0))));
  assert.ok(await ended(world, after));
  await finish(client);
});

test("the gate does not wait for what was written to become durable; the answer does", async () => {
  const client = await smallPool();
  const { world } = client;
  await addVolume(client, "b");
  await write(client, "a", 0, 4);
  await write(client, "b", 4, 4);
  for (const kind of ["flush", "write-durable"] as const) {
    await write(client, "a", 30, 2);
    const before = await shown(client);
    const group = track(client.snapshotGroup(["a", "b"], kind));
    await drain(world, isKind(kind));
    assert.is(world.freezePhase, "flush");
    assert.is(group.state, "waiting", `without a ${kind}`);
    assert.equal(await shown(client), before, "a caller who found it would take it for made");
    assert.is(await codeOf(client, client.pool.getSnapshot("a", kind)), "ENOTFOUND");
    assert.equal(await pageOf(client), before);
    const writing = track(client.write("a", { sector: 2, count: 4 }));
    assert.ok(await ended(world, writing, isKind(kind)), "the gate is open");
    assert.ok(await ended(world, group));
    assert.equal((await shown(client)).slice(-1), [`b@${kind}`]);
    await write(client, "a", 20, 2);
    const clone = track(client.cloneVolume("a", `c-${kind}`));
    await drain(world, isKind(kind));
    assert.is(clone.state, "waiting", `without a ${kind}`);
    assert.is(await codeOf(client, client.pool.getVolume(`c-${kind}`)), "ENOTFOUND");
    const volumes = (await settled(client, client.pool.listVolumes())).map(({ name }) => name);
    assert.not(volumes.includes(`c-${kind}`));
    assert.ok(await ended(world, clone));
    await settled(client, client.pool.getVolume(`c-${kind}`));
  }
  await cutPower(client, { keep: "random", seed: 5 });
  await finish(client);
});

for (const kind of ["flush", "write-durable"] as const) {
  test(`power is lost when a snapshot is durable and what was written is not: no ${kind}`, async () => {
    for (const keep of ["none", "completed", "random"] as const) {
      const client = await smallPool();
      const { world } = client;
      await write(client, "a", 0, 8);
      await flush(client, "a");
      await write(client, "a", 4, 8);
      const snapshot = track(client.snapshot("a", "s"));
      await drain(world, isKind(kind));
      const writing = track(client.write("a", { sector: 6, count: 4 }));
      assert.ok(await ended(world, writing, isKind(kind)));
      assert.is(snapshot.state, "waiting");
      await cutPower(client, { keep, transactions: "all" });
      assert.equal([...client.snapshots.keys()], ["a@s"], "whoever asks again finds it");
      await world.run(client.open("a"));
      await write(client, "a", 0, 6);
      await finish(client);
    }
  });
}

test("a flush that fails beside the store's transaction: an error, and the snapshot is there", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 8);
  const snapshot = track(client.snapshot("a", "s"));
  await drain(world, isKind("flush"));
  await take(world, isKind("flush"), 5);
  await drain(world);
  assert.is((snapshot.error as { code?: string }).code, "EIO");
  assert.equal(await shown(client), [], "nobody takes it for made");
  const refused = await world.run(client.write("a", { sector: 0, count: 1 }));
  assert.is.not(refused?.value, "ok", "the pool takes no more");
  world.kill(1);
  client.died("kill");
  await world.open();
  await client.resume();
  assert.equal([...client.snapshots.keys()], ["a@s"]);
  await finish(client);
});

test("a pool that takes no more writes takes no snapshot", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 8);
  const flushing = track(client.flush("a"));
  await drain(world, isKind("flush"));
  await take(world, isKind("flush"), 5);
  await drain(world);
  assert.is(flushing.value === "ok", false);
  const { commits } = world.store;
  const snapshot = track(client.snapshot("a", "s"));
  await drain(world);
  assert.is((snapshot.error as { code?: string }).code, "EIO");
  assert.is(world.store.commits, commits, "nothing was changed");
  const frozen = track(native.volumeFreeze(world.pool.handle, [1]));
  await drain(world);
  assert.is(frozen.state, "failed");
  world.kill(1);
  client.died("kill");
  await world.open();
  await client.resume();
  await finish(client);
});

test("a group snapshot of volumes is of one instant, and survives whole", async () => {
  const client = await smallPool();
  const { world } = client;
  await addVolume(client, "b");
  await write(client, "a", 0, 4);
  await write(client, "b", 0, 4);
  const group = track(client.snapshotGroup(["a", "b"], "g"));
  await drain(world, DURABLE);
  const writes = ["a", "b"].map((name) => track(client.write(name, { sector: 2, count: 4 })));
  await drain(world, DURABLE);
  assert.is(group.state, "waiting");
  for (const one of writes) assert.is(one.state, "waiting", "neither gate opens before durable");
  await take(world, DURABLE);
  assert.ok(await ended(world, group));
  await drain(world);
  await cutPower(client);
  await finish(client);
});

test("a group with a member that is missing, twice or taken changes nothing", async () => {
  const client = await smallPool();
  const { world } = client;
  await addVolume(client, "b");
  await world.run(client.snapshot("b", "taken"));
  const commits = world.store.commits;
  const refused = async (code: string, ...names: [volume: string, snapshot: string][]) => {
    const refs = names.map(([volume, snapshot]) => ({ volume, snapshot }));
    const tried = track(world.pool.createSnapshots(refs));
    await drain(world);
    assert.is((tried.error as { code?: string }).code, code);
  };
  await refused("ENOTFOUND", ["a", "g"], ["nobody", "g"]);
  await refused("EEXIST", ["a", "g"], ["b", "taken"]);
  await refused("EINVAL", ["a", "g"], ["a", "h"]);
  await refused("EINVAL");
  assert.is(world.store.commits, commits);
  await write(client, "a", 0, 4);
  await finish(client);
});

test("a volume rolled back is what its snapshot is, and goes its own way", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 40);
  await world.run(client.snapshot("a", "s"));
  await write(client, "a", 10, 10);
  await world.run(client.discard("a", { sector: 20, count: 10 }));
  await world.run(client.resize("a", SECTORS + 8));
  await world.run(client.snapshot("a", "newer"));
  await write(client, "a", 500, 20);
  const { uuid } = (await world.run(world.pool.getVolume("a")))?.value ?? {};
  await world.run(client.rollBack("a@s"));
  const after = (await world.run(world.pool.getVolume("a")))?.value;
  assert.is(after?.uuid, uuid);
  assert.is(after?.sizeBytes, (SECTORS + 8) * 4096);
  await world.run(client.open("a"));
  await write(client, "a", 5, 10);
  await world.run(client.rollBack("a@newer"));
  await cutPower(client, { keep: "random", seed: 7 });
  await finish(client);
});

test("a volume that somebody has open is not rolled back", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await world.run(client.snapshot("a", "s"));
  await write(client, "a", 0, 4);
  const tried = track(world.pool.rollbackVolume("a", "s"));
  await drain(world);
  assert.is((tried.error as { code?: string }).code, "EBUSY");
  await finish(client);
});

test("a volume is not rolled back to the snapshot of another one of its name", async () => {
  const client = await smallPool();
  const { world } = client;
  await world.run(client.snapshot("a", "s"));
  await world.run(client.deleteVolume("a"));
  await addVolume(client, "a");
  await world.run(client.close("a"));
  const tried = track(world.pool.rollbackVolume("a", "s"));
  await drain(world);
  assert.is((tried.error as { code?: string }).code, "EINVAL");
  await finish(client);
});

test("a snapshot is read as it was, takes no write, and stays while it is read", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 8);
  const read = async (name: string) => {
    const done = await world.run(world.pool.io(name, IO_OP.read, 0, 16 * 4096));
    assert.is(done?.value.status, "ok");
    return Buffer.from(done?.value.data ?? []);
  };
  const before = await read("a");
  await world.run(client.snapshot("a", "s"));
  await write(client, "a", 4, 8);
  await world.run(world.pool.hold("a@s"));
  assert.ok((await read("a@s")).equals(before));
  assert.not((await read("a")).equals(before));
  for (const op of [IO_OP.write, IO_OP.discard, IO_OP.writeZeroes]) {
    const data = op === IO_OP.write ? Buffer.alloc(4096) : null;
    const done = await world.run(world.pool.io("a@s", op, 0, 4096, data));
    assert.is(done?.value.status, "read-only");
  }
  const deleting = track(world.pool.deleteSnapshot("a", "s"));
  await drain(world);
  assert.is((deleting.error as { code?: string }).code, "EBUSY");
  await world.run(world.pool.release("a@s"));
  await finish(client);
});

test("a clone writes nothing of its origin's, and its origin nothing of the clone's", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 40);
  await flush(client, "a");
  await world.run(client.checkpoint());
  await world.run(client.cloneVolume("a", "b"));
  await world.run(client.open("b"));
  await write(client, "b", 0, 10);
  await write(client, "a", 5, 10);
  await world.run(client.discard("b", { sector: 20, count: 10 }));
  await world.run(client.discard("a", { sector: 25, count: 10 }));
  await flush(client, "a");
  await flush(client, "b");
  await cutPower(client, { keep: "random", seed: 3 });
  await finish(client);
});

test.run();
