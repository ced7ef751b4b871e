// A volume served by the kernel's own target: daemon, ublk, nvmet and initiator in one guest. The
// daemon is killed under fio; the host sees no error, since the block device outlives it. What a
// crash or another program leaves in the kernel is put right.
//
//     node dist/test/system/share-nvmet.test.js [KILLS [KERNEL]]
//
// With more than two kills it also has hosts prove themselves, and starts on a kernel that has
// forgotten everything. On Linux 6.1 NBD takes ublk's place.
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { formatDhchapKey } from "../../engine/base/dhchap-key.js";
import { volumeNqn } from "../../engine/base/nqn.js";
import { freePort, pandoCommand, runPando } from "../support/pando.js";
import { skip, testUnless } from "../support/skip.js";
import { FIO_DEPTH, requestsOf, startVerify } from "./guest-fio.js";
import { connect, disconnect, guestHost, type Target } from "./guest-nvme.js";
import { GuestPando, PATIENCE_MS } from "./guest-pando.js";
import { startNode, targetOf, type Volume } from "./pando-node.js";
import { timed } from "./timed.js";
import { repositoryRoot } from "./vm/host.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, type Vm } from "./vm/vm.js";

const kills = Number(process.argv[2] ?? 2);
const kernel = process.argv[3] === "6.1" ? "6.1" : "6.12";
/** What the old kernel's multipath devices have completed, they do not count. */
const modules =
  kernel === "6.1"
    ? "modprobe -r nvme-tcp nvme-fabrics nvme-core && modprobe nvme-core multipath=0 && modprobe -a nvme-tcp nvmet-tcp nbd"
    : "modprobe -a nvmet-tcp ublk_drv";
const FIO_MIB = 1;
/** Requests between two kills; each of them writes or verifies 8 KiB. */
const PACE = 500;
/** Beside the kills the volume grows, if it can. */
const growsOnline = kernel === "6.1";
const noUblk = kernel === "6.1" ? "Linux 6.1 has no ublk, and its nvmet no keys" : null;
/** Each block is overwritten so often: for twice as long as that takes. */
const FIO_LOOPS = Math.ceil(
  (2 * (kills + (growsOnline ? 3 : 1)) * PACE) / (2 * requestsOf(FIO_MIB)),
);
const LARGER = 80 * 2 ** 20;
const CONFIG = "/sys/kernel/config/nvmet";
const ORPHAN_NQN = volumeNqn("00000000-0000-4000-8000-000000000001");
const FOREIGN_NQN = "nqn.2014-08.org.example:theirs";

const missing = await vmSkipReason({ kernel, guestPrograms: ["nvme", "fio"] });
if (missing !== null) skip(missing);

let vm: Vm;
let daemons: GuestPando;
let volume: Volume;
let poolUuid: string;
let target: Target;
let device: string;

// The pool and its volume are made outside, where programs start quickly.
test.before(async () => {
  const apiPort = await freePort();
  const node = await startNode({ poolSize: "256MiB", advertise: "127.0.0.1", sparse: true });
  try {
    await node.pando("volume", "create", "db", "--size", "64MiB");
    await node.pando("host", "allow", "db", guestHost.hostNqn);
    volume = await node.showVolume("db");
    ({ uuid: poolUuid } = (await node.pando("pool", "show")) as { uuid: string });
    await node.stopAndCheck();
    const name = `share-nvmet-${kernel}${kills > 2 ? "-long" : ""}`;
    const options = {
      name,
      kernel,
      cpus: 2,
      bootTimeoutMs: PATIENCE_MS,
      forwardPort: apiPort,
    } as const;
    const guest = await timed("boot", () => bootVm(options));
    const patient = { timeoutMs: PATIENCE_MS };
    vm = { ...guest, must: (script, options) => guest.must(script, options ?? patient) };
    daemons = new GuestPando({
      vm,
      apiPort,
      pool: "/run/pool",
      settings: { target: "127.0.0.1:4420", nvmet: "127.0.0.1:4421" },
    });
    daemons.prepare();
    await vm.must(`${modules} && cp -r --sparse=always ${node.pool} /run/pool`);
  } finally {
    await node.remove();
  }
  target = { ...targetOf(volume), traddr: "127.0.0.1", trsvcid: 4421 };
});

test.after(async () => {
  daemons?.close();
  await vm?.close();
});

