// A real Linux kernel as a compute node: QEMU without hardware acceleration, the host's file system
// inside, and an agent that runs shell scripts.
//
// The guest sees the host's root read-only under an overlay in memory, so it has every program that
// the host has. It reaches the host's loopback at `hostAddress`.
import { rmSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Agent, type Job, type RunOptions, type RunResult, TAIL_CHARACTERS } from "./agent.js";
import { repositoryRoot, vmSourceDir } from "./host.js";
import { provideInitramfs } from "./initramfs.js";
import { type KernelName, provideKernel } from "./kernel.js";
import { spawnQemu } from "./qemu.js";
import { within } from "./within.js";

/** The host's 127.0.0.1 as the guest sees it. */
export const hostAddress = "10.0.2.2";

export interface VmOptions {
  kernel?: KernelName;
  memoryMiB?: number;
  /**
   * One unless a test needs queues of several: emulated ones wait for each other, and two kernels
   * with one each run side by side.
   */
  cpus?: number;
  /** Names the console log in test-output/. */
  name?: string;
  bootTimeoutMs?: number;
  /** A raw image, which the guest sees as /dev/vda after `modprobe virtio_blk`. */
  disk?: string;
  /** A port of the guest that the host reaches as its own, on 127.0.0.1. */
  forwardPort?: number;
}

export interface Vm {
  /** A folder of the host that the guest sees as $SHARE, writable. */
  shareDir: string;
  consoleLog: string;
  /** Starts a script (sh, as root) and does not wait. Scripts run at the same time. */
  start(script: string, options?: RunOptions): Job;
  /** Runs a script to its end, whatever its status. */
  run(script: string, options?: RunOptions): Promise<RunResult>;
  /** Runs a script that must succeed, and returns what it printed. */
  must(script: string, options?: RunOptions): Promise<string>;
  /** The guest stands still, and its network with it, until resume(). */
  pause(): void;
  resume(): void;
  /** Ends the guest as a power cut does. Harmless if called again. */
  close(): Promise<void>;
}

const BOOT_TIMEOUT_MS = 120_000;

/**
 * An emulated processor may stumble over the code that a booting kernel changes under another one.
 * That kernel panics, and is given a second try: whatever boots it tests something else.
 */
export async function bootVm(options: VmOptions = {}): Promise<Vm> {
  try {
    return await bootOnce(options);
  } catch (error) {
    if (!/Kernel panic/.test(String(error))) throw error;
    console.log("the VM's kernel has panicked while it booted; it is tried once more");
    return bootOnce(options);
  }
}

async function bootOnce(options: VmOptions): Promise<Vm> {
  const { kernel: kernelName = "6.12", memoryMiB = 3072, cpus = 1, name = "vm" } = options;
  const { bootTimeoutMs = BOOT_TIMEOUT_MS, disk = null, forwardPort = null } = options;
  const kernel = await provideKernel(kernelName);
  const initramfs = await provideInitramfs(kernel);
  const outputDir = join(repositoryRoot, "test-output");
  const consoleLog = join(outputDir, `console-${name}.log`);
  await mkdir(outputDir, { recursive: true });
  await writeFile(consoleLog, "");

  const dir = await mkdtemp(join(tmpdir(), "pando-vm-"));
  const removeDir = () => rmSync(dir, { recursive: true, force: true });
  process.once("exit", removeDir);
  const shareDir = join(dir, "share");
  await mkdir(shareDir);
  await copyFile(join(vmSourceDir, "agent.sh"), join(shareDir, "agent.sh"));

  const agentPath = join(dir, "agent.sock");
  const agent = await Agent.listen(agentPath, shareDir);
  const machine = { kernel, initramfs, cpus, memoryMiB };
  const hardware = { ...machine, shareDir, agentPath, consoleLog, disk, forwardPort };
  const qemu = spawnQemu(hardware);
  const consoleTail = async () => {
    const text = await readFile(consoleLog, "utf8").catch(() => "");
    return `its console (${consoleLog}) ends:\n${text.slice(-TAIL_CHARACTERS).trim()}`;
  };
  const exited = new Promise<void>((resolve) => {
    let complaint = "";
    qemu.stderr?.on("data", (text: Buffer) => {
      complaint = (complaint + text).slice(-TAIL_CHARACTERS);
    });
    const end = async (cause: string) => {
      agent.fail(new Error(`the VM ended: ${cause}; ${await consoleTail()}`));
      resolve();
    };
    qemu.once("error", (error) => end(error.message));
    qemu.once("close", (code, signal) =>
      end(`qemu exited with ${signal ?? code} ${complaint.trim()}`.trim()),
    );
  });

  const close = async () => {
    agent.fail(new Error("the VM is closed"));
    qemu.kill("SIGKILL");
    await exited;
    process.off("exit", removeDir);
    removeDir();
  };
  try {
    await within(agent.ready, bootTimeoutMs, async () => {
      return new Error(`the VM was not up in ${bootTimeoutMs} ms; ${await consoleTail()}`);
    });
  } catch (error) {
    await close();
    throw error;
  }

  const start = (script: string, runOptions?: RunOptions) => agent.start(script, runOptions);
  const run = async (script: string, runOptions?: RunOptions) => start(script, runOptions).done;
  const must = async (script: string, runOptions?: RunOptions) => {
    const { status, stdout, stderr } = await run(script, runOptions);
    if (status === 0) return stdout;
    const tail = `${stdout}${stderr}`.slice(-TAIL_CHARACTERS);
    throw new Error(`status ${status} in the VM: ${script.trim()}\n${tail}`);
  };
  const pause = () => void qemu.kill("SIGSTOP");
  const resume = () => void qemu.kill("SIGCONT");
  return { shareDir, consoleLog, start, run, must, pause, resume, close };
}
