// Receiving: what has come is no volume before it is whole, and then it is one at once, whatever
// stops the daemon; and nothing is thrown away that a user has written.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { ReceiveRequest } from "../../engine/core/api.js";
import { IO_OP } from "../../native/native.js";
import type { Client } from "../sim/client.js";
import { addVolume, SECTORS, smallPool, write } from "../sim/small-pool.js";
import { drain, isKind, track, until } from "../sim/steps.js";

const test = suite("receive");
const SECTOR = 4096;
const CONTENTS = "10000000-0000-4000-8000-000000000001";
const NEXT = "10000000-0000-4000-8000-000000000002";
const FULL: ReceiveRequest = {
  name: "n",
  snapshot: "s",
  contents: CONTENTS,
  base: null,
  sizeBytes: SECTORS * SECTOR,
  resume: false,
};
const NEWER: ReceiveRequest = { ...FULL, snapshot: "t", contents: NEXT, base: CONTENTS };

const run = async <T>(client: Client, work: Promise<T>): Promise<T> =>
  (await client.world.run(work))?.value as T;

/** Writes through the data path as the NBD front end would. */
async function fill(client: Client, name: string, sector: number, byte: number): Promise<void> {
  const { pool } = client;
  await run(client, pool.hold(name));
  const data = Buffer.alloc(8 * SECTOR, byte);
  const done = await run(client, pool.io(name, IO_OP.write, sector * SECTOR, data.length, data));
  assert.is(done.status, "ok");
  await run(client, pool.release(name));
}

async function byteAt(client: Client, name: string, sector: number): Promise<number> {
  const { pool } = client;
  await run(client, pool.hold(name));
  const done = await run(client, pool.io(name, IO_OP.read, sector * SECTOR, SECTOR));
  await run(client, pool.release(name));
  return done.data[0] as number;
}

async function receive(client: Client, request: ReceiveRequest, byte: number): Promise<void> {
  await run(client, client.pool.beginReceive(request));
  await fill(client, `${request.name}%`, 508, byte);
  await run(client, client.pool.finishReceive(request.name));
}

async function names(client: Client): Promise<string[]> {
  const volumes = await run(client, client.pool.listVolumes());
  const snapshots = await run(client, client.pool.listSnapshots());
  const receives = await run(client, client.pool.listReceives());
  return [
    ...volumes.map(({ name }) => name),
    ...snapshots.map(({ volume, name }) => `${volume}@${name}`),
    ...receives.map(({ name }) => `${name}%`),
  ];
}

async function codeOf(client: Client, work: Promise<unknown>): Promise<unknown> {
  const tried = track(work);
  await drain(client.world);
  return (tried.error as { code?: string } | undefined)?.code;
}

/** Deletes everything there is, and finds nothing left. */
async function clear(client: Client): Promise<void> {
  const { pool } = client;
  for (const { name } of await run(client, pool.listReceives())) {
    await run(client, pool.abortReceive(name));
  }
  for (const { volume, name } of await run(client, pool.listSnapshots())) {
    await run(client, pool.deleteSnapshot(volume, name));
  }
  for (const { name } of await run(client, pool.listVolumes())) {
    await run(
      client,
      client.close(name).catch(() => undefined),
    );
    await run(client, pool.deleteVolume(name));
  }
  client.volumes.clear();
  await client.deleteAll();
  client.world.destroy();
}

const empty = async (): Promise<Client> => {
  const client = await smallPool();
  await client.world.run(client.deleteVolume("a"));
  return client;
};

test("a volume is there when it is whole, and not before", async () => {
  const client = await empty();
  await run(client, client.pool.beginReceive(FULL));
  await fill(client, "n%", 0, 7);
  assert.equal(await names(client), ["n%"]);
  assert.is(await codeOf(client, client.pool.getVolume("n")), "ENOTFOUND");
  await run(client, client.pool.advanceReceive("n", 8 * SECTOR));
  const again = await run(client, client.pool.beginReceive({ ...FULL, resume: true }));
  assert.is(again.offsetBytes, 8 * SECTOR);
  await run(client, client.pool.finishReceive("n"));
  assert.equal(await names(client), ["n", "n@s"]);
  assert.is(await byteAt(client, "n", 3), 7);
  assert.is((await run(client, client.pool.getSnapshot("n", "s"))).contents, CONTENTS);
  await clear(client);
});

test("what has come is durable before it is a volume", async () => {
  for (const snapshot of ["s", null]) {
    const client = await empty();
    const { world } = client;
    await run(client, client.pool.beginReceive({ ...FULL, snapshot }));
    await fill(client, "n%", 0, 7);
    await world.quiesce();
    const { commits } = world.store;
    const finishing = track(client.pool.finishReceive("n"));
    await drain(world, isKind("flush"));
    assert.is(finishing.state, "waiting");
    assert.is(world.store.commits, commits);
    await drain(world);
    assert.is(finishing.state, "done");
    await clear(client);
  }
});