test("a volume is shared, and a host that has it keeps it", async () => {
  await timed("daemon serves", () => daemons.serve());
  const { client } = daemons;
  const shared = await timed("share", () => client.shareVolume("db", "nvmet"));
  assert.is(shared.sharedVia, "nvmet");
  assert.equal(shared.addresses, [{ traddr: "127.0.0.1", trsvcid: "4421" }]);

  device = await timed("nvme connect", () => connect(vm, target));
  const name = device.replace("/dev/", "");
  assert.is((await vm.must(`cat /sys/block/${name}/uuid`)).trim(), volume.uuid);
  const refused = await client.unshareVolume("db", { force: false }).catch((error) => error);
  assert.match(String(refused), /hosts are connected/);
  const mounts = await vm.must(
    `readlink /proc/self/ns/mnt; readlink /proc/$(cat ${daemons.pidFile})/task/*/ns/mnt | sort -u`,
  );
  assert.is(new Set(mounts.trim().split("\n")).size, 2, "all of the daemon has mounts of its own");
});

if (kills > 2) {
  test("connections that come and go, resets, a share that is taken away for a moment", async () => {
    await disconnect(vm, target);
    await timed("connect and disconnect ten times", async () => {
      for (let round = 0; round < 10; round++) {
        const found = await connect(vm, target);
        await vm.must(`dd if=${found} of=/dev/null bs=64k count=1 iflag=direct status=none`);
        await disconnect(vm, target);
      }
    });
    device = await connect(vm, target);
    const fio = startVerify(vm, { device, sizeMiB: 1, loops: 30, timeoutMs: 1_800_000 });
    const outcome = timed("fio writes and verifies", () => fio.done);
    outcome.catch(() => undefined);
    await timed("five resets", () =>
      vm.must(
        `for round in 1 2 3 4 5; do
           for controller in /sys/class/nvme/nvme*; do
             echo 1 >$controller/reset_controller
           done
           sleep 1
         done`,
      ),
    );
    const { client } = daemons;
    await timed("unshare under I/O", () => client.unshareVolume("db", { force: true }));
    await timed("share again", () => client.shareVolume("db", "nvmet"));
    assert.is((await outcome).verifiedBytes, 30 * 2 ** 20);
  });
}

test("the daemon is killed under I/O: no error, and no byte is wrong", async () => {
  daemons.prepare();
  await timed("another daemon is loaded", () => daemons.loaded());
  const fio = startVerify(vm, { device, sizeMiB: FIO_MIB, loops: FIO_LOOPS, timeoutMs: 1_800_000 });
  const outcome = timed("fio writes and verifies", () => fio.done);
  // If it ends before that, the kills were not under I/O.
  const failed = outcome.then(() => {
    throw new Error("fio has ended too early");
  });
  failed.catch(() => undefined);
  let completed = 0;
  for (let kill = 1; kill <= kills; kill++) {
    // The next one is killed as soon as fio has got on, whatever else it has done by then.
    if (kill > 1) await timed("the next daemon begins", () => daemons.begin());
    if (kill < kills) daemons.prepare();
    const after = completed + PACE;
    const killed = await Promise.race([daemons.killUnderLoad(device, after), failed]);
    console.log(
      `kill ${kill}: ${killed.device} requests of the block device were under way, ` +
        `${killed.host} of the host, ${killed.completed - completed} answered since the last`,
    );
    assert.ok(killed.device > 0 && killed.device <= FIO_DEPTH);
    assert.ok(killed.host >= killed.device, "they are the host's");
    assert.ok(killed.completed >= after);
    ({ completed } = killed);
  }
  await timed("the last daemon serves", () => daemons.serve());
  const grown = timed("grow", grow);
  await (growsOnline ? Promise.race([grown, failed]) : grown);
  const result = await outcome;
  assert.ok(FIO_LOOPS >= 10);
  assert.is(result.writtenBytes, FIO_LOOPS * FIO_MIB * 2 ** 20);
  assert.is(result.verifiedBytes, FIO_LOOPS * FIO_MIB * 2 ** 20);
  await timed("mkfs.ext4, write, trim", () =>
    vm.must(
      `mkfs.ext4 -q ${device} && mkdir -p /mnt/db && mount -o discard ${device} /mnt/db &&
       dd if=/dev/urandom of=/mnt/db/file bs=1M count=4 status=none && sync &&
       rm /mnt/db/file && fstrim /mnt/db && umount /mnt/db && e2fsck -fn ${device} >&2`,
    ),
  );
  await disconnect(vm, target);
});

