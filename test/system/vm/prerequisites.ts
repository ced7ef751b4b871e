// Whether this machine can run the VM, and what to say if it cannot.
import { readFileSync } from "node:fs";
import { findProgram } from "./host.js";
import { provideInitramfs } from "./initramfs.js";
import { type KernelName, provideKernel } from "./kernel.js";

/** Programs and the Debian packages that bring them. */
const PROGRAMS = {
  "qemu-system-x86_64": "qemu-system-x86",
  busybox: "busybox-static",
  cpio: "cpio",
  modprobe: "kmod",
  depmod: "kmod",
  xz: "xz-utils",
  setpriv: "util-linux",
} as const;

/**
 * Null if `bootVm` can be called with this kernel and the guest will find `guestPrograms`; else
 * what is missing. Fetches the kernel if the cache has none.
 */
export async function vmSkipReason(
  options: { kernel?: KernelName; guestPrograms?: string[] } = {},
): Promise<string | null> {
  if (process.platform !== "linux" || process.arch !== "x64") return "needs Linux on x86-64";
  for (const [program, debianPackage] of Object.entries(PROGRAMS)) {
    if (findProgram(program) === null) {
      return `needs ${program} (Debian package ${debianPackage})`;
    }
  }
  if (!isStatic(findProgram("busybox") as string)) {
    return "needs a static busybox (Debian package busybox-static)";
  }
  for (const program of options.guestPrograms ?? []) {
    if (findProgram(program) === null) return `needs ${program}`;
  }
  const kernel = options.kernel ?? "6.12";
  try {
    await provideInitramfs(await provideKernel(kernel));
    return null;
  } catch (error) {
    return `needs a Linux ${kernel} kernel: ${(error as Error).message}`;
  }
}

/** A dynamic program names its loader near the start of the file. */
function isStatic(path: string): boolean {
  return !readFileSync(path).subarray(0, 4096).includes("ld-linux");
}
