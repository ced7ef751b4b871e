// A volume served by the kernel's own target: daemon, ublk, nvmet and initiator in one guest. The
// daemon is killed under fio; the host sees no error, since the block device outlives it. What a
// crash, another program or a restart of the machine leaves in the kernel is put right.
import { randomBytes } from "node:crypto";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { formatDhchapKey } from "../../engine/base/dhchap-key.js";
import { volumeNqn } from "../../engine/base/nqn.js";
import { skip } from "../support/skip.js";
import { completed, startVerify } from "./guest-fio.js";
import { connect, disconnect, guestHost, type Target } from "./guest-nvme.js";
import { startNode, targetOf, type Volume } from "./pando-node.js";
import { timed } from "./timed.js";
import { repositoryRoot } from "./vm/host.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, type Vm } from "./vm/vm.js";

const [kills = 2] = process.argv.slice(2).map(Number);
const FIO_MIB = 4;
/** Each block is overwritten so often; more kills need longer. */
const FIO_LOOPS = Math.max(10, kills * 5);
const RUN = "/run/pando-test";
const PATIENCE_MS = 300_000;
const SOCKET = `${RUN}/pando.sock`;
const CONFIG = "/sys/kernel/config/nvmet";
const ORPHAN_NQN = volumeNqn("00000000-0000-4000-8000-000000000001");
const FOREIGN_NQN = "nqn.2014-08.org.example:theirs";

const missing = await vmSkipReason({ guestPrograms: ["nvme", "fio"] });
if (missing !== null) skip(missing);

let vm: Vm;
let daemons = 0;
let volume: Volume;
let poolUuid: string;
let target: Target;
let device: string;

// Every program that starts in the guest is dear: the pool and its volume are made outside.
test.before(async () => {
  const booting = bootVm({ name: "share-nvmet", bootTimeoutMs: PATIENCE_MS });
  const node = await startNode({ poolSize: "256MiB", advertise: "127.0.0.1", sparse: true });
  try {
    await node.pando("volume", "create", "db", "--size", "64MiB");
    await node.pando("host", "allow", "db", guestHost.hostNqn);
    volume = await node.showVolume("db");
    ({ uuid: poolUuid } = (await node.pando("pool", "show")) as { uuid: string });
    await node.stopAndCheck();
    const guest = await timed("boot", () => booting);
    // An emulated guest is slow, on a busy machine very much so.
    const patient = { timeoutMs: PATIENCE_MS };
    vm = { ...guest, must: (script, options) => guest.must(script, options ?? patient) };
    await vm.must(
      `modprobe -a nvmet-tcp ublk_drv && mkdir -p ${RUN} &&
       cp -r --sparse=always ${node.pool} ${RUN}/pool`,
    );
  } finally {
    await node.remove();
  }
  target = { ...targetOf(volume), traddr: "127.0.0.1", trsvcid: 4421 };
});

test.after(async () => {
  await vm?.close();
});

function pando(...args: string[]): Promise<string> {
  return vm.must(`node ${repositoryRoot}/dist/engine/cli/main.js ${args.join(" ")}`);
}

async function show(): Promise<Volume & { sharedVia: string | null }> {
  return JSON.parse(await pando("volume", "show", "db", "--json", "--socket", SOCKET));
}

async function startDaemon(): Promise<void> {
  // On the host: there it can be read when nothing in the guest answers any more.
  const log = `$SHARE/daemon-${++daemons}.log`;
  vm.start(
    `node ${repositoryRoot}/dist/engine/cli/main.js daemon --pool ${RUN}/pool \\
       --socket ${SOCKET} --nbd-socket none --metrics none --target 127.0.0.1:4420 \\
       --nvmet 127.0.0.1:4421 2>"${log}" & echo $! >${RUN}/pid; wait $!`,
    { timeoutMs: 1_200_000 },
  );
  await vm.must(
    // Looking costs the daemon time: each program that starts is a tenth of a second here.
    `for attempt in $(seq 250); do
      grep -q '"msg":"serving"' "${log}" && exit 0
      [ $attempt -lt 10 ] || [ -d /proc/$(cat ${RUN}/pid) ] || break
      sleep 1
    done
    cat "${log}" /proc/locks >&2
    for process in /proc/[0-9]*; do
      grep -q -E 'ublk|nvmet|io_ring|do_exit' $process/stack && cat $process/comm $process/stack
    done >&2
    dmesg | tail -n 20 >&2
    exit 1`,
    { timeoutMs: PATIENCE_MS },
  );
}

