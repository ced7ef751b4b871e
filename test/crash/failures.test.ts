// Errors of the device and of the store: who is told, what goes on, what is left.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeLog } from "../../engine/base/log.js";
import type { Client } from "../sim/client.js";
import { addVolume, cutPower, finish, flush, read, smallPool, write } from "../sim/small-pool.js";
import { drain, ended, type Holds, isKind, take, track, until } from "../sim/steps.js";

const test = suite("failures");
const EIO = 5;
const COMMIT: Holds = isKind("commit");

/** Why the pool takes no more writes; empty: it does. */
async function failure(client: Client): Promise<string> {
  return (await client.world.run(client.pool.info()))?.value.failure ?? "";
}

async function reopen(client: Client): Promise<void> {
  client.world.kill(1);
  client.died("kill");
  await client.world.open();
  await client.resume();
}

for (const kind of ["flush", "write-durable"] as const) {
  test(`a failed ${kind} poisons the pool, and opening it again recovers`, async () => {
    const client = await smallPool();
    const { world } = client;
    await write(client, "a", 0, 4);
    await flush(client, "a");
    void client.write("a", { sector: 8, count: 4 });
    await drain(world, isKind("flush"));
    const flushing = track(client.flush("a"));
    await drain(world, isKind(kind));
    const waiting = track(client.flush("a"));
    await take(world, isKind(kind), EIO);
    await drain(world);
    assert.is(flushing.value, "io-error");
    assert.is(waiting.value, "io-error");
    assert.match(await failure(client), /open the pool again/);
    for (const range of [
      { sector: 0, count: 1 },
      { sector: 500, count: 1 },
    ]) {
      const done = await world.run(client.write("a", range));
      assert.is(done?.value, "io-error");
    }
    assert.is((await world.run(client.flush("a")))?.value, "io-error");
    await read(client, "a", 0, 4);
    const refused = track(client.snapshot("a", "s"));
    await until(world, () => refused.state === "failed");
    assert.match((refused.error as Error).message, /takes no more changes/);
    await reopen(client);
    await world.run(client.open("a"));
    await write(client, "a", 500, 2);
    await flush(client, "a");
    await cutPower(client);
    await finish(client);
  });
}

test("a poisoned pool lets nobody wait for ever", async () => {
  const client = await smallPool({ dataBlocks: 64 });
  const { world } = client;
  await write(client, "a", 0, 60);
  await addVolume(client, "b");
  const store: Holds = isKind("commit", "durable");
  await world.run(client.discard("a", { sector: 0, count: 16 }));
  const works = [track(client.write("b", { sector: 0, count: 16 }))];
  await drain(world, (choice) => store(choice) || choice.kind === "flush");
  works.push(track(client.flush("a")));
  await take(world, isKind("flush"), EIO);
  works.push(track(client.write("b", { sector: 500, count: 16 })));
  await drain(world);
  assert.equal(
    works.map(({ value }) => value),
    ["io-error", "io-error", "io-error"],
  );
  await reopen(client);
  await finish(client);
});

test("an error while data is written fails that request, and nothing else", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  const bad = track(client.write("a", { sector: 8, count: 4 }));
  await world.settle();
  const good = track(client.write("a", { sector: 500, count: 4 }));
  await take(world, isKind("write"), EIO);
  assert.ok(await ended(world, good));
  assert.is(bad.value, "io-error");
  assert.is(good.value, "ok");
  assert.is(await failure(client), "");
  await write(client, "a", 8, 4);
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

test("an error while data is overwritten in place leaves old or new", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 8);
  const bad = track(client.write("a", { sector: 2, count: 4 }));
  await take(world, isKind("write"), EIO);
  assert.is(bad.value, "io-error");
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

test("what the device has failed is in the log at the next interval", async () => {
  const told: unknown[] = [];
  const log = makeLog("fatal");
  log.error = (fields: unknown) => void told.push(fields);
  const client = await smallPool({ log });
  const { world } = client;
  await write(client, "a", 0, 4);
  world.tick();
  await world.quiesce();
  assert.equal(told, []);
  for (let times = 0; times < 2; times++) {
    const bad = track(client.read("a", { sector: 0, count: 4 }));
    await take(world, isKind("read"), EIO);
    assert.is(bad.value, "io-error");
  }
  world.tick();
  await world.quiesce();
  assert.equal(told, [{ requests: 2 }]);
  await finish(client);
});

test("an error while data is read fails that request, and nothing else", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 8);
  const bad = track(client.read("a", { sector: 0, count: 4 }));
  await take(world, isKind("read"), EIO);
  assert.is(bad.value, "io-error");
  await read(client, "a", 0, 8);
  await finish(client);
});

