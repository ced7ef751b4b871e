// What a host of trixie's uses for NVMe/TCP over TLS, as a root of its own: nvme-cli, tlshd, keyctl
// and the libraries that they need. Fetched once into the cache, never installed; it appears there
// by one rename. A shell and the like are busybox's.
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, rename, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { FETCH_TIMEOUT_MS, privateApt } from "./apt.js";
import { findProgram, runProgram, vmCacheDir } from "./host.js";

const SUITE = "trixie";
const TOOLS = ["nvme-cli", "ktls-utils", "keyutils"];
/** Of what they depend on: libraries; the rest is for machines that boot. */
const LIBRARIES =
  "libatomic1 libc6 libffi8 libgcc-s1 libglib2.0-0t64 libgmp10 libgnutls30t64 libhogweed6t64 libidn2-0 " +
  "libjson-c5 libkeyutils1 libnettle8t64 libnl-3-200 libnl-genl-3-200 libnvme1t64 libp11-kit0 " +
  "libpcre2-8-0 libssl3t64 libtasn1-6 libunistring5 libuuid1 libzstd1 zlib1g";
const BUSYBOX_PROGRAMS = ["sh", "cat", "sleep"];

export async function provideHostTools(): Promise<string> {
  const dir = join(vmCacheDir(), `host-tools-${SUITE}`);
  if (existsSync(dir)) return dir;
  await mkdir(vmCacheDir(), { recursive: true });
  const work = await mkdtemp(join(vmCacheDir(), "fetch-"));
  try {
    const apt = [...(await privateApt(work, SUITE)), "-oDir::State::status=/dev/null"];
    await runProgram("apt-get", [...apt, "download", ...TOOLS, ...LIBRARIES.split(" ")], {
      cwd: work,
      timeoutMs: FETCH_TIMEOUT_MS,
    });
    const root = join(work, "root");
    for (const file of (await readdir(work)).filter((name) => name.endsWith(".deb"))) {
      await runProgram("dpkg", ["-x", join(work, file), root]);
    }
    for (const name of ["bin", "sbin", "lib", "lib64"]) {
      await symlink(`usr/${name}`, join(root, name)).catch(() => undefined);
    }
    for (const name of ["proc", "sys", "dev", "run", "tmp", "etc/nvme"]) {
      await mkdir(join(root, name), { recursive: true });
    }
    await copyFile(findProgram("busybox") as string, join(root, "usr/bin/busybox"));
    for (const name of BUSYBOX_PROGRAMS) await symlink("busybox", join(root, "usr/bin", name));
    await rename(root, dir).catch((error: unknown) => {
      if (!existsSync(dir)) throw error;
    });
    return dir;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
