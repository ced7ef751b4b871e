// A volume served by the kernel's own target: daemon, ublk, nvmet and initiator in one guest. The
// daemon is killed under fio; the host sees no error, since the block device outlives it.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { skip } from "../support/skip.js";
import { startVerify } from "./guest-fio.js";
import { connect, disconnect, guestHost, type Target } from "./guest-nvme.js";
import type { Volume } from "./pando-node.js";
import { timed } from "./timed.js";
import { repositoryRoot } from "./vm/host.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, type Vm } from "./vm/vm.js";

const FIO_MIB = 16;
const SOCKET = "/run/pando-test/pando.sock";
const LOG = "/run/pando-test/log";

const missing = await vmSkipReason({ guestPrograms: ["nvme", "fio"] });
if (missing !== null) skip(missing);

let vm: Vm;
let daemons = 0;

test.before(async () => {
  vm = await timed("boot", () => bootVm({ name: "share-nvmet" }));
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
  const log = `${LOG}-${++daemons}`;
  vm.start(
    `node ${repositoryRoot}/dist/engine/cli/main.js daemon --pool /run/pando-test/pool \\
       --socket ${SOCKET} --nbd-socket none --metrics none --target 127.0.0.1:4420 \\
       --nvmet 127.0.0.1:4421 2>${log} & echo $! >/run/pando-test/pid; wait $!`,
    { timeoutMs: 300_000 },
  );
  await vm.must(`for attempt in $(seq 300); do
      grep -q '"msg":"serving"' ${log} && exit 0
      sleep 0.1
    done
    cat ${log} >&2; exit 1`);
}

test("share via nvmet, kill the daemon under I/O, unshare", async () => {
  await vm.must("modprobe -a nvmet-tcp ublk_drv && mkdir -p /run/pando-test");
  await pando("pool", "create", "/run/pando-test/pool", "--size", "256MiB");
  await timed("daemon serves", startDaemon);
  await pando("volume", "create", "db", "--size", "64MiB", "--socket", SOCKET);
  await pando("host", "allow", "db", guestHost.hostNqn, "--socket", SOCKET);
  await timed("share", () => pando("volume", "share", "db", "--via", "nvmet", "--socket", SOCKET));
  const volume = await show();
  assert.is(volume.sharedVia, "nvmet");
  assert.equal(volume.addresses, [{ traddr: "127.0.0.1", trsvcid: "4421" }]);

  const target: Target = { nqn: volume.nqn, traddr: "127.0.0.1", trsvcid: 4421 };
  const device = await timed("nvme connect", () => connect(vm, target));
  const name = device.replace("/dev/", "");
  assert.is((await vm.must(`cat /sys/block/${name}/uuid`)).trim(), volume.uuid);
  const refused = await vm.run(
    `pando() { node ${repositoryRoot}/dist/engine/cli/main.js "$@" --socket ${SOCKET}; }
     pando volume unshare db`,
  );
  assert.match(refused.stderr, /hosts are connected/);

  const fio = startVerify(vm, { device, sizeMiB: FIO_MIB, timeoutMs: 120_000 });
  await vm.must(`for attempt in $(seq 100); do
      [ "$(awk '{ print $5 }' </sys/block/${name}/stat)" -gt 100 ] && exit 0
      sleep 0.1
    done; exit 1`);
  await timed("kill -9, start again", async () => {
    await vm.must('kill -9 "$(cat /run/pando-test/pid)"');
    await startDaemon();
  });
  const result = await timed("fio writes and verifies", () => fio.done);
  assert.is(result.verifiedBytes, FIO_MIB * 2 ** 20);

  await timed("mkfs.ext4, write, read", () =>
    vm.must(
      `mkfs.ext4 -q ${device} && mkdir -p /mnt/db && mount -o discard ${device} /mnt/db &&
       dd if=/dev/urandom of=/mnt/db/file bs=1M count=4 status=none && sync &&
       rm /mnt/db/file && fstrim /mnt/db && umount /mnt/db && e2fsck -fn ${device} >&2`,
    ),
  );
  await disconnect(vm, target);
  await timed("unshare", () => pando("volume", "unshare", "db", "--force", "--socket", SOCKET));
  assert.is((await show()).sharedVia, null);
  assert.is(
    await vm.must("ls /sys/kernel/config/nvmet/subsystems /dev | grep -c -E 'ublkb|pando' || true"),
    "0\n",
  );
  const embedded = { ...target, trsvcid: 4420 };
  const again = await timed("connect to the daemon's own target", () => connect(vm, embedded));
  await vm.must(`e2fsck -fn ${again} >&2`);
  await disconnect(vm, embedded);

  await vm.must(`pid=$(cat /run/pando-test/pid); kill $pid
    for attempt in $(seq 200); do [ -d /proc/$pid ] || exit 0; sleep 0.1; done; exit 1`);
  await pando("pool", "check", "/run/pando-test/pool");
  const complaints = await vm.must("dmesg | grep -E 'I/O error|EXT4-fs (error|warning)' || true");
  assert.is(complaints, "");
});

test("doctor reports, whatever there is", async () => {
  const findings = JSON.parse(await pando("doctor", "--json")) as { what: string; ok: boolean }[];
  const failing = findings.filter(({ ok }) => !ok).map(({ what }) => what);
  assert.equal(failing, []);
});

test.run();
