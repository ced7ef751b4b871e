// The QEMU process: the guest's hardware on one command line.
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import type { Kernel } from "./kernel.js";

export interface Hardware {
  kernel: Kernel;
  initramfs: string;
  cpus: number;
  memoryMiB: number;
  /** A folder of the host, writable in the guest. */
  shareDir: string;
  /** A Unix socket that listens: the other end of the agent's serial port. */
  agentPath: string;
  consoleLog: string;
  /** A raw image of the host: /dev/vda, after `modprobe virtio_blk`. */
  disk: string | null;
  /** A port of the guest that the host's loopback has too. */
  forwardPort: number | null;
}

/** The guest may lose power; this machine is not meant to. */
const DISK_OPTIONS = "format=raw,if=virtio,cache=unsafe";

export function spawnQemu(hardware: Hardware): ChildProcess {
  const { kernel, forwardPort: port } = hardware;
  const forward = port === null ? "" : `,hostfwd=tcp:127.0.0.1:${port}-:${port}`;
  const share = (tag: string, fsdev: string) => [
    ...["-fsdev", `local,id=${tag},security_model=none,multidevs=remap,${fsdev}`],
    ...["-device", `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`],
  ];
  const args = [
    // Some machines show /dev/kvm and boot no guest with it; emulation is the same everywhere.
    ...["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"],
    ...["-smp", String(hardware.cpus), "-m", String(hardware.memoryMiB)],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-serial", `file:${hardware.consoleLog}`],
    ...["-kernel", kernel.vmlinuz, "-initrd", hardware.initramfs],
    "-append",
    [
      // The kernel's look whether timer interrupts come can fail on an emulated processor that has
      // to wait for a real one; it would not boot.
      ...["console=ttyS0", "quiet", "panic=-1", "mitigations=off", "no_timer_check"],
      `pando.modules=${join(kernel.modulesRoot, "lib/modules")}`,
    ].join(" "),
    ...share("root", "path=/,readonly=on"),
    ...share("share", `path=${hardware.shareDir}`),
    ...["-netdev", `user,id=net${forward}`, "-device", "virtio-net-pci,netdev=net,romfile="],
    ...["-device", "virtio-rng-pci"],
    ...["-chardev", `socket,id=agent,path=${hardware.agentPath}`, "-device", "virtio-serial-pci"],
    ...["-device", "virtserialport,chardev=agent,name=pando.agent"],
    ...(hardware.disk === null ? [] : ["-drive", `file=${hardware.disk},${DISK_OPTIONS}`]),
  ];
  // QEMU dies with this process, however it dies.
  return spawn("setpriv", ["--pdeathsig", "KILL", "--", "qemu-system-x86_64", ...args], {
    stdio: ["ignore", "ignore", "pipe"],
  });
}
