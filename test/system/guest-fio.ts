// fio in a guest: writes every block of a device in random order, then reads all of it back and
// verifies it, as often as it is told to.
//
// Nothing is flushed before the end: what was acknowledged has to be there for a host that stays
// up, whatever happens to the daemon meanwhile.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Vm } from "./vm/vm.js";

export interface VerifyOptions {
  device: string;
  sizeMiB: number;
  timeoutMs: number;
  /** How often the same blocks are written and verified. */
  loops?: number;
}

export interface VerifyResult {
  writtenBytes: number;
  verifiedBytes: number;
}

export interface VerifyRun {
  /** Rejects if fio saw an I/O error or a block that is not what was written. */
  done: Promise<VerifyResult>;
}

const BLOCK_BYTES = 8192;
/** Requests that fio keeps waiting for. */
export const FIO_DEPTH = 8;

export function startVerify(vm: Vm, options: VerifyOptions): VerifyRun {
  const { device, sizeMiB, timeoutMs, loops = 1 } = options;
  const report = `fio-${device.replace("/dev/", "")}.json`;
  const job = vm.start(
    `fio --name=verify --filename=${device} --size=${sizeMiB}M --bs=${BLOCK_BYTES} \\
       --loops=${loops} --rw=randwrite --ioengine=libaio --direct=1 --iodepth=${FIO_DEPTH} \\
       --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 \\
       --output-format=json --output="$SHARE/${report}"`,
    { timeoutMs },
  );
  return { done: job.done.then((result) => judge(result)) };

  async function judge({ status, stderr }: { status: number; stderr: string }) {
    const text = await readFile(join(vm.shareDir, report), "utf8").catch(() => "");
    const start = text.indexOf("{");
    if (status !== 0 || start < 0) {
      throw new Error(`fio on ${device}: status ${status}\n${stderr}${text.slice(0, start)}`);
    }
    const { jobs } = JSON.parse(text.slice(start)) as {
      jobs: { error: number; write: { io_bytes: number }; read: { io_bytes: number } }[];
    };
    const [only] = jobs;
    if (only === undefined || only.error !== 0) throw new Error(`fio on ${device}: ${text}`);
    return { writtenBytes: only.write.io_bytes, verifiedBytes: only.read.io_bytes };
  }
}

/** Requests that the device has completed since it appeared. */
export async function completed(
  vm: Vm,
  device: string,
): Promise<{ reads: number; writes: number }> {
  const fields = (await vm.must(`cat /sys/block/${device.replace("/dev/", "")}/stat`))
    .trim()
    .split(/\s+/)
    .map(Number);
  return { reads: fields[0] ?? 0, writes: fields[4] ?? 0 };
}

export function requestsOf(sizeMiB: number): number {
  return (sizeMiB * 1024 * 1024) / BLOCK_BYTES;
}
