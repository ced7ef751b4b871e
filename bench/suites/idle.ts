// What the daemon needs while nobody does anything, after a load: with one volume, with very many,
// and with hosts that stay connected and send keep-alives. And how soon a host has its volume,
// against how many volumes there are. To be flat, and near nothing, is the figure.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { NvmeHost } from "../../test/support/nvme-host.js";
import { type Plot, TableBuilder } from "../results.js";
import { median, quantile } from "../statistics.js";
import { makeCrowdedPool } from "../subjects/crowded-pool.js";
import { type PandoServer, serveExisting } from "../subjects/pando.js";
import { pause } from "../subjects/server-process.js";
import type { Suite, SuiteContext } from "../suite.js";
import { runNvmeLoad, type Workload, workloadName } from "../workload.js";

interface Crowd {
  things: number;
  connected: number;
}

const CROWDS: Crowd[] = [
  { things: 1, connected: 0 },
  { things: 1000, connected: 0 },
  { things: 10_000, connected: 1000 },
  { things: 100_000, connected: 0 },
];
/** Shorter runs only want to see that it works: one crowd, and a part of it. */
const WHOLE_SECONDS = 2;
const ATTACHES = 50;
const LOAD: Workload = { pattern: "randwrite", blockBytes: 8192, depth: 16 };
const LOAD_BYTES = 256 * 2 ** 20;
const VOLUME_BYTES = 16 * 2 ** 30;
const POOL_BYTES = 64 * 2 ** 30;
const MIB = 2 ** 20;
const FAMILY = 9;
/** As Linux has it. */
const KEEP_ALIVE_MS = 5000;

export const idleSuite: Suite = {
  name: "idle",
  describe: "the daemon's CPU and memory after a load, with up to 100,000 volumes",
  needs: [],
  async run(context) {
    const table = new TableBuilder({
      id: "idle",
      title: `Idle after a load: ${workloadName(LOAD)}`,
      metrics: [{ name: "figure", unit: "", better: "lower", relative: false }],
    });
    const attachPlot: Plot = {
      id: "idle-attach",
      title: "Until a host has connected to its volume, against volumes and snapshots in the pool",
      x: { label: "volumes and snapshots", scale: "log" },
      y: { label: "ms", scale: "linear" },
      lines: [],
      marks: [],
    };
    const points: { p50: [number, number][]; longest: [number, number][] } = {
      p50: [],
      longest: [],
    };
    const part = Math.min(1, context.seconds / WHOLE_SECONDS);
    const attaches = Math.ceil(ATTACHES * part);
    for (const crowd of crowdsOf(part)) {
      const { things, connected } = crowd;
      const name = things.toLocaleString("en");
      const also = connected === 0 ? "" : `, ${connected.toLocaleString("en")} connected`;
      const column = `${name}${also}`;
      const record = (row: string, value: number) => table.add(row, column, [value]);
      const times = await measure(context, { ...crowd, attaches }, record);
      points.p50.push([things, median(times)]);
      points.longest.push([things, quantile(times, 1)]);
      context.say(`${column}: done`);
    }
    attachPlot.lines.push({ name: "median", points: points.p50 });
    attachPlot.lines.push({ name: `longest of ${attaches}`, points: points.longest });
    const note =
      `Columns: volumes and snapshots in the pool. ${context.idleSeconds} s of idleness; hosts send ` +
      `a keep-alive each ${KEEP_ALIVE_MS / 2} ms, as Linux does.`;
    return { tables: [table.build(note)], plots: [attachPlot], absent: [] };
  },
};

function crowdsOf(part: number): Crowd[] {
  if (part === 1) return CROWDS;
  return CROWDS.filter(({ connected }) => connected > 0).map(({ things, connected }) => {
    return { things: Math.ceil(things * part), connected: Math.ceil(connected * part) };
  });
}

type Record = (row: string, value: number) => void;

type Measured = Crowd & { attaches: number };