test("a stream that begins at a snapshot goes on from it", async () => {
  const client = await empty();
  await receive(client, FULL, 7);
  const { uuid } = await run(client, client.pool.getVolume("n"));
  await receive(client, NEWER, 8);
  assert.equal(await names(client), ["n", "n@s", "n@t"]);
  assert.is((await run(client, client.pool.getVolume("n"))).uuid, uuid);
  assert.is(await byteAt(client, "n", 508), 8);
  assert.is(await byteAt(client, "n@s", 508), 7);
  assert.is(await byteAt(client, "n@t", 508), 8);
  await clear(client);
});

test("an import makes a volume and no snapshot", async () => {
  const client = await empty();
  await receive(client, { ...FULL, snapshot: null }, 7);
  assert.equal(await names(client), ["n"]);
  assert.is(await byteAt(client, "n", 508), 7);
  await clear(client);
});

test("what does not fit is refused, and nothing changes", async () => {
  const client = await empty();
  const { pool } = client;
  await receive(client, FULL, 7);
  await client.world.quiesce();
  const { commits } = client.world.store;
  const refused = async (code: string, request: Partial<ReceiveRequest>) => {
    const begun = pool.beginReceive({ ...NEWER, ...request });
    assert.is(await codeOf(client, begun), code, JSON.stringify(request));
  };
  await refused("EEXIST", { base: null });
  await refused("EEXIST", { snapshot: "s" });
  await refused("EINVAL", { base: "10000000-0000-4000-8000-000000000009" });
  await refused("EINVAL", { name: "other" });
  await refused("EINVAL", { sizeBytes: 5000 });
  await refused("EINVAL", { name: "../x" });
  await refused("ENOTFOUND", { resume: true });
  assert.is(await codeOf(client, pool.finishReceive("n")), "ENOTFOUND");
  assert.is(await codeOf(client, pool.abortReceive("n")), "ENOTFOUND");
  assert.is(client.world.store.commits, commits);
  await run(client, pool.beginReceive(NEWER));
  await refused("EBUSY", {});
  await refused("EINVAL", { resume: true, contents: CONTENTS });
  assert.is(await codeOf(client, pool.advanceReceive("n", -1)), "EINVAL");
  await clear(client);
});

test("what a user has written since is not thrown away", async () => {
  const client = await empty();
  await receive(client, FULL, 7);
  await run(client, client.pool.beginReceive(NEWER));
  await fill(client, "n", 0, 9);
  assert.is(await codeOf(client, client.pool.finishReceive("n")), "EBUSY");
  await run(client, client.pool.abortReceive("n"));
  assert.is(await codeOf(client, client.pool.beginReceive(NEWER)), "EBUSY");
  await run(client, client.pool.rollbackVolume("n", "s"));
  await receive(client, NEWER, 8);
  assert.is(await byteAt(client, "n", 508), 8);
  await clear(client);
});

test("a volume or a partial that is open is not finished", async () => {
  const client = await empty();
  await receive(client, FULL, 7);
  await run(client, client.pool.beginReceive(NEWER));
  for (const name of ["n", "n%"]) {
    await run(client, client.pool.hold(name));
    assert.is(await codeOf(client, client.pool.finishReceive("n")), "EBUSY");
    await run(client, client.pool.release(name));
  }
  await run(client, client.pool.hold("n%"));
  assert.is(await codeOf(client, client.pool.abortReceive("n")), "EBUSY");
  await run(client, client.pool.release("n%"));
  await clear(client);
});

for (const power of [true, false]) {
  test(`finishing, stopped at every step by ${power ? "a power cut" : "a kill"}`, async () => {
    let found: string[] = [];
    for (let step = 0; !found.includes("done"); step++) {
      const client = await empty();
      const { world } = client;
      await receive(client, FULL, 7);
      await run(client, client.pool.beginReceive(NEWER));
      await fill(client, "n%", 508, 8);
      await world.quiesce();
      const before = world.stepCount;
      const finishing = track(client.pool.finishReceive("n"));
      await until(world, () => finishing.state !== "waiting" || world.stepCount - before === step);
      const done = finishing.state === "done";
      if (power) world.cutPower(step % 2 === 0 ? "none" : "random", step + 1, (n) => step % n);
      else world.kill(step + 1);
      client.died(power ? "power" : "kill");
      await world.open();
      client.checkStore();
      found = await names(client);
      const whole = found.includes("n@t");
      assert.equal(found, whole ? ["n", "n@s", "n@t"] : ["n", "n@s", "n%"]);
      assert.ok(whole || !done, "what was acknowledged is there");
      assert.is(await byteAt(client, "n", 508), whole ? 8 : 7);
      await clear(client);
      if (done) found.push("done");
    }
  });
}

test("what was advanced over survives a power cut", async () => {
  const client = await empty();
  await addVolume(client, "a");
  await write(client, "a", 0, 4);
  await run(client, client.pool.beginReceive(FULL));
  await fill(client, "n%", 0, 7);
  await run(client, client.pool.advanceReceive("n", 8 * SECTOR));
  client.world.cutPower("none", 1, () => 0);
  client.died("power");
  await client.world.open();
  const [info] = await run(client, client.pool.listReceives());
  assert.is(info?.offsetBytes, 8 * SECTOR);
  assert.is(await byteAt(client, "n%", 7), 7);
  await clear(client);
});

test.run();
