// The main job: a Linux host connects to a volume, Postgres runs on it, and its branch runs beside
// it; then the daemon is killed under load and the host notices nothing but a pause.
//
// One list of tests for every way to serve a volume. The host is a VM with Debian's kernel,
// nvme-cli and Postgres; where the daemon runs, and what serves, is the caller's. The tests build
// on each other, in order. Beside main-job.test.ts there is dist/test/system/main-job-nvmet.js.
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { completed, FIO_DEPTH, requestsOf, startVerify } from "./guest-fio.js";
import {
  connect,
  connectionState,
  disconnect,
  discover,
  guestHost,
  requestsInFlight,
} from "./guest-nvme.js";
import {
  amcheck,
  type Cluster,
  forgetOtherServer,
  initCluster,
  initPgbench,
  postgresPrograms,
  query,
  type Sums,
  serverLog,
  startCluster,
  startPgbench,
  stopCluster,
  sums,
} from "./guest-postgres.js";
import { type CheckReport, targetOf, type Volume } from "./pando-node.js";
import { timed } from "./timed.js";
import type { Job } from "./vm/agent.js";
import type { Vm } from "./vm/vm.js";

const PGBENCH_SCALE = 2;
const STRANGER = {
  hostNqn: "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001",
  hostId: "00000000-0000-4000-8000-000000000001",
};

/** What the guest needs of the machine's programs. */
export const mainJobPrograms = ["nvme", "fio", ...postgresPrograms];

/** A storage node and a host, and the way in which the one serves the other. */
export interface StorageNode {
  vm: Vm;
  createVolume(name: string, sizeBytes: number): Promise<unknown>;
  /** Of a volume that is there: lets the guest in, and has it served. Returns it as it is then. */
  serveVolume(name: string): Promise<Volume>;
  showVolume(name: string): Promise<Volume>;
  createSnapshot(snapshot: string): Promise<unknown>;
  cloneVolume(snapshot: string, name: string): Promise<unknown>;
  check(): Promise<CheckReport>;
  freezeDaemon(): Promise<void>;
  killDaemon(): Promise<void>;
  /** Returns how long it took to serve, in ms. */
  startDaemon(): Promise<number>;
  /** As the host has it while no daemon runs. */
  stateWithoutDaemon: "connecting" | "live";
  /** Enough for two kills while fio writes. */
  fioMiB: number;
  /** How long the host may need for one step, and half of what fio may need with three kills. */
  patienceMs: number;
  stopAndCheck(): Promise<CheckReport>;
  close(): Promise<void>;
}

const origin: Cluster = { mountPoint: "/mnt/db", port: 5501 };
const branch: Cluster = { mountPoint: "/mnt/db-test", port: 5502 };
let node: StorageNode;
let vm: Vm;
let load: Job;

/** Runs the list on the node that `start` gives. */
export function runMainJob(start: () => Promise<StorageNode>): void {
  test.before(async () => {
    node = await timed("daemon serves, VM is up", start);
    ({ vm } = node);
  });
  test.after(() => node?.close());
  test.run();
}

test("a host finds and reaches only what it may", async () => {
  const db = await makeVolume("db", 2 ** 30);
  await node.createVolume("private", 2 ** 30);
  const own = await node.showVolume("private");

  const found = await timed("nvme discover", () => discover(vm, targetOf(db)));
  assert.ok(found.includes(db.nqn), `discovery lists ${db.nqn}: ${found}`);
  assert.not.ok(found.includes(own.nqn), "discovery hides what the host may not open");
  const refused = (volume: Volume, host: typeof guestHost) =>
    connect(vm, targetOf(volume), host).then(
      () => false,
      () => true,
    );
  assert.ok(await refused(own, guestHost), "a volume without hosts refuses this one");
  assert.ok(await refused(db, STRANGER), "a host that is not listed is refused");

  const device = await timed("nvme connect", () => connect(vm, targetOf(db)));
  assert.is((await vm.must(`blockdev --getsize64 ${device}`)).trim(), String(2 ** 30));
  await timed("mkfs.ext4, mount", () =>
    vm.must(`mkfs.ext4 -q ${device} && mkdir -p /mnt/db && mount ${device} /mnt/db`),
  );
});

test("Postgres runs on a volume, and its branch runs beside it", async () => {
  await timed("initdb", () => initCluster(vm, origin));
  await timed("Postgres starts", () => startCluster(vm, origin));
  await timed(`pgbench makes scale ${PGBENCH_SCALE}`, () => initPgbench(vm, origin, PGBENCH_SCALE));
  load = startPgbench(vm, origin, 2);
  await timed("pgbench has committed", () => historyBeyond(origin, 50));

  await timed("snapshot create", () => node.createSnapshot("db@monday"));
  await timed("volume clone", () => node.cloneVolume("db@monday", "db-test"));
  const clone = await node.serveVolume("db-test");
  assert.is(clone.parent, "db@monday");
  assert.is(clone.ownBytes, 0, "a clone owns nothing yet");
  assert.ok(clone.sharedBytes > 0, "a clone shares what was written");

  const device = await timed("nvme connect to the clone", () => connect(vm, targetOf(clone)));
  await vm.must(`mkdir -p ${branch.mountPoint} && mount ${device} ${branch.mountPoint}`);
  await forgetOtherServer(vm, branch);
  await timed("Postgres recovers on the clone", () => startCluster(vm, branch));
  const log = await serverLog(vm, branch);
  assert.match(log, "database system was not properly shut down; automatic recovery in progress");
  assert.match(log, "redo done at");

  const cloned = await timed("the clone's sums", () => sums(vm, branch));
  assertBalanced(cloned, "clone");
  await timed("the origin went on", () => historyBeyond(origin, cloned.historyRows));

  await query(vm, origin, "create table marker_of_origin (x int);");
  await query(vm, branch, "create table marker_of_branch (x int);");
  await assertMarkers();
});

