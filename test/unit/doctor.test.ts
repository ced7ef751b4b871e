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
  const kernel = { kernel: "6.12.1", ublkMissing: async () => 0, nbdIsLoaded: async () => false };
  const machine = { root, userId: 0, ...kernel, ...more };
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
  put("/proc/kallsyms", "0 t nvmet_tcp_tls_handshake_done\t[nvmet_tcp]\n0 t nvme_tcp_tls_done\n");
  put("/proc/221/comm", "tlshd\n");
  for (const [what, [ok]] of await report()) assert.ok(ok, what);
});

test("a bare machine: every gap with the command that mends it", async () => {
  put("/proc/sys/kernel/io_uring_disabled", "2\n");
  const found = await report({ kernel: "5.10.0", userId: 1000 });
  assert.equal(found.get("kernel"), [false, null]);
  assert.equal(found.get("io_uring"), [false, "sysctl -w kernel.io_uring_disabled=0"]);
  assert.equal(found.get("share --via nvmet: nvmet"), [false, "modprobe nvmet-tcp"]);
  const devices = "share --via nvmet: ublk or nbd";
  assert.equal(found.get(devices), [false, "modprobe ublk_drv || modprobe nbd"]);
  assert.equal(found.get("share --via nvmet: rights"), [false, null]);
  assert.equal(found.get("connecting from this machine"), [false, "modprobe nvme-tcp"]);
  const mount = "mount -t configfs configfs /sys/kernel/config";
  assert.equal(found.get("share --via nvmet: configfs"), [false, mount]);
});

test("TLS: of a kernel that has it, that has not, that has not loaded it", async () => {
  const kernel = "TLS of Linux's target and hosts";
  assert.equal((await report()).get(kernel), [false, "modprobe -a nvmet-tcp nvme-tcp"]);
  put("/sys/module/nvmet_tcp/x");
  put("/sys/module/nvme_tcp/x");
  assert.equal((await report()).get(kernel), [false, null]);
  put("/proc/kallsyms", "0 t nvmet_tcp_tls_handshake_done\n");
  assert.equal((await report()).get(kernel), [false, null]);
  put("/proc/kallsyms", "0 t nvmet_tcp_tls_handshake_done\n0 t nvme_tcp_tls_done\n");
  put("/proc/1/comm", "init\n");
  assert.equal((await report()).get(kernel), [true, null]);
  const start = "apt install ktls-utils && systemctl enable --now tlshd";
  assert.equal((await report()).get(`${kernel}: tlshd`), [false, start]);
});

test("a ublk that is old, or does not answer: NBD takes its place", async () => {
  put("/dev/ublk-control");
  const devices = "share --via nvmet: ublk or nbd";
  const old = { ublkMissing: async () => 128 };
  assert.equal((await report(old)).get(devices), [false, "modprobe nbd"]);
  const silent = { ublkMissing: () => Promise.reject(new Error("EPERM")) };
  assert.equal((await report(silent)).get(devices), [false, "modprobe nbd"]);
  const nbdIsLoaded = async () => true;
  assert.equal((await report({ ...old, nbdIsLoaded })).get(devices), [true, null]);
  rmSync(join(root, "/dev/ublk-control"));
  assert.equal((await report({ nbdIsLoaded })).get(devices), [true, null]);
  const nothing = () => Promise.reject(new Error("no netlink"));
  assert.is((await report({ nbdIsLoaded: nothing })).get(devices)?.[0], false);
});

test("a device mounted among mounts that end with the daemon", async () => {
  put("/proc/self/mounts", "/dev/ublkb3 /mnt ext4 rw 0 0\n");
  link("/proc/self/ns/mnt", "mnt:[2]");
  link("/proc/1/ns/mnt", "mnt:[1]");
  assert.equal((await report()).get("share --via nvmet: mounts"), [false, "umount /mnt"]);
  put("/proc/self/mounts", "/dev/nbd3 /mnt ext4 rw 0 0\n/dev/nbd4 /db ext4 rw 0 0\n");
  put("/sys/block/nbd3/backend", "qemu\n");
  assert.equal((await report()).get("share --via nvmet: mounts"), [true, null]);
  put("/sys/block/nbd4/backend", "pando 1 2\n");
  assert.equal((await report()).get("share --via nvmet: mounts"), [false, "umount /db"]);
  rmSync(join(root, "/proc/1/ns/mnt"));
  link("/proc/1/ns/mnt", "mnt:[2]");
  assert.equal((await report()).get("share --via nvmet: mounts"), [true, null]);
});

test.run();
