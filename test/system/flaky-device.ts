// Postgres commits on a branch while the device of the pool fails under it: in one life of the
// daemon its writes are dropped and said to be done from some moment on, as in a power cut with
// nobody to notice; in the next they end with an error. What Postgres had acknowledged until the
// writes were dropped is there afterwards, and with the errors all that it ever acknowledged.
//
// Everything but the making of the pool happens in one VM: the pool and its store are on one
// device of dm-flakey, the volume comes back over NVMe/TCP on the guest's loopback. That takes
// minutes, since an emulated processor is slow to load a daemon, so this is run by hand:
//
//   npm run flaky-device
import { spawnSync } from "node:child_process";
import { truncateSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { pandoCommand, temporaryFolder } from "../support/pando.js";
import { needsCommands, skip } from "../support/skip.js";
import { connect, guestHost } from "./guest-nvme.js";
import { amcheck, postgresPrograms, query, startCluster, sums } from "./guest-postgres.js";
import { startNode, targetOf, type Volume } from "./pando-node.js";
import { makePostgresImage } from "./postgres-image.js";
import { timed } from "./timed.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, type Vm } from "./vm/vm.js";

const test = suite("flaky device");
const SECTOR = 512;
const MIB = 1024 * 1024;
const META_MIB = 64;
const POOL_MIB = 192;
const VOLUME_MIB = 96;
const PORT = 4420;
/** Emulated, on a machine that may be busy. */
const patient = { timeoutMs: 600_000 };
const ACKNOWLEDGED = "/tmp/acknowledged";
const DAEMON_LOG = "/tmp/daemon.log";
const cluster = { mountPoint: "/mnt/db", port: 5501 };

const missing =
  needsCommands("mkfs.ext4") ??
  (await vmSkipReason({
    guestPrograms: ["node", "nvme", "dmsetup", "mkfs.ext4", "stdbuf", ...postgresPrograms],
  }));
if (missing !== null) skip(missing);

const sectors = ((META_MIB + POOL_MIB) * MIB) / SECTOR;
const metaSectors = (META_MIB * MIB) / SECTOR;
/** Up all the time, or down from now on. */
const WHOLE = `0 ${sectors} flakey /dev/vda 0 3600 0`;
const DROPS = `0 ${sectors} flakey /dev/vda 0 0 3600 1 drop_writes`;
const FAILS = `0 ${sectors} flakey /dev/vda 0 0 3600 1 error_writes`;

const folder = temporaryFolder();
let vm: Vm;
let volume: Volume;

test.after(async () => {
  await vm?.close();
  folder.remove();
});

test.before(async () => {
  const image = await timed("a cluster, as an image", async () =>
    makePostgresImage({
      folder: folder.path,
      sizeMiB: VOLUME_MIB,
      sql: "create table steps (step int primary key);",
      pgbenchScale: 1,
    }),
  );
  const disk = join(folder.path, "disk.img");
  await timed("a pool with a branch of it, as a disk", async () => {
    const poolSize = `${POOL_MIB}MiB`;
    const node = await startNode({ poolSize, advertise: "127.0.0.1", sparse: true, nbd: true });
    try {
      await node.pando("volume", "import", image, "origin");
      await node.pando("volume", "clone", "origin", "db");
      await node.pando("host", "allow", "db", guestHost.hostNqn);
      volume = await node.showVolume("db");
      assert.ok((await node.stopAndCheck()).clean);
      host("mkfs.ext4", "-q", "-b", "4096", "-d", join(node.pool, "meta"), disk, `${META_MIB}M`);
      const data = [`if=${join(node.pool, "data")}`, `of=${disk}`, "bs=1M", `seek=${META_MIB}`];
      host("dd", ...data, "conv=notrunc,sparse", "status=none");
      truncateSync(disk, (META_MIB + POOL_MIB) * MIB);
    } finally {
      await node.remove();
    }
  });
  vm = await timed("boot", () => bootVm({ name: "flaky-device", memoryMiB: 3072, disk }));
  await vm.must(`set -e
    modprobe -a virtio_blk dm-flakey nvme-tcp
    dm() { dmsetup --noudevrules --noudevsync create "$1" --table "$2"; }
    dm flaky "${WHOLE}"
    flaky=/dev/dm-$(dmsetup info -c --noheadings -o minor flaky)
    dm meta "0 ${metaSectors} linear $flaky 0"
    dm data "0 ${sectors - metaSectors} linear $flaky ${metaSectors}"
    mkdir -p /mnt/meta ${cluster.mountPoint}`);
});

function host(program: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(program, args);
  assert.is(status, 0, `${program}: ${stderr}`);
}

/** The daemon, the volume, its file system, Postgres: each as it is found. */
async function start(): Promise<void> {
  await timed("the daemon serves", () =>
    vm.must(
      `set -e
      node() { echo /dev/dm-$(dmsetup info -c --noheadings -o minor "$1"); }
      mount $(node meta) /mnt/meta
      ${process.execPath} ${pandoCommand("real")} daemon --pool $(node data) \\
        --meta /mnt/meta --socket /run/pando.sock --nbd-socket none --metrics none \\
        --target 127.0.0.1:${PORT} </dev/null >/dev/null 2>${DAEMON_LOG} &
      echo $! >/run/daemon.pid
      for attempt in $(seq 600); do
        grep -q '"msg":"serving"' ${DAEMON_LOG} && exit
        kill -0 $(cat /run/daemon.pid) || break
        sleep 0.1
      done
      cat ${DAEMON_LOG}
      exit 1`,
      patient,
    ),
  );
  const device = await connect(vm, { ...targetOf(volume), trsvcid: PORT });
  await vm.must(
    `set -e
    mount ${device} ${cluster.mountPoint}
    chown -R postgres: ${cluster.mountPoint}`,
    patient,
  );
  await timed("Postgres takes connections", () => startCluster(vm, cluster));
}

/** One row after the other, each committed by itself and only then noted; pgbench beside it. */
async function load(): Promise<void> {
  const [, , , pgbench] = postgresPrograms as [string, string, string, string];
  const client = `-U postgres -h /tmp -p ${cluster.port} postgres`;
  const first = 1 + Number(await query(vm, cluster, "select coalesce(max(step), 0) from steps;"));
  await vm.must(
    `echo ${first - 1} >${ACKNOWLEDGED}
    seq ${first} 1000000 | sed 's/.*/insert into steps values (&);\\n\\\\echo &/' |
      stdbuf -oL psql -X -q -v ON_ERROR_STOP=1 ${client} >>${ACKNOWLEDGED} 2>/dev/null &
    ${pgbench} -n -c 1 -T 3600 ${client} >/dev/null 2>&1 &
    for attempt in $(seq 600); do
      [ $(tail -n1 ${ACKNOWLEDGED}) -ge ${first + 20} ] && exit
      sleep 0.1
    done
    exit 1`,
    patient,
  );
}

const acknowledged = async () => Number(await vm.must(`tail -n1 ${ACKNOWLEDGED}`));

/** Returns what was acknowledged before the device began to fail. */
async function fail(table: string): Promise<number> {
  const before = await acknowledged();
  await vm.must(`set -e
    dmsetup load flaky --table "${table}"
    dmsetup suspend --nolockfs --noudevsync flaky
    dmsetup resume --noudevsync flaky`);
  return before;
}

/**
 * Ends everything at once, and gives the device its writes back: as after a power cut, which takes
 * what outlives a daemon alone, too.
 */
async function powerCycle(): Promise<void> {
  await timed("all ends, the device is whole again", () =>
    vm.must(
      `pkill -9 -x psql; pkill -9 -x pgbench; pkill -9 -x postgres
      kill -9 $(cat /run/daemon.pid)
      rm /dev/shm/pando-*.unflushed || exit 1
      nvme disconnect -n ${volume.nqn} >/dev/null
      for place in ${cluster.mountPoint} /mnt/meta; do
        for attempt in $(seq 100); do
          umount $place 2>/dev/null || sleep 0.1
          mountpoint -q $place || break
        done
      done
      ! mountpoint -q ${cluster.mountPoint} && ! mountpoint -q /mnt/meta || exit 1
      set -e
      dmsetup load flaky --table "${WHOLE}"
      dmsetup suspend --nolockfs --noudevsync flaky
      dmsetup resume --noudevsync flaky
      echo 3 >/proc/sys/vm/drop_caches`,
      patient,
    ),
  );
}

/** Every step up to the last one that is there, and pgbench's sums. */
async function assertWhole(): Promise<number> {
  const [rows, last] = (await query(vm, cluster, "select count(*), max(step) from steps;"))
    .split("|")
    .map(Number) as [number, number];
  assert.is(rows, last, "no step is missing");
  const { accounts, tellers, branches, history } = await sums(vm, cluster);
  assert.equal([tellers, branches, history], [accounts, accounts, accounts]);
  return last;
}

test("writes are dropped from one moment on: what was acknowledged before is there", async () => {
  await start();
  await load();
  const before = await fail(DROPS);
  // The device lies now, so Postgres goes on and commits what will be gone.
  await vm.must(
    `for attempt in $(seq 300); do
      [ $(tail -n1 ${ACKNOWLEDGED}) -ge ${before + 20} ] && exit
      sleep 0.1
    done
    exit 1`,
    patient,
  );
  const after = await acknowledged();
  await powerCycle();
  await start();
  const found = await assertWhole();
  console.log(`acknowledged ${before}, then ${after} on the lying device; found ${found}`);
  assert.ok(found >= before, `${before} was acknowledged, ${found} is there`);
  assert.ok(found < after, "writes were dropped");
});

test("writes fail from one moment on: all that was acknowledged is there", async () => {
  await load();
  const before = await fail(FAILS);
  // Or it has not, and goes on with what will not be there.
  await timed("the client has noticed", () =>
    vm.must(
      `for attempt in $(seq 1000); do
        pgrep -x psql || exit 0
        [ $(tail -n1 ${ACKNOWLEDGED}) -ge ${before + 100} ] && exit
        sleep 0.1
      done
      exit 1`,
      patient,
    ),
  );
  const after = await acknowledged();
  await powerCycle();
  await start();
  const found = await assertWhole();
  console.log(`acknowledged ${before}, ${after} at the end; found ${found}`);
  assert.ok(found >= after, `${after} was acknowledged, ${found} is there`);
  await timed("pg_amcheck", () => amcheck(vm, cluster));
});

test.run();
