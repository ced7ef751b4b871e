// Debian kernels for the VM, fetched once into the cache and never installed.
//
// A kernel appears in the cache by one rename: what is there is complete.
import { existsSync } from "node:fs";
import { access, mkdir, mkdtemp, readdir, rename, rm, symlink, unlink } from "node:fs/promises";
import { join } from "node:path";
import { FETCH_TIMEOUT_MS, privateApt } from "./apt.js";
import { runProgram, vmCacheDir } from "./host.js";

/** By the series that hosts run: trixie's and bookworm's. */
export const kernels = { "6.12": "trixie", "6.1": "bookworm" } as const;
export type KernelName = keyof typeof kernels;

export interface Kernel {
  /** As `uname -r` prints it. */
  version: string;
  vmlinuz: string;
  /** Holds lib/modules/VERSION, with its modules.dep. */
  modulesRoot: string;
  dir: string;
}

/**
 * Unpacked when the kernel is fetched, because the guest takes seconds for one. The guest loads
 * them with modprobe, as it does any other.
 */
const ON_DEMAND_MODULES = [
  "xfs",
  "nvmet-tcp",
  "nvme-loop",
  "ublk_drv",
  "nbd",
  "loop",
  "null_blk",
  "brd",
  "dm-log-writes",
  "dm-thin-pool",
];

/**
 * The kernel from the cache, or from the machine's Debian mirror. Rejects with a sentence that says
 * what is missing.
 */
export async function provideKernel(name: KernelName): Promise<Kernel> {
  const dir = join(vmCacheDir(), `linux-${name}`);
  if (!existsSync(dir)) await fetchInto(dir, name);
  const [version] = await readdir(join(dir, "lib/modules"));
  if (version === undefined) throw new Error(`${dir} holds no modules; delete it and try again`);
  const vmlinuz = join(dir, `boot/vmlinuz-${version}`);
  await access(vmlinuz);
  return { version, vmlinuz, modulesRoot: dir, dir };
}

/** The module files that loading these takes, dependencies first. */
export async function modulesInLoadOrder(
  { version, modulesRoot }: Pick<Kernel, "version" | "modulesRoot">,
  names: string[],
): Promise<string[]> {
  const paths = new Set<string>();
  for (const name of names) {
    const where = ["-d", modulesRoot, "-S", version];
    const lines = await runProgram("modprobe", [...where, "--show-depends", name]);
    for (const match of lines.matchAll(/^insmod (\S+)/gm)) paths.add(match[1] as string);
  }
  return [...paths];
}

async function fetchInto(dir: string, name: KernelName): Promise<void> {
  await mkdir(vmCacheDir(), { recursive: true });
  const work = await mkdtemp(join(vmCacheDir(), "fetch-"));
  try {
    const apt = await privateApt(work, kernels[name]);
    const depends = await runProgram("apt-cache", [...apt, "depends", "linux-image-amd64"]);
    const image = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
    if (image === undefined) throw new Error(`${kernels[name]} has no linux-image-amd64`);
    await runProgram("apt-get", [...apt, "download", image], {
      cwd: work,
      timeoutMs: FETCH_TIMEOUT_MS,
    });
    const [archive] = (await readdir(work)).filter((file) => file.endsWith(".deb"));
    if (archive === undefined) throw new Error(`apt-get downloaded no ${image}`);
    const root = join(work, "root");
    await runProgram("dpkg", ["-x", join(work, archive), root]);
    await indexModules(root, image.slice("linux-image-".length));
    // Another test may have fetched the same kernel meanwhile; then its copy stays.
    await rename(root, dir).catch((error: unknown) => {
      if (!existsSync(dir)) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/**
 * The package brings no modules.dep, and since trixie its modules are compressed and under /usr.
 */
async function indexModules(root: string, version: string): Promise<void> {
  if (!existsSync(join(root, "lib"))) await symlink("usr/lib", join(root, "lib"));
  for (const link of ["build", "source"]) {
    await unlink(join(root, "lib/modules", version, link)).catch(() => undefined);
  }
  await runProgram("depmod", ["-b", root, version]);
  for (const name of ON_DEMAND_MODULES) {
    // Not every kernel has every one.
    const kernel = { version, modulesRoot: root };
    for (const path of await modulesInLoadOrder(kernel, [name]).catch(() => [])) {
      if (path.endsWith(".xz") && existsSync(path)) await runProgram("xz", ["-d", path]);
    }
  }
  await runProgram("depmod", ["-b", root, version]);
}
