// The report on a machine: complete and bare, on a file system of its own.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { examine, type Machine } from "../../nvmf/doctor.js";

let root: string;

test.before.each(() => {
  root = mkdtempSync(join(tmpdir(), "pando-doctor-"));
});

test.after.each(() => rmSync(root, { recursive: true, force: true }));

function put(path: string, text = ""): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

function link(path: string, target: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  symlinkSync(target, join(root, path));
}

async function report(more: Partial<Machine> = {}): Promise<Map<string, [boolean, string | null]>> {
  const machine = { root, kernel: "6.12.1", userId: 0, ublkMissing: async () => 0, ...more };
  const findings = await examine(machine);
  return new Map(findings.map(({ what, ok, remedy }) => [what, [ok, remedy]]));
}

test("a machine that has everything", async () => {
  put("/proc/mounts", "none /sys/kernel/config configfs rw 0 0\n");
  put("/proc/sys/kernel/io_uring_disabled", "0\n");
  put("/sys/kernel/config/nvmet/x");
  put("/sys/module/nvmet_tcp/x");
  put("/sys/module/nvme_tcp/x");
  put("/dev/ublk-control");
  put("/dev/nvme-fabrics");
  for (const [what, [ok]] of await report()) assert.ok(ok, what);
});

test("a bare machine: every gap with the command that mends it", async () => {
  put("/proc/sys/kernel/io_uring_disabled", "2\n");
  const found = await report({ kernel: "5.10.0", userId: 1000 });
  assert.equal(found.get("kernel"), [false, null]);
  assert.equal(found.get("io_uring"), [false, "sysctl -w kernel.io_uring_disabled=0"]);
  assert.equal(found.get("share --via nvmet: nvmet"), [false, "modprobe nvmet-tcp"]);
  assert.equal(found.get("share --via nvmet: ublk"), [false, "modprobe ublk_drv"]);
  assert.equal(found.get("share --via nvmet: rights"), [false, null]);
  assert.equal(found.get("connecting from this machine"), [false, "modprobe nvme-tcp"]);
  const mount = "mount -t configfs configfs /sys/kernel/config";
  assert.equal(found.get("share --via nvmet: configfs"), [false, mount]);
});

test("a ublk that is old, or does not answer", async () => {
  put("/dev/ublk-control");
  const old = await report({ ublkMissing: async () => 128 });
  assert.equal(old.get("share --via nvmet: ublk"), [false, null]);
  const silent = await report({ ublkMissing: () => Promise.reject(new Error("EPERM")) });
  assert.equal(silent.get("share --via nvmet: ublk"), [false, null]);
});

test("a device mounted among mounts that end with the daemon", async () => {
  put("/proc/self/mounts", "/dev/ublkb3 /mnt ext4 rw 0 0\n");
  link("/proc/self/ns/mnt", "mnt:[2]");
  link("/proc/1/ns/mnt", "mnt:[1]");
  assert.equal((await report()).get("share --via nvmet: mounts"), [false, "umount /mnt"]);
  rmSync(join(root, "/proc/1/ns/mnt"));
  link("/proc/1/ns/mnt", "mnt:[2]");
  assert.equal((await report()).get("share --via nvmet: mounts"), [true, null]);
});

test.run();
