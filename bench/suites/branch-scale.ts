// Many clones on one node, of Pando alone: what each costs to make when there are many, and what
// all of them cost while nobody uses them.
import { join } from "node:path";
import { type Table, TableBuilder } from "../results.js";
import { median } from "../statistics.js";
import { servePando } from "../subjects/pando.js";
import { pause } from "../subjects/server-process.js";
import type { SuiteContext } from "../suite.js";

const CLONES_PER_SECOND = 1000;
const MIN_CLONES = 100;
/** The first and the last of them are compared. */
const PART = 10;
const VOLUME_BYTES = 1024 ** 4;
const POOL_BYTES = 1024 ** 3;
const MIB = 1024 * 1024;

export async function scaleTable(context: SuiteContext): Promise<Table> {
  const table = new TableBuilder({
    id: "branch-scale",
    title: "Many clones of a snapshot of 1 TiB, in one pool",
    metrics: [{ name: "figure", unit: "", better: "lower", relative: false }],
  });
  const count = Math.max(MIN_CLONES, Math.round(context.seconds * CLONES_PER_SECOND));
  const server = await servePando(join(context.folder, "pool"), {
    poolBytes: POOL_BYTES,
    sparse: true,
  });
  const { client } = server;
  const record = (what: string, value: number) => table.add(what, `${count} clones`, [value]);
  try {
    await client.createVolume("origin", VOLUME_BYTES);
    await client.createSnapshot("origin", "base");
    const alone = server.process.residentBytes();
    const times: number[] = [];
    for (let i = 0; i < count; i++) {
      if (i % 100 === 0) context.status(`scale: ${i} of ${count} clones`);
      const started = performance.now();
      await client.cloneVolume({ volume: "origin", snapshot: "base" }, `clone-${i}`);
      times.push(performance.now() - started);
    }
    const part = Math.ceil(count / PART);
    record("a clone, median of the first tenth (ms)", median(times.slice(0, part)));
    record("a clone, median of the last tenth (ms)", median(times.slice(-part)));
    context.status("scale: restart");
    record("restart, until it serves (ms)", await server.restart());
    const started = performance.now();
    await client.listVolumes();
    record("list of all volumes (ms)", performance.now() - started);
    record("resident memory with one volume (MiB)", alone / MIB);
    context.status("scale: idle");
    const idleMs = Math.round(context.seconds * 2000);
    const cpuBefore = server.process.cpuSeconds();
    await pause(idleMs);
    const cpu = server.process.cpuSeconds() - cpuBefore;
    record("resident memory with all of them (MiB)", server.process.residentBytes() / MIB);
    record("CPU while idle (% of a core)", (cpu / (idleMs / 1000)) * 100);
    return table.build();
  } finally {
    await server.stop();
  }
}
