// The oldest kernel that Pando is meant for, Linux 6.1: finds a volume, connects, uses it as a
// disk, and leaves.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { skip } from "../support/skip.js";
import { startVerify } from "./guest-fio.js";
import { connect, disconnect, discover, guestHost } from "./guest-nvme.js";
import { type PandoNode, startNode, targetOf } from "./pando-node.js";
import { timed } from "./timed.js";
import { vmSkipReason } from "./vm/prerequisites.js";
import { bootVm, hostAddress, type Vm } from "./vm/vm.js";

const FIO_MIB = 16;

const missing = await vmSkipReason({ kernel: "6.1", guestPrograms: ["nvme", "fio"] });
if (missing !== null) skip(missing);

let node: PandoNode;
let vm: Vm;

test.before(async () => {
  [node, vm] = await timed("daemon serves, VM is up", () =>
    Promise.all([
      startNode({ poolSize: "1GiB", advertise: hostAddress }),
      bootVm({ name: "old-kernel", kernel: "6.1" }),
    ]),
  );
});

test.after(async () => {
  await vm?.close();
  await node?.remove();
});

test("Linux 6.1 uses a volume", async () => {
  assert.match(await vm.must("uname -r"), /^6\.1\./);
  await node.pando("volume", "create", "disk", "--size", "256MiB");
  await node.pando("host", "allow", "disk", guestHost.hostNqn);
  const target = targetOf(await node.showVolume("disk"));

  assert.ok((await discover(vm, target)).includes(target.nqn), "discovery lists the volume");
  const device = await timed("nvme connect", () => connect(vm, target));
  const fio = await timed("fio writes and verifies", () => {
    return startVerify(vm, { device, sizeMiB: FIO_MIB, timeoutMs: 120_000 }).done;
  });
  assert.is(fio.verifiedBytes, FIO_MIB * 2 ** 20);

  // A file system trims and flushes too; what it holds is there after the next connect.
  const sum = await timed("mkfs.ext4, write, unmount", () =>
    vm.must(
      `mkfs.ext4 -q ${device} && mkdir -p /mnt/disk && mount -o discard ${device} /mnt/disk &&
       dd if=/dev/urandom of=/mnt/disk/file bs=1M count=8 status=none &&
       cp /mnt/disk/file /mnt/disk/doomed && sync && rm /mnt/disk/doomed && fstrim /mnt/disk &&
       sha256sum </mnt/disk/file && umount /mnt/disk`,
    ),
  );
  await disconnect(vm, target);
  assert.equal((await node.showVolume("disk")).sessions, []);

  const again = await timed("nvme connect again", () => connect(vm, target));
  assert.is(
    await vm.must(`mount ${again} /mnt/disk && sha256sum </mnt/disk/file && umount /mnt/disk`),
    sum,
  );
  await vm.must(`e2fsck -fn ${again} >&2`);
  await disconnect(vm, target);
  const complaints = await vm.must("dmesg | grep -E 'I/O error|EXT4-fs (error|warning)' || true");
  assert.is(complaints, "");
  assert.equal((await node.stopAndCheck()).problems, []);
});

test.run();