/** Returns the times of attaching, in milliseconds. */
async function measure(context: SuiteContext, crowd: Measured, record: Record): Promise<number[]> {
  const path = join(context.folder, `pool-${crowd.things}`);
  const size = { poolBytes: POOL_BYTES, volumeBytes: VOLUME_BYTES, things: crowd.things };
  await makeCrowdedPool(path, size, (made) => context.status(`${made} of ${crowd.things} made`));
  const server = await serveExisting(path);
  const hosts: NvmeHost[] = [];
  let timer: NodeJS.Timeout | undefined;
  try {
    record("RSS before the load (MiB)", server.process.residentBytes() / MIB);
    const times = await attachTimes(server, crowd, record);
    context.status(`connecting ${crowd.connected} hosts`);
    for (let i = 0; i < crowd.connected; i++) hosts.push(await attach(server, nameOf(i + 1)));
    timer = setInterval(() => {
      for (const host of hosts) host.keepAlive().catch(() => {});
    }, KEEP_ALIVE_MS / 2);
    await load(context, server);
    record("RSS after the load (MiB)", server.process.residentBytes() / MIB);
    context.status(`idle for ${context.idleSeconds} s`);
    const before = { cpu: server.process.cpuSeconds(), sleeps: server.process.sleeps() };
    await pause(context.idleSeconds * 1000);
    const cpu = server.process.cpuSeconds() - before.cpu;
    record("CPU while idle (% of a core)", (cpu / context.idleSeconds) * 100);
    const wakes = wakeUps(before.sleeps, server.process.sleeps());
    record("wake-ups a second while idle", wakes / context.idleSeconds);
    record("RSS after the idleness (MiB)", server.process.residentBytes() / MIB);
    return times;
  } finally {
    clearInterval(timer);
    for (const host of hosts) host.close();
    await server.stop();
    rmSync(path, { recursive: true, force: true });
  }
}

/** Of volumes that nobody has had before, as far as there are so many. */
async function attachTimes(
  server: PandoServer,
  crowd: Measured,
  record: Record,
): Promise<number[]> {
  const { attaches } = crowd;
  const times: number[] = [];
  for (let i = 0; i < attaches; i++) {
    const name = nameOf(crowd.things > attaches * 2 ? crowd.connected + i + 1 : 0);
    const target = await allow(server, name);
    const started = performance.now();
    const host = await NvmeHost.attach(target);
    times.push(performance.now() - started);
    host.close();
  }
  record("attach, median (ms)", median(times));
  record(`attach, longest of ${attaches} (ms)`, quantile(times, 1));
  return times;
}

/** Of threads that were there before: one that has ended takes its count with it. */
function wakeUps(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): number {
  return [...before].reduce((sum, [task, count]) => sum + (after.get(task) ?? count) - count, 0);
}

async function load(context: SuiteContext, server: PandoServer): Promise<void> {
  context.status("load");
  const { port, subsystemNqn, hostNqn } = await allow(server, nameOf(0));
  const target = { address: server.target.address, port, subsystemNqn, hostNqn };
  const durationMs = Math.round(context.seconds * 1000);
  const limits = { regionBytes: LOAD_BYTES, durationMs, seed: 1 };
  await runNvmeLoad(target, { ...LOAD, queues: 1 }, limits);
}

async function attach(server: PandoServer, volume: string): Promise<NvmeHost> {
  return NvmeHost.attach({ ...(await allow(server, volume)), keepAliveMs: KEEP_ALIVE_MS });
}

async function allow(
  { client, target }: PandoServer,
  volume: string,
): Promise<{ port: number; subsystemNqn: string; hostNqn: string }> {
  const hostNqn = `nqn.2014-08.org.nvmexpress:uuid:${volume}`;
  const { nqn } = await client.allowHost(volume, hostNqn);
  return { port: target.port, subsystemNqn: nqn, hostNqn };
}

/** The crowded pool's names: families of a volume and clones of its snapshot. */
function nameOf(index: number): string {
  const family = `volume-${String(Math.floor(index / (FAMILY + 1))).padStart(7, "0")}`;
  const member = index % (FAMILY + 1);
  return member === 0 ? family : `${family}-clone-${member - 1}`;
}