for (const kind of ["read", "write"] as const) {
  test(`a ${kind} error while a block is copied loses nothing`, async () => {
    const client = await smallPool({ blockSizeBytes: 16384, dataBlocks: 200 });
    const { world } = client;
    await write(client, "a", 0, 12);
    await world.run(client.snapshot("a", "s"));
    const bad = track(client.write("a", { sector: 1, count: 6 }));
    await drain(world, isKind(kind));
    await take(world, isKind(kind), EIO);
    await drain(world);
    assert.is(bad.value, "io-error");
    await write(client, "a", 2, 4);
    await finish(client);
  });
}

for (const which of ["first batch", "last transaction"] as const) {
  async function failing(code: "ENOSPC" | "EIO"): Promise<Client> {
    const client = await smallPool();
    const { world } = client;
    await write(client, "a", 0, 8);
    await world.run(client.discard("a", { sector: 2, count: 2 }));
    await flush(client, "a");
    const checkpoint = track(client.checkpoint());
    const phase = which === "first batch" ? "batches" : "last";
    assert.ok(await until(world, () => world.checkpointPhase === phase));
    assert.ok(await until(world, () => world.choices().some(COMMIT), COMMIT));
    world.store.failNextCommit(code);
    await drain(world);
    assert.is(checkpoint.state, "failed");
    return client;
  }

  test(`a checkpoint whose ${which} finds no room is tried again`, async () => {
    const client = await failing("ENOSPC");
    const { world } = client;
    assert.is(await failure(client), "");
    await write(client, "a", 500, 4);
    await world.run(client.discard("a", { sector: 6, count: 2 }));
    await world.run(client.checkpoint());
    client.checkStore();
    await cutPower(client);
    assert.is(world.recovered?.replayedRecords, 0);
    await finish(client);
  });

  test(`a checkpoint whose ${which} is in doubt poisons the pool, whoever asked for it`, async () => {
    const client = await failing("EIO");
    const { world } = client;
    assert.match(await failure(client), /open the pool again/);
    assert.is((await world.run(client.write("a", { sector: 500, count: 4 })))?.value, "io-error");
    await reopen(client);
    await world.run(client.open("a"));
    await read(client, "a", 0, 8);
    await write(client, "a", 500, 4);
    await world.run(client.checkpoint());
    client.checkStore();
    await cutPower(client);
    await finish(client);
  });
}

test("writes that wait for the journal go on soon after a checkpoint that failed for want of room", async () => {
  const client = await smallPool();
  const { world } = client;
  let writing = track(client.write("a", { sector: 0, count: 1 }, { fua: true }));
  for (let at = 1; await ended(world, writing, COMMIT); at++) {
    assert.ok(at < 100, "the journal fills up");
    writing = track(client.write("a", { sector: at, count: 1 }, { fua: true }));
  }
  for (let failures = 0; failures < 3; failures++) {
    world.store.failNextCommit("ENOSPC");
    await drain(world);
    assert.is(writing.state, "waiting");
    assert.is(await failure(client), "");
    world.tick(1_000);
    await world.settle();
  }
  assert.ok(await ended(world, writing));
  await finish(client);
});

test("a change of the catalogue that the store has no room for is refused, and changes nothing", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 8);
  const snapshot = track(client.snapshot("a", "s"));
  assert.ok(await until(world, () => world.choices().some(COMMIT), COMMIT));
  world.store.failNextCommit("ENOSPC");
  const writing = track(client.write("a", { sector: 0, count: 2 }));
  await drain(world);
  assert.is(snapshot.state, "failed");
  assert.is(writing.value, "ok", "the gate opened again");
  assert.is(await failure(client), "");
  await world.run(client.snapshot("a", "s"));
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

test("a change of the catalogue that fails with an I/O error poisons the pool", async () => {
  const client = await smallPool();
  const { world } = client;
  const creating = track(client.create("b", 1040));
  assert.ok(await until(world, () => world.choices().some(COMMIT), COMMIT));
  world.store.failNextCommit("EIO");
  await drain(world);
  assert.is(creating.state, "failed");
  assert.match(await failure(client), /change of the catalogue/);
  await reopen(client);
  await finish(client);
});

test.run();