if (kills > 2) {
  testUnless(noUblk === null ? "the kernel checks keys" : null, test)(
    "keys are refused where the kernel cannot check them",
    async () => {
      const keys = { host: formatDhchapKey({ hash: "sha256", secret: randomBytes(32) }) };
      const set = daemons.client.setHostKeys(guestHost.hostNqn, { ...keys, controller: null });
      const refusal = await set.catch((error) => error);
      assert.match(String(refusal), /nvmet of this kernel cannot check keys/);
    },
  );

  testUnless(noUblk, test)(
    "a host with keys proves itself to the kernel, and another key is refused",
    async () => {
      const [key, another] = [1, 2].map(() =>
        formatDhchapKey({ hash: "sha256", secret: randomBytes(32) }),
      );
      const { client } = daemons;
      await client.setHostKeys(guestHost.hostNqn, { host: key ?? "", controller: null });
      const refused = (more: string) =>
        connect(vm, target, guestHost, more).then(
          () => false,
          () => true,
        );
      assert.ok(await refused(""), "without a key");
      assert.ok(await refused(`--dhchap-secret='${another}'`), "with another key");
      const right = `--dhchap-secret='${key}'`;
      await timed("connect with the key", () => connect(vm, target, guestHost, right));
      await disconnect(vm, target);
      await client.removeHostKeys(guestHost.hostNqn);
    },
  );

  testUnless(noUblk, test)(
    "a start on a kernel that has forgotten everything, but has orphans",
    async () => {
      const digits = poolUuid.replaceAll("-", "").slice(0, 6);
      await daemons.kill();
      await vm.must(
        `cd ${CONFIG} && for port in ports/*; do rm -f $port/subsystems/*; rmdir $port; done
       rm subsystems/*/allowed_hosts/* && rmdir subsystems/*/namespaces/* subsystems/* hosts/*`,
      );
      const make = (owner: string) =>
        `await native.ublkAdd({ owner: "${owner}0123456789", sizeBytes: 2 ** 20, blockBytes: 4096,
         atomicBytes: 512, readOnly: false });`;
      await vm.must(
        `node -e 'import("${repositoryRoot}/dist/native/native.js").then(async ({ native }) => {
         const { readdirSync } = await import("node:fs");
         for (const name of readdirSync("/sys/class/ublk-char")) {
           const device = Number(name.slice(5));
           await native.ublkStop(device);
           await native.ublkDelete(device);
         }
         ${make(digits)} ${make(digits === "ffffff" ? "000000" : "ffffff")}
       })'`,
      );
      await timed("start", () => daemons.serve());
      assert.is((await vm.must("ls /sys/class/ublk-char | wc -l")).trim(), "2");
      const again = await timed("connect", () => connect(vm, target));
      await vm.must(`e2fsck -fn ${again} >&2`);
      await disconnect(vm, target);
    },
  );
}

/** A ublk device keeps its size; an NBD device's host sees the new one. */
async function grow(): Promise<void> {
  const { client } = daemons;
  const resized = client.resizeVolume("db", LARGER);
  if (!growsOnline) {
    const refused = await resized.catch((error) => error);
    return void assert.match(String(refused), /block device there keeps its size/);
  }
  assert.is((await resized).sizeBytes, LARGER);
  const sectors = `/sys/block/${device.replace("/dev/", "")}/size`;
  await vm.must(
    `for attempt in $(seq 300); do
       [ "$(cat ${sectors})" = ${LARGER / 512} ] && exit
       sleep 0.1
     done
     cat ${sectors}
     exit 1`,
  );
}

test("unshare cleans up, what others made is left, and the embedded target has the volume", async () => {
  const digits = poolUuid.replaceAll("-", "");
  // Left by a crash in the middle of an unshare, and another program's.
  await vm.must(
    `cd ${CONFIG} && mkdir subsystems/${ORPHAN_NQN} subsystems/${FOREIGN_NQN} &&
     echo 'Pando ${digits}' >subsystems/${ORPHAN_NQN}/attr_model`,
  );
  const unshared = await timed("unshare", () =>
    daemons.client.unshareVolume("db", { force: false }),
  );
  assert.is(unshared.sharedVia, null);
  const left = await vm.must(
    `cd ${CONFIG}; ls subsystems ports hosts; ls /dev; ls /sys/block/nbd*/backend 2>&1 || true`,
  );
  assert.not.match(left, new RegExp(`ublkb0|nbd0.backend|${ORPHAN_NQN}|${target.nqn}|442`));
  assert.match(left, FOREIGN_NQN);

  const embedded = { ...target, trsvcid: 4420 };
  const again = await timed("connect to the daemon's own target", () => connect(vm, embedded));
  await vm.must(`e2fsck -fn ${again} >&2`);
  await disconnect(vm, embedded);
  await timed("stop", () => daemons.kill("TERM"));
  const complaints = await vm.must("dmesg | grep -E 'I/O error|EXT4-fs (error|warning)' || true");
  assert.is(complaints, "");
  await vm.must('cp -r --sparse=always /run/pool "$SHARE/pool"');
  const check = await runPando(pandoCommand("real"), ["pool", "check", join(vm.shareDir, "pool")]);
  assert.is(check.code, 0, check.stderr);
});

test.run();
