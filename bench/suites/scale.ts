// One node with very many volumes and snapshots, of Pando alone: what the calls take there, what
// the daemon needs while nobody uses them, and how soon it is back after it was killed. To be flat
// is the figure.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { TableBuilder } from "../results.js";
import { median, quantile } from "../statistics.js";
import { makeCrowdedPool } from "../subjects/crowded-pool.js";
import { type PandoServer, serveExisting } from "../subjects/pando.js";
import { pause } from "../subjects/server-process.js";
import type { Suite, SuiteContext } from "../suite.js";

const CROWDS = [10, 1000, 100_000, 1_000_000];
/** The largest is for those who measure for five seconds: to make it takes minutes. */
const THINGS_PER_SECOND = 200_000;
const VOLUME_BYTES = 16 * 2 ** 30;
const POOL_BYTES = 64 * 2 ** 30;
const CALLS = 30;
const MIB = 1024 * 1024;
const ORIGIN = "volume-0000000";

export const scaleSuite: Suite = {
  name: "scale",
  describe: "the daemon with up to 1,000,000 volumes and snapshots in its pool",
  needs: [],
  async run(context) {
    const table = new TableBuilder({
      id: "scale",
      title: "Volumes and snapshots in one pool",
      metrics: [{ name: "figure", unit: "", better: "lower", relative: false }],
    });
    for (const things of CROWDS.filter((count) => count <= context.seconds * THINGS_PER_SECOND)) {
      await measure(context, things, (row, value) => {
        table.add(row, things.toLocaleString("en"), [value]);
      });
      context.say(`${things.toLocaleString("en")} volumes and snapshots: done`);
    }
    const note =
      "Made in the store itself; a tenth of them snapshots, nine tenths of the rest clones of these.";
    return { tables: [table.build(note)], plots: [], absent: [] };
  },
};

type Record = (row: string, value: number) => void;

async function measure(context: SuiteContext, things: number, record: Record): Promise<void> {
  const path = join(context.folder, `pool-${things}`);
  const size = { poolBytes: POOL_BYTES, volumeBytes: VOLUME_BYTES, things };
  await makeCrowdedPool(path, size, (made) => context.status(`${made} of ${things} made`));
  const server = await serveExisting(path);
  try {
    record("RSS, nothing asked yet (MiB)", server.process.residentBytes() / MIB);
    await idle(context, server, record);
    await calls(server, record);
    await scrape(server, record);
    record("start after kill -9, until it serves (ms)", await server.restart("SIGKILL"));
    await list(server, record);
    record("RSS after the list (MiB)", server.process.residentBytes() / MIB);
  } finally {
    await server.stop();
    rmSync(path, { recursive: true, force: true });
  }
}

async function idle(context: SuiteContext, server: PandoServer, record: Record): Promise<void> {
  const seconds = Math.max(1, context.seconds * 2);
  const before = server.process.cpuSeconds();
  await pause(seconds * 1000);
  const cpu = server.process.cpuSeconds() - before;
  record("CPU while idle (% of a core)", (cpu / seconds) * 100);
}

/** Each after the one before, in turn, so that all see the same noise. */
async function calls({ client }: PandoServer, record: Record): Promise<void> {
  const times = new Map<string, number[]>();
  const timed = async (name: string, call: () => Promise<unknown>) => {
    const started = performance.now();
    await call();
    times.set(name, [...(times.get(name) ?? []), performance.now() - started]);
  };
  for (let i = 0; i < CALLS; i++) {
    const snapshot = `shot-${i}`;
    await timed("create a volume", () => client.createVolume(`new-${i}`, VOLUME_BYTES));
    await timed("snapshot", () => client.createSnapshot(ORIGIN, snapshot));
    await timed("clone", () => client.cloneVolume({ volume: ORIGIN, snapshot }, `clone-${i}`));
    await timed("show a volume", () => client.getVolume(`clone-${i}`));
    await timed("delete a clone", () => client.deleteVolume(`clone-${i}`));
    await timed("delete a snapshot", () => client.deleteSnapshot(ORIGIN, snapshot));
  }
  for (const [name, each] of times) {
    record(`${name}, median (ms)`, median(each));
    record(`${name}, longest of ${CALLS} (ms)`, quantile(each, 1));
  }
}

async function scrape(server: PandoServer, record: Record): Promise<void> {
  const started = performance.now();
  const text = await (await fetch(server.metricsUrl)).text();
  record("/metrics (ms)", performance.now() - started);
  record("/metrics (KiB)", text.length / 1024);
}

/** What a list takes, and what others wait for while it goes on. */
async function list({ client }: PandoServer, record: Record): Promise<void> {
  let listing = true;
  const waits: number[] = [];
  const others = (async () => {
    do {
      const started = performance.now();
      await client.info();
      waits.push(performance.now() - started);
    } while (listing);
  })();
  const started = performance.now();
  const volumes = await client.listVolumes();
  const snapshots = await client.listSnapshots();
  record("list of all (ms)", performance.now() - started);
  record("things listed", volumes.length + snapshots.length);
  listing = false;
  await others;
  record("longest of other calls during it (ms)", quantile(waits, 1));
}
