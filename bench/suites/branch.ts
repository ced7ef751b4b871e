// Branching beside its peers: what a snapshot and a clone take, what they do to a load that goes
// on, what the first writes to a clone cost, and how all that grows. Pando, qcow2 images over a
// backing file, and reflinked raw files, each served over NBD. One subject after another.
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Plot, Table } from "../results.js";
import type { Branches } from "../subjects/branches.js";
import { pandoBranches } from "../subjects/pando-branches.js";
import { qcow2Branches } from "../subjects/qcow2-branches.js";
import { reflinkAbsence, reflinkBranches } from "../subjects/reflink-branches.js";
import type { Suite, SuiteContext } from "../suite.js";
import { callsTable, callTimes, sizePlot } from "./branch-calls.js";
import { scaleTable } from "./branch-scale.js";
import { stallPlot, stalls, stallTable } from "./branch-stalls.js";
import { firstWrites, growthPlot, writesPlot, writesTable } from "./branch-writes.js";

/** xfs takes no less. */
const MIN_PLACE_BYTES = 1024 ** 3;
/** The volumes of the steps, and what clones of them come to own. */
const PLACE_FACTOR = 8;

interface Candidate {
  name: string;
  absence: string | null;
  start(folder: string, bytes: number): Promise<Branches>;
}

function candidates(): Candidate[] {
  const reflinks = (["xfs", "btrfs"] as const).map((kind) => ({
    name: `${kind} reflink`,
    absence: reflinkAbsence(kind),
    start: (folder: string, bytes: number) => reflinkBranches(kind, folder, bytes),
  }));
  return [
    { name: "pando", absence: null, start: pandoBranches },
    { name: "qcow2", absence: null, start: qcow2Branches },
    ...reflinks,
  ];
}

export const branchSuite: Suite = {
  name: "branch",
  describe: "snapshots, clones and their first writes, beside qcow2 and reflinks of xfs and btrfs",
  needs: ["fio", "qemu-storage-daemon", "qemu-img", "mkfs.xfs", "mkfs.btrfs", "losetup"],
  async run(context) {
    const parts = {
      calls: callsTable(),
      stalls: stallTable(),
      writes: writesTable(),
      plots: { sizes: sizePlot(), stalls: stallPlot(), writes: writesPlot(), growth: growthPlot() },
    };
    const absent: string[] = [];
    for (const candidate of candidates()) {
      if (candidate.absence !== null) {
        absent.push(`${candidate.name}: ${candidate.absence}`);
        continue;
      }
      await measure(context, candidate, parts);
      context.say(`${candidate.name}: done`);
    }
    const { calls, stalls, writes, plots } = parts;
    const tables: Table[] = [calls.build(), stalls.build(), writes.build()];
    tables.push(await scaleTable(context));
    const all: Plot[] = [plots.stalls, plots.writes, plots.growth, plots.sizes];
    return { tables, plots: all, absent };
  },
};

interface Parts {
  calls: ReturnType<typeof callsTable>;
  stalls: ReturnType<typeof stallTable>;
  writes: ReturnType<typeof writesTable>;
  plots: { sizes: Plot; stalls: Plot; writes: Plot; growth: Plot };
}

async function measure(context: SuiteContext, candidate: Candidate, parts: Parts): Promise<void> {
  const folder = join(context.folder, candidate.name.replaceAll(" ", "-"));
  mkdirSync(folder);
  const bytes = Math.max(MIN_PLACE_BYTES, context.sizeBytes * PLACE_FACTOR);
  const branches = await candidate.start(folder, bytes);
  try {
    const { plots } = parts;
    await firstWrites(context, branches, parts.writes, plots);
    await stalls(context, branches, parts.stalls, plots.stalls);
    await callTimes(context, branches, parts.calls, plots.sizes);
  } finally {
    await branches.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}
