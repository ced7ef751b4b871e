// `kill -9`, over and over: a real daemon on real files, writers that know what was acknowledged,
// snapshots and clones made and deleted meanwhile. After each kill everything that was acknowledged
// is there, flushed or not; what was under way is there or not; a snapshot never changes; the pool
// is clean. That says nothing about power cuts: the page cache outlives the daemon.
//
//   node dist/test/system/kill-loop.test.js [KILLS [SEED]]
import { join } from "node:path";
import { suite } from "uvu";
import { assert } from "../../engine/base/assert.js";
import { SECTOR_BYTES } from "../../engine/base/constants.js";
import { NbdClient } from "../../engine/cli/nbd-client.js";
import { PandoClient } from "../../engine/serve/client.js";
import { type Random, seeded } from "../prng.js";
import {
  killDaemons,
  pandoCommand,
  runPando,
  startPandoDaemon,
  temporaryFolder,
} from "../support/pando.js";
import { isCut, settleVolume } from "../support/served-volume.js";
import { sectorsOf, VersionBook } from "../support/version-book.js";

const test = suite("kill loop");
const [kills = 10, seed = 1] = process.argv.slice(2).map(Number);
const folder = temporaryFolder();
const pool = join(folder.path, "pool");
const socket = join(folder.path, "pando.sock");
const nbdSocket = join(folder.path, "nbd.sock");
const random = seeded(seed);

const VOLUMES = ["a", "b"];
const SECTORS = 2048;
const LONGEST_WRITE = 16;
/** Of a volume, so that two writers are never at one sector. */
const WRITERS = 2;
const LONGEST_ROUND_MS = 600;
const CHECK_EVERY = 5;

let version = 0;
let writes = 0;
const books = new Map<string, VersionBook>();
/** By `volume@snapshot`; null while it is not known whether it is there. */
const snapshots = new Map<string, { book: VersionBook; sure: boolean }>();
let snapshotNumber = 0;

test.after(() => {
  killDaemons();
  folder.remove();
});

/** Ends when the daemon is gone. */
async function untilKilled(work: () => Promise<void>): Promise<void> {
  try {
    for (;;) await work();
  } catch (error) {
    if (!isCut(error)) throw error;
  }
}

const openVolume = (name: string): Promise<NbdClient> =>
  NbdClient.open({ socket: nbdSocket, name });

function bookOf(name: string): VersionBook {
  const book = books.get(name);
  assert(book !== undefined, `there is a book of ${name}`);
  return book;
}

const compare = (name: string, book: VersionBook, what: string): Promise<void> =>
  settleVolume({ socket: nbdSocket, name, sectors: SECTORS }, book, what);

async function writer(name: string, number: number, dice: Random): Promise<void> {
  const book = bookOf(name);
  let client: NbdClient | null = null;
  await untilKilled(async () => {
    client ??= await openVolume(name);
    const half = SECTORS / WRITERS;
    const count = 1 + dice.below(LONGEST_WRITE);
    // Half of it goes to few places, which are overwritten often.
    const room = dice.oneIn(2) ? half - LONGEST_WRITE : 2 * LONGEST_WRITE;
    const sector = number * half + dice.below(room);
    const mine = ++version;
    book.submitted(sector, count, mine);
    await client.write(sector * SECTOR_BYTES, sectorsOf(sector, count, mine));
    book.acknowledged(sector, count, mine);
    writes++;
    if (dice.oneIn(8)) await client.flush();
  });
}

/** Snapshots, and clones of them that are compared and deleted. */
async function administrator(control: PandoClient, dice: Random): Promise<void> {
  await untilKilled(async () => {
    const name = dice.pick(VOLUMES);
    const key = `${name}@s${++snapshotNumber}`;
    const before = bookOf(name).copy();
    snapshots.set(key, { book: before, sure: false });
    try {
      await control.createSnapshot(name, `s${snapshotNumber}`);
    } finally {
      const sure = snapshots.get(key);
      if (sure !== undefined) sure.book = bookOf(name).imageSince(before);
    }
    (snapshots.get(key) as { sure: boolean }).sure = true;
    await compareSnapshot(control, dice.pick([...snapshots.keys()]));
    const doomed = dice.pick([...snapshots.keys()]);
    if (snapshots.size < 6) return;
    (snapshots.get(doomed) as { sure: boolean }).sure = false;
    const [volume, snapshot] = doomed.split("@") as [string, string];
    await control.deleteSnapshot(volume, snapshot);
    snapshots.delete(doomed);
  });
}

async function compareSnapshot(control: PandoClient, key: string): Promise<void> {
  const kept = snapshots.get(key);
  if (kept?.sure !== true) return;
  const [volume, snapshot] = key.split("@") as [string, string];
  const name = `clone-${++version}`;
  await control.cloneVolume({ volume, snapshot }, name);
  await compare(name, kept.book, key);
  await control.deleteVolume(name);
}

/** After a kill: what was acknowledged is there, the rest is looked up. */
async function findOut(control: PandoClient): Promise<void> {
  const there = new Set((await control.listSnapshots()).map((one) => `${one.volume}@${one.name}`));
  for (const [key, kept] of snapshots) {
    assert(there.has(key) || !kept.sure, `${key} was acknowledged`);
    if (there.has(key)) kept.sure = true;
    else snapshots.delete(key);
  }
  for (const key of there) assert(snapshots.has(key), `${key} was deleted`);
  for (const { name } of await control.listVolumes()) {
    if (!VOLUMES.includes(name)) await control.deleteVolume(name);
  }
}

test(`${kills} kills, seed ${seed}`, async () => {
  const create = ["pool", "create", pool, "--size", "256MiB", "--journal-size", "1MiB", "--sparse"];
  assert((await runPando(pandoCommand("real"), create)).code === 0, "the pool is made");
  for (let kill = 0; kill <= kills; kill++) {
    const daemon = await startPandoDaemon(pandoCommand("real"), [
      ...["--pool", pool, "--socket", socket, "--nbd-socket", nbdSocket],
      ...["--target", "none", "--metrics", "none", "--index-cache", "1MiB"],
    ]);
    const control = new PandoClient(socket);
    if (kill === 0) {
      for (const name of VOLUMES) {
        await control.createVolume(name, SECTORS * SECTOR_BYTES);
        books.set(name, new VersionBook());
      }
    }
    await findOut(control);
    for (const name of VOLUMES) await compare(name, bookOf(name), `${name} after kill ${kill}`);
    if (kill % CHECK_EVERY === 0 || kill === kills) {
      for (const key of snapshots.keys()) await compareSnapshot(control, key);
      const { problems } = await control.check();
      assert(problems.length === 0, problems.join("; "));
    }
    if (kill === kills) {
      control.close();
      assert((await daemon.stop()) === 0, "the last stop is a clean one");
      break;
    }
    const work = VOLUMES.flatMap((name) =>
      Array.from({ length: WRITERS }, (_, number) =>
        writer(name, number, seeded(random.below(2 ** 30))),
      ),
    );
    work.push(administrator(control, seeded(random.below(2 ** 30))));
    const worked = Promise.allSettled(work);
    await new Promise((resolve) => setTimeout(resolve, 20 + random.below(LONGEST_ROUND_MS)));
    await daemon.stop("SIGKILL");
    control.close();
    for (const result of await worked) if (result.status === "rejected") throw result.reason;
  }
  console.log(`${kills} kills, ${writes} writes, ${snapshotNumber} snapshots`);
  assert(writes > kills, "the writers came to write");
});

test.run();