test("a killed daemon costs a host a pause, and no byte", async () => {
  const scratch = await makeVolume("scratch", 256 * 2 ** 20);
  const device = await connect(vm, targetOf(scratch));
  const total = requestsOf(node.fioMiB);
  const before = await completed(vm, device);
  const fio = startVerify(vm, {
    device,
    sizeMiB: node.fioMiB,
    timeoutMs: 2 * node.patienceMs,
  });
  const outcome = timed("fio writes and verifies", () => fio.done);
  outcome.catch(() => undefined);

  const done = async () => {
    const { reads, writes } = await completed(vm, device);
    return { reads: reads - before.reads, writes: writes - before.writes };
  };
  const victim = { scratch, device, done };
  // An error of fio's ends the test at once.
  const reaches = (what: string, holds: () => Promise<boolean>) =>
    Promise.race([until(what, holds), outcome]);
  await reaches("fio writes", async () => (await done()).writes > total / 5);
  await killAndRestart(victim, { when: "while fio writes", freezeFirst: true });
  const { writes } = await done();
  await reaches("fio writes on", async () => (await done()).writes > writes + total / 5);
  await killAndRestart(victim, { when: "while fio writes, at once", freezeFirst: false });
  assert.is((await done()).reads, 0, "fio was still writing");

  await reaches("fio verifies", async () => (await done()).reads > total / 5);
  await killAndRestart(victim, { when: "while fio verifies", freezeFirst: true });

  const result = await outcome;
  assert.is(result.writtenBytes, node.fioMiB * 2 ** 20);
  assert.is(result.verifiedBytes, node.fioMiB * 2 ** 20, "every block was verified");
  await disconnect(vm, targetOf(scratch));
});

test("both databases are whole after all that", async () => {
  const { historyRows } = await sums(vm, origin);
  await timed("pgbench goes on", () => historyBeyond(origin, historyRows));
  load.kill();
  await load.done;
  assert.not.match(await load.stderr(), /error|abort/i);
  await assertMarkers();
  for (const cluster of [origin, branch]) {
    assertBalanced(await sums(vm, cluster), cluster.mountPoint);
  }
  await timed("pg_amcheck on both", () => Promise.all([amcheck(vm, origin), amcheck(vm, branch)]));
  const errors = await vm.must("dmesg | grep -E 'I/O error|EXT4-fs (error|warning)' || true");
  assert.is(errors, "");
});

test("everything stops cleanly, and the pool is whole", async () => {
  for (const [name, cluster] of [
    ["db", origin],
    ["db-test", branch],
  ] as const) {
    await timed(`${name} stops`, async () => {
      await stopCluster(vm, cluster);
      await vm.must(`umount ${cluster.mountPoint}`);
      await disconnect(vm, targetOf(await node.showVolume(name)));
    });
  }
  const online = await node.check();
  assert.equal(online.problems, []);
  assert.equal(await timed("daemon stops, pool check", () => node.stopAndCheck()), online);
});

async function makeVolume(name: string, sizeBytes: number): Promise<Volume> {
  await node.createVolume(name, sizeBytes);
  return node.serveVolume(name);
}

async function historyBeyond(cluster: Cluster, rows: number): Promise<void> {
  await until(`history beyond ${rows}`, async () => (await sums(vm, cluster)).historyRows > rows);
}

function assertBalanced({ accounts, tellers, branches, history, historyRows }: Sums, what: string) {
  console.log(
    `${what}: ${historyRows} transactions, sums ${accounts} ${tellers} ${branches} ${history}`,
  );
  assert.ok(historyRows > 0, `${what} has transactions`);
  assert.equal([tellers, branches, history], [accounts, accounts, accounts], `${what} is balanced`);
}

async function assertMarkers(): Promise<void> {
  for (const [cluster, own] of [
    [origin, "marker_of_origin"],
    [branch, "marker_of_branch"],
  ] as const) {
    const tables = await query(
      vm,
      cluster,
      "select relname from pg_class where relname ~ '^marker_of';",
    );
    assert.is(tables, own, `${cluster.mountPoint} has its own marker only`);
  }
}

interface Victim {
  scratch: Volume;
  device: string;
  done: () => Promise<{ reads: number; writes: number }>;
}

interface Kill {
  when: string;
  /**
   * Stops the daemon before it is killed, so that what was in flight at its death can be counted.
   * The driver, once it has lost its connection, does not count it any more.
   */
  freezeFirst: boolean;
}

async function killAndRestart(
  { scratch, device, done }: Victim,
  { when, freezeFirst }: Kill,
): Promise<void> {
  if (freezeFirst) {
    await node.freezeDaemon();
    await until("requests wait", async () => (await requestsInFlight(vm, device)) >= FIO_DEPTH);
  }
  const inFlight = await requestsInFlight(vm, device);
  await node.killDaemon();
  await until("the host has seen it", async () => {
    return (await connectionState(vm, targetOf(scratch))) === node.stateWithoutDaemon;
  });
  const atKill = await done();
  const { writes, reads } = atKill;
  console.log(`kill -9 ${when}: ${writes} writes, ${reads} reads done, ${inFlight} in flight`);
  await sleep(1000);
  assert.equal(await done(), atKill, "nothing is answered while the daemon is dead");
  const restartMs = await node.startDaemon();
  await timed(`I/O goes on ${when}, daemon up after ${Math.round(restartMs)} ms`, () =>
    until("I/O", async () => {
      const now = await done();
      return now.writes + now.reads > writes + reads;
    }),
  );
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + node.patienceMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`${what}: not in ${node.patienceMs} ms`);
    await sleep(200);
  }
}