function killDaemon(): Promise<string> {
  return vm.must(`kill -9 $(cat ${RUN}/pid)`);
}

/** Runs a line of JavaScript on the addon. */
function addon(line: string): Promise<string> {
  const module = `${repositoryRoot}/dist/native/native.js`;
  return vm.must(`node -e 'import("${module}").then(async ({ native }) => { ${line} })'`);
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 300; tries++) if (await holds()) return;
  throw new Error(`${what}: not in 300 looks`);
}

test("a volume is shared, and a host that has it keeps it", async () => {
  await timed("daemon serves", startDaemon);
  await timed("share", () => pando("volume", "share", "db", "--via", "nvmet", "--socket", SOCKET));
  const shared = await show();
  assert.is(shared.sharedVia, "nvmet");
  assert.equal(shared.addresses, [{ traddr: "127.0.0.1", trsvcid: "4421" }]);

  device = await timed("nvme connect", () => connect(vm, target));
  const name = device.replace("/dev/", "");
  assert.is((await vm.must(`cat /sys/block/${name}/uuid`)).trim(), volume.uuid);
  const refused = await vm.run(
    `node ${repositoryRoot}/dist/engine/cli/main.js volume unshare db --socket ${SOCKET}`,
    { timeoutMs: PATIENCE_MS },
  );
  assert.match(refused.stderr, /hosts are connected/);
  const mounts = await vm.must(
    `readlink /proc/self/ns/mnt; for task in /proc/$(cat ${RUN}/pid)/task/*; do
       readlink $task/ns/mnt
     done | sort -u`,
  );
  assert.is(new Set(mounts.trim().split("\n")).size, 2, "all of the daemon has mounts of its own");
});

test("the daemon is killed under I/O: no error, and no byte is wrong", async () => {
  const fio = startVerify(vm, { device, sizeMiB: FIO_MIB, loops: FIO_LOOPS, timeoutMs: 900_000 });
  const outcome = timed("fio writes and verifies", () => fio.done);
  outcome.catch(() => undefined);
  const requests = async () => {
    const { reads, writes } = await completed(vm, device);
    return reads + writes;
  };
  for (let kill = 1; kill <= kills; kill++) {
    const before = await requests();
    const more = async () => (await requests()) > before + 500;
    await Promise.race([until("fio gets on", more), outcome]);
    await killDaemon();
    const atKill = await requests();
    const inFlight = (await vm.must("cat /sys/block/ublkb*/inflight")).trim().replace(/\s+/, "+");
    await timed(`kill ${kill} after ${atKill} requests, ${inFlight} under way`, startDaemon);
    await Promise.race([until("fio goes on", async () => (await requests()) > atKill), outcome]);
  }
  const result = await outcome;
  assert.is(result.verifiedBytes, FIO_LOOPS * FIO_MIB * 2 ** 20);
  await timed("mkfs.ext4, write, read", () =>
    vm.must(
      `mkfs.ext4 -q ${device} && mkdir -p /mnt/db && mount -o discard ${device} /mnt/db &&
       dd if=/dev/urandom of=/mnt/db/file bs=1M count=4 status=none && sync &&
       rm /mnt/db/file && fstrim /mnt/db && umount /mnt/db && e2fsck -fn ${device} >&2`,
    ),
  );
  await disconnect(vm, target);
});

