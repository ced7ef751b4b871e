// The initramfs: a static busybox, the modules that the guest needs before it has a root, and
// init.sh.
//
// Modules are unpacked on the host, because the guest's emulated processor is slow and busybox's
// insmod reads plain .ko only, and listed in the order in which they load. The result is cached
// beside its kernel under a hash of all it was made from.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { findProgram, runProgram, vmSourceDir } from "./host.js";
import { type Kernel, modulesInLoadOrder } from "./kernel.js";

/**
 * What the guest needs for its root, and what every test uses. Each costs boot time, so the rest
 * (see ON_DEMAND_MODULES) is left to modprobe.
 */
const BOOT_MODULES = [
  "virtio_pci",
  "virtio_net",
  "virtio_console",
  "9pnet_virtio",
  "9p",
  "overlay",
  "ext4",
  "configfs",
  "nvme-tcp",
];

/** The path of the kernel's initramfs. */
export async function provideInitramfs(kernel: Kernel): Promise<string> {
  const busybox = findProgram("busybox");
  if (busybox === null) throw new Error("busybox is not installed");
  const modules = await modulesInLoadOrder(kernel, BOOT_MODULES);
  const init = await readFile(join(vmSourceDir, "init.sh"));
  const hash = createHash("sha256")
    .update(init)
    .update(await readFile(busybox))
    .update(`${kernel.version}\n${modules.join("\n")}`)
    .digest("hex")
    .slice(0, 16);
  const path = join(kernel.dir, `initramfs-${hash}.cpio`);
  if (!existsSync(path)) await pack({ path, busybox, modules, init, dir: kernel.dir });
  return path;
}

interface Contents {
  path: string;
  dir: string;
  busybox: string;
  modules: string[];
  init: Buffer;
}

async function pack({ path, dir, busybox, modules, init }: Contents): Promise<void> {
  const work = await mkdtemp(join(dir, "initramfs-"));
  const root = join(work, "root");
  try {
    await mkdir(join(root, "bin"), { recursive: true });
    await mkdir(join(root, "modules"));
    await copyFile(busybox, join(root, "bin/busybox"));
    await chmod(join(root, "bin/busybox"), 0o755);
    await writeFile(join(root, "init"), init, { mode: 0o755 });
    const order: string[] = [];
    for (const module of modules) {
      const name = basename(module).replace(/\.xz$/, "");
      await copyFile(module, join(root, "modules", basename(module)));
      if (module.endsWith(".xz")) {
        await runProgram("xz", ["-d", join(root, "modules", basename(module))]);
      }
      order.push(name);
    }
    await writeFile(join(root, "modules/order"), `${order.join("\n")}\n`);
    const archive = join(work, "initramfs.cpio");
    await runProgram("sh", [
      "-c",
      'cd "$1" && find . | cpio --quiet -o -H newc -R 0:0 > "$2"',
      "sh",
      root,
      archive,
    ]);
    await rename(archive, path);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
