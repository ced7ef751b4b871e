// Several real pools in one process: each has a data path, a store and front ends of its own, and
// what is done with one is seen in no other, after a restart neither.
import { rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeConfig, readEnvironment } from "../../engine/base/config.js";
import { NbdClient } from "../../engine/cli/nbd-client.js";
import { type Daemon, engine, startDaemon } from "../../engine/daemon.js";
import { PandoClient } from "../../engine/serve/client.js";
import { temporaryFolder } from "../support/pando.js";

const test = suite("pools");
const MIB = 2 ** 20;
const NAMES = ["fast", "bulk"];
const folder = temporaryFolder();
const pathOf = (name: string) => join(folder.path, name);
const socket = join(folder.path, "pando.sock");

/** Closed at the end, however a test ends. */
const daemons: Daemon[] = [];

test.after(async () => {
  for (const daemon of daemons) await daemon.close();
  folder.remove();
});

async function start(names: string[]): Promise<Daemon> {
  const pools = names.map((name) => ({ name, pool: pathOf(name), target: "none" }));
  const environment = readEnvironment();
  const config = makeConfig({ pools, socket, metrics: "none", logLevel: "fatal" }, environment);
  const daemon = await startDaemon({ config, environment, openPool: engine.openPool });
  daemons.push(daemon);
  return daemon;
}

/** Contents that say whose they are. */
const filled = (name: string) => Buffer.alloc(MIB / 2, name);

async function onEach(work: (client: PandoClient, name: string) => Promise<void>): Promise<void> {
  await Promise.all(
    NAMES.map(async (name) => {
      const client = new PandoClient(socket, name);
      try {
        await work(client, name);
      } finally {
        client.close();
      }
    }),
  );
}

test("two pools at once, each for itself, before a restart and after", async () => {
  for (const name of NAMES) {
    await engine.createPool(pathOf(name), { sizeBytes: 64 * MIB, journalBytes: MIB, sparse: true });
  }
  const first = await start([...NAMES, "lost"]);
  await onEach(async (client, name) => {
    const volume = await client.createVolume("db", 16 * MIB);
    const nbd = await NbdClient.openUri(volume.nbdUri ?? "");
    await nbd.write(0, filled(name));
    await nbd.flush();
    await nbd.close();
    await client.createSnapshot("db", `of-${name}`);
    await client.cloneVolume({ volume: "db", snapshot: `of-${name}` }, `branch-${name}`);
  });
  await first.close();
  const second = await start([...NAMES, "lost"]);
  await onEach(async (client, name) => {
    assert.equal(
      (await client.listVolumes()).map((volume) => volume.name),
      [`branch-${name}`, "db"],
    );
    const branch = await client.getVolume(`branch-${name}`);
    const nbd = await NbdClient.openUri(branch.nbdUri ?? "");
    assert.equal(Buffer.from(await nbd.read(0, MIB / 2)), filled(name));
    await nbd.close();
    await client.deleteSnapshot("db", `of-${name}`);
    assert.ok((await client.check()).clean);
    const all = await client.listPools();
    assert.equal(
      all.map((one) => [one.name, one.failure === null]),
      [
        ["fast", true],
        ["bulk", true],
        ["lost", false],
      ],
    );
  });
  await second.close();
});

test("a pool is not opened twice under two paths", async () => {
  symlinkSync(pathOf("fast"), pathOf("again"));
  const daemon = await start(["fast", "again"]);
  const client = new PandoClient(socket);
  try {
    const [, again] = await client.listPools();
    assert.match(String(again?.failure), /the pool again is not served: .* is open in process/);
  } finally {
    client.close();
    await daemon.close();
    rmSync(pathOf("again"));
  }
});

test.run();
