// The whole way of a request, from fio in a host's kernel over NVMe/TCP to what it is written to:
// Pando by its own target and by the kernel's, LVM's thin volumes and a raw file by the kernel's.
// Ratios only: it runs in a guest on an emulated processor.
//
// And the first overwrites after a snapshot, beside the same overwrites once more.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { vmSkipReason } from "../../test/system/vm/prerequisites.js";
import type { Vm } from "../../test/system/vm/vm.js";
import { type FioLane, PERCENTILES, parseResult } from "../fio-wrapper/index.js";
import { TableBuilder } from "../results.js";
import { median } from "../statistics.js";
import {
  type GuestDevice,
  type GuestDevices,
  guestDevicePrograms,
  startGuestDevices,
} from "../subjects/guest-devices.js";
import type { Suite, SuiteContext } from "../suite.js";
import { FILL, type Workload, workloadName } from "../workload.js";

const MAX_BYTES = 64 * 2 ** 20;
const STEP_TIMEOUT_MS = 600_000;
const WORKLOADS: Workload[] = [
  ...(["randread", "randwrite"] as const).flatMap((pattern) =>
    [1, 16].map((depth) => ({ pattern, blockBytes: 8192, depth })),
  ),
  { pattern: "read", blockBytes: 128 * 1024, depth: 4 },
  { pattern: "write", blockBytes: 128 * 1024, depth: 4 },
];
const OVERWRITE: Workload = { pattern: "randwrite", blockBytes: 8192, depth: 16 };
/** Of the device, at places all over it. */
const OVERWRITTEN_PART = 16;

export const systemSuite: Suite = {
  name: "system",
  describe: "from a kernel's host to four targets in an emulated VM, ratios only",
  needs: [],
  async run(context) {
    const missing = await vmSkipReason({ guestPrograms: guestDevicePrograms });
    if (missing !== null) return { tables: [], plots: [], absent: [`the VM: ${missing}`] };
    const sizeBytes = Math.min(MAX_BYTES, context.sizeBytes);
    context.status("starting the guest");
    const guest = await startGuestDevices({ sizeBytes, snapshots: context.rounds });
    try {
      const fio = new GuestFio(guest.vm, sizeBytes);
      for (const { name, device } of guest.devices) {
        context.status(`writing ${name} in full`);
        await fio.run(device, FILL, ["--end_fsync=1"]);
      }
      const note =
        `All of it in the memory of one guest whose processor is emulated (QEMU's TCG), ` +
        `${sizeBytes / 2 ** 20} MiB each: the figures are ratios within a round, and no more.`;
      const tables = [await sideBySide(context, guest, fio), await overwrites(context, guest, fio)];
      return { tables: tables.map((table) => table.build(note)), plots: [], absent: [] };
    } finally {
      await guest.close();
    }
  },
};

async function sideBySide(
  context: SuiteContext,
  { devices }: GuestDevices,
  fio: GuestFio,
): Promise<TableBuilder> {
  const [first] = devices as [GuestDevice];
  const table = new TableBuilder({
    id: "system",
    title: "fio over NVMe/TCP in a guest",
    metrics: [
      { name: `IOPS of ${first.name}`, unit: "", better: "higher", relative: true },
      { name: "p99 of its", unit: "", better: "lower", relative: true },
    ],
  });
  for (const workload of WORKLOADS) {
    const row = workloadName(workload);
    const seconds = Math.max(1, Math.round(context.seconds));
    for (let round = 0; round < context.rounds; round++) {
      let base: FioLane | null = null;
      for (const { name, device } of devices) {
        context.status(`${row}: ${name}, round ${round + 1} of ${context.rounds}`);
        const time = ["--time_based", "--norandommap", `--runtime=${seconds}`];
        const lane = await fio.run(device, workload, [...time, `--randseed=${round + 1}`]);
        base ??= lane;
        const p99 = lane.latency.percentilesUs[99] / base.latency.percentilesUs[99];
        table.add(row, name, [lane.iops / base.iops, p99]);
      }
    }
    context.say(`${row}: done`);
  }
  return table;
}

async function overwrites(
  context: SuiteContext,
  { devices }: GuestDevices,
  fio: GuestFio,
): Promise<TableBuilder> {
  const table = new TableBuilder({
    id: "system-overwrite",
    title: `Overwriting a sixteenth of a volume after a snapshot, of the same once more`,
    metrics: [{ name: "first of steady", unit: "", better: "higher", relative: true }],
  });
  const row = workloadName(OVERWRITE);
  const ratios = new Map<string, number[]>();
  for (let round = 0; round < context.rounds; round++) {
    for (const { name, device, snapshot } of devices) {
      if (snapshot === null) continue;
      context.status(`overwriting ${name}, round ${round + 1} of ${context.rounds}`);
      await snapshot(`round-${round}`);
      const places = [`--randseed=${round + 1}`, `--io_size=${fio.sizeBytes / OVERWRITTEN_PART}`];
      const first = await fio.run(device, OVERWRITE, places);
      const steady = await fio.run(device, OVERWRITE, places);
      table.add(row, name, [first.iops / steady.iops]);
      ratios.set(name, [...(ratios.get(name) ?? []), first.iops / steady.iops]);
    }
  }
  for (const [name, these] of ratios) {
    context.say(`${name}: first overwrites ${median(these).toFixed(2)} of steady`);
  }
  return table;
}

/** fio as a program of the guest, with direct I/O on a block device. */
class GuestFio {
  #runs = 0;

  constructor(
    private readonly vm: Vm,
    readonly sizeBytes: number,
  ) {}

  async run(device: string, workload: Workload, more: readonly string[]): Promise<FioLane> {
    this.#runs += 1;
    const report = `fio-${this.#runs}.json`;
    const { pattern, blockBytes, depth } = workload;
    await this.vm.must(
      `fio --name=load --filename=${device} --size=${this.sizeBytes} --direct=1 --ioengine=libaio \\
         --rw=${pattern} --bs=${blockBytes} --iodepth=${depth} \\
         --lat_percentiles=1 --clat_percentiles=0 --percentile_list=${PERCENTILES.join(":")} \\
         ${more.join(" ")} --output-format=json --output="$SHARE/${report}" >&2`,
      { timeoutMs: STEP_TIMEOUT_MS },
    );
    const { jobs } = parseResult(readFileSync(join(this.vm.shareDir, report), "utf8"));
    const [job] = jobs;
    if (job === undefined) throw new Error("fio gave no result");
    return job.read.ios > 0 ? job.read : job.write;
  }
}