test("a host with keys proves itself to the kernel, and another key is refused", async () => {
  const keys = [1, 2].map(() => formatDhchapKey({ hash: "sha256", secret: randomBytes(32) }));
  await vm.must(`umask 077 && echo '${keys[0]}' >${RUN}/key`);
  const host = guestHost.hostNqn;
  const socket = ["--socket", SOCKET];
  await pando("host", "set-keys", host, "--key-file", `${RUN}/key`, ...socket);
  const refused = (more: string) =>
    connect(vm, target, guestHost, more).then(
      () => false,
      () => true,
    );
  assert.ok(await refused(""), "without a key");
  assert.ok(await refused(`--dhchap-secret='${keys[1]}'`), "with another key");
  const right = `--dhchap-secret='${keys[0]}'`;
  await timed("connect with the key", () => connect(vm, target, guestHost, right));
  await disconnect(vm, target);
  await pando("host", "remove-keys", host, ...socket);
});

test("the kernel is put right at the next start, and what others made is left", async () => {
  const digits = poolUuid.replaceAll("-", "");
  await killDaemon();
  // As after a restart of the machine: nothing of the volume is left; but there are orphans of this
  // pool, and things of others.
  const orphan = `${digits.slice(0, 6)}0123456789`;
  const foreign = `${digits.slice(0, 6) === "ffffff" ? "000000" : "ffffff"}0123456789`;
  const make = (owner: string) =>
    `await native.ublkAdd({ owner: "${owner}", sizeBytes: 2 ** 20, blockBytes: 4096, atomicBytes: 512, readOnly: false })`;
  await vm.must(
    `cd ${CONFIG} && for port in ports/*; do rm -f $port/subsystems/*; rmdir $port; done
     rm subsystems/*/allowed_hosts/* && rmdir subsystems/*/namespaces/* subsystems/* hosts/* &&
     mkdir subsystems/${ORPHAN_NQN} subsystems/${FOREIGN_NQN} &&
     echo 'Pando ${digits}' >subsystems/${ORPHAN_NQN}/attr_model`,
  );
  await addon(
    `const { readdirSync } = await import("node:fs");
     for (const name of readdirSync("/sys/class/ublk-char")) {
       const device = Number(name.slice(5));
       await native.ublkStop(device);
       await native.ublkDelete(device);
     }
     ${make(orphan)}; console.log(${make(foreign)});`,
  );
  await timed("start on a kernel that knows nothing", startDaemon);
  const left = await vm.must(`ls ${CONFIG}/subsystems; ls /sys/class/ublk-char | wc -l`);
  assert.equal(left.trim().split("\n").sort(), ["2", FOREIGN_NQN, target.nqn].sort());
  const again = await timed("connect", () => connect(vm, target));
  await vm.must(`e2fsck -fn ${again} >&2`);
  await disconnect(vm, target);
});

test("unshare gives the volume back to the daemon's own target", async () => {
  await timed("unshare", () => pando("volume", "unshare", "db", "--force", "--socket", SOCKET));
  assert.is((await show()).sharedVia, null);
  const left = await vm.must(`ls ${CONFIG}/subsystems ${CONFIG}/ports ${CONFIG}/hosts; ls /dev`);
  assert.not.match(left, /ublkb|pando|442/);
  assert.match(left, FOREIGN_NQN);
  const embedded = { ...target, trsvcid: 4420 };
  const again = await timed("connect to the daemon's own target", () => connect(vm, embedded));
  await vm.must(`e2fsck -fn ${again} >&2`);
  await disconnect(vm, embedded);

  await vm.must(`pid=$(cat ${RUN}/pid); kill $pid
    for attempt in $(seq 200); do [ -d /proc/$pid ] || exit 0; sleep 0.1; done; exit 1`);
  await pando("pool", "check", `${RUN}/pool`);
  const complaints = await vm.must("dmesg | grep -E 'I/O error|EXT4-fs (error|warning)' || true");
  assert.is(complaints, "");
});

test("doctor reports, whatever there is", async () => {
  const findings = JSON.parse(await pando("doctor", "--json")) as { what: string; ok: boolean }[];
  const failing = findings.filter(({ ok }) => !ok).map(({ what }) => what);
  assert.equal(failing, []);
});

test.run();
