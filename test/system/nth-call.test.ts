// One call of a real daemon on real files fails: an allocation of the addon, a submission to the
// kernel's ring, a write or a sync of LMDB. (crash/nth-failure does it to the simulated device and
// store, every call; what the ring answers to a request is there, too.) Whoever asked gets an error
// that says what it is, or an answer; or the daemon ends, which says so, and never by a fault of
// its memory. Nothing that was acknowledged is lost, nobody waits for ever, the next daemon's pool
// is clean.
//
//   node dist/test/system/nth-call.test.js [EVERY]     every so many calls of all; 1: each one
import { join } from "node:path";
import { suite } from "uvu";
import { assert } from "../../engine/base/assert.js";
import { SECTOR_BYTES } from "../../engine/base/constants.js";
import { isPandoError } from "../../engine/base/errors.js";
import { NbdClient } from "../../engine/cli/nbd-client.js";
import { PandoClient } from "../../engine/serve/client.js";
import { callsIn, failingCalls, hasFailed } from "../support/fail-call.js";
import {
  type DaemonProcess,
  killDaemons,
  pandoCommand,
  runPando,
  startPandoDaemon,
  temporaryFolder,
} from "../support/pando.js";
import { isCut, settleVolume } from "../support/served-volume.js";
import { needsCommands, skip } from "../support/skip.js";
import { sectorsOf, VersionBook } from "../support/version-book.js";

const missing = needsCommands("c++");
if (missing !== null) skip(missing);

const test = suite("n-th call of a daemon fails");
const every = Number(process.argv[2] ?? 0);
const folder = temporaryFolder();
const pool = join(folder.path, "pool");
const socket = join(folder.path, "pando.sock");
const nbdSocket = join(folder.path, "nbd.sock");
const failing = failingCalls(folder.path);

const SECTORS = 1024;
const PATIENCE_MS = 20_000;
/** How a daemon may end that cannot go on: by itself, or by what C++ does about an exception. */
const ENDS = new Set<number | string>([0, 1, "SIGABRT"]);

interface Kind {
  /** As the library calls it. */
  name: string;
  errno?: number;
  /** The call is made again, and nobody sees anything. */
  unseen?: boolean;
  /** Of all calls, these many are tried where nothing is said. */
  samples: number;
}

const KINDS: Record<string, Kind> = {
  "allocation of the addon": { name: "allocation", samples: 2 },
  "submission, tried again": { name: "submission", errno: 11, unseen: true, samples: 1 },
  "submission, refused": { name: "submission", errno: 77, samples: 1 },
  "write of the store": { name: "store-write", errno: 5, samples: 1 },
  "write of a store without room": { name: "store-write", errno: 28, samples: 1 },
  "sync of the store": { name: "store-sync", errno: 5, samples: 1 },
};

/** What a volume or a snapshot must hold; not sure: it may be there or not. */
interface Kept {
  book: VersionBook;
  sure: boolean;
}

class Gone extends Error {}

test.before(async () => {
  const create = ["pool", "create", pool, "--size", "64MiB", "--journal-size", "1MiB", "--sparse"];
  assert((await runPando(pandoCommand("real"), create)).code === 0, "the pool is made");
});

test.after(() => {
  killDaemons();
  folder.remove();
});

/** With `fail`, as the library reads it. */
function startDaemon(fail: string | null): Promise<DaemonProcess> {
  const environment = fail === null ? {} : failing(fail);
  const args = ["--pool", pool, "--socket", socket, "--nbd-socket", nbdSocket];
  args.push("--target", "none", "--metrics", "none", "--index-cache", "1MiB");
  return startPandoDaemon(pandoCommand("real"), args, environment);
}

/** Resolves or rejects in time. */
async function inTime<T>(what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no answer`)), PATIENCE_MS);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** One daemon's life: what was asked of it, and what it then must have. */
class Life {
  readonly volumes = new Map<string, Kept>();
  readonly snapshots = new Map<string, Kept>();
  readonly errors: string[] = [];
  readonly #control = new PandoClient(socket);
  readonly #clients = new Map<string, NbdClient>();
  #version = 0;

  async run(): Promise<void> {
    try {
      await this.#scenario();
    } catch (error) {
      if (!(error instanceof Gone)) throw error;
    } finally {
      this.#control.close();
    }
  }

  async #scenario(): Promise<void> {
    await this.#create("a", new VersionBook(), () =>
      this.#control.createVolume("a", SECTORS * SECTOR_BYTES),
    );
    await this.#write("a", 0, 16);
    await this.#flush("a");
    await this.#write("a", 900, 5);
    await this.#snapshot("a", "s");
    await this.#write("a", 3, 8);
    await this.#clone("a", "s", "b");
    await this.#write("b", 2, 9);
    await this.#flush("b");
    await this.#write("a", 700, 200);
    await this.#snapshot("b", "t");
    await this.#remove(this.snapshots, "a@s", () => this.#control.deleteSnapshot("a", "s"));
    await this.#write("b", 0, 30);
    await this.#clone("b", "t", "c");
    await this.#write("c", 40, 3);
    await this.#write("a", 40, 3);
    await this.#remove(this.volumes, "c", () => this.#control.deleteVolume("c"));
    await this.#flush("a");
    for (const client of this.#clients.values()) await inTime("close", client.close());
  }

  /** Whether it was done; an error is noted. The daemon's end ends the scenario. */
  async #attempt(what: string, work: () => Promise<unknown>): Promise<boolean> {
    try {
      await inTime(what, work());
      return true;
    } catch (error) {
      if (isCut(error)) throw new Gone();
      if (!isPandoError(error)) throw error;
      assert(error.message.length > 10, `${what}: ${error.code} without a reason`);
      this.errors.push(`${what}: ${error.code}`);
      return false;
    }
  }

  async #make(
    all: Map<string, Kept>,
    name: string,
    book: VersionBook,
    work: () => Promise<unknown>,
  ) {
    const kept = { book, sure: false };
    all.set(name, kept);
    kept.sure = await this.#attempt(`make ${name}`, work);
  }

  async #create(name: string, book: VersionBook, work: () => Promise<unknown>): Promise<void> {
    await this.#make(this.volumes, name, book, work);
    await this.#open(name);
  }

  async #open(name: string): Promise<void> {
    if (this.volumes.get(name)?.sure !== true) return;
    await this.#attempt(`open ${name}`, async () => {
      this.#clients.set(name, await NbdClient.open({ socket: nbdSocket, name }));
    });
  }

  async #snapshot(volume: string, name: string): Promise<void> {
    const kept = this.volumes.get(volume);
    if (kept?.sure !== true) return;
    const make = () => this.#control.createSnapshot(volume, name);
    await this.#make(this.snapshots, `${volume}@${name}`, kept.book.copy(), make);
  }

  async #clone(volume: string, snapshot: string, name: string): Promise<void> {
    const kept = this.snapshots.get(`${volume}@${snapshot}`);
    if (kept?.sure !== true) return;
    const make = () => this.#control.cloneVolume({ volume, snapshot }, name);
    await this.#create(name, kept.book.copy(), make);
  }

  async #remove(all: Map<string, Kept>, name: string, work: () => Promise<unknown>): Promise<void> {
    const kept = all.get(name);
    if (kept?.sure !== true) return;
    await this.#clients.get(name)?.close();
    this.#clients.delete(name);
    kept.sure = false;
    if (await this.#attempt(`delete ${name}`, work)) all.delete(name);
  }

  async #write(name: string, sector: number, count: number): Promise<void> {
    const client = this.#clients.get(name);
    const book = this.volumes.get(name)?.book;
    if (client === undefined || book === undefined) return;
    const version = ++this.#version;
    book.submitted(sector, count, version);
    const data = sectorsOf(sector, count, version);
    const done = await this.#attempt(`write ${name}`, () =>
      client.write(sector * SECTOR_BYTES, data),
    );
    if (done) book.acknowledged(sector, count, version);
  }

  async #flush(name: string): Promise<void> {
    const client = this.#clients.get(name);
    if (client !== undefined) await this.#attempt(`flush ${name}`, () => client.flush());
  }
}

/** The next daemon has what was acknowledged; all of it is deleted. */
async function verify({ volumes, snapshots }: Life): Promise<void> {
  const daemon = await startDaemon(null);
  const control = new PandoClient(socket);
  const there = (await control.listVolumes()).map(({ name }) => name);
  const kept = (await control.listSnapshots()).map(({ volume, name }) => `${volume}@${name}`);
  for (const [all, found] of [
    [volumes, there],
    [snapshots, kept],
  ] as const) {
    for (const [name, { sure }] of all) {
      assert(!sure || found.includes(name), `${name} was acknowledged, and is gone`);
    }
    for (const name of found) assert(all.has(name), `${name} is there again`);
  }
  const compare = async (name: string, { book }: Kept, what: string): Promise<void> => {
    await settleVolume({ socket: nbdSocket, name, sectors: SECTORS }, book, what);
  };
  for (const [name, kept] of volumes) if (there.includes(name)) await compare(name, kept, name);
  for (const [name, image] of snapshots) {
    if (!kept.includes(name)) continue;
    const [volume, snapshot] = name.split("@") as [string, string];
    await control.cloneVolume({ volume, snapshot }, "copy");
    await compare("copy", image, name);
    await control.deleteVolume("copy");
    await control.deleteSnapshot(volume, snapshot);
  }
  for (const name of there) await control.deleteVolume(name);
  const { problems } = await control.check();
  assert(problems.length === 0, problems.join("; "));
  control.close();
  assert((await daemon.stop()) === 0, "the next daemon stops as it should");
}

interface Outcome {
  /** The call was made. */
  reached: boolean;
  errors: string[];
  /** How the daemon ended; null: it had to be asked. */
  ended: number | string | null;
  log: string;
}

async function live(fail: string): Promise<{ outcome: Outcome; life: Life }> {
  const life = new Life();
  let log = "";
  let ended: number | string | null = null;
  try {
    const daemon = await startDaemon(fail);
    await life.run();
    // One that has ended keeps its exit code; one that has not is asked to.
    const how = await inTime("stop", daemon.stop());
    log = daemon.log();
    if (!/"msg":"stopped"/.test(log)) ended = how;
    assert(ENDS.has(how), `the daemon ends with ${how}:\n${log}`);
  } catch (error) {
    const [, how] = /^the daemon ended with (\w+)/.exec((error as Error).message) ?? [];
    if (how === undefined) throw error;
    ended = /^\d+$/.test(how) ? Number(how) : how;
    log = (error as Error).message;
    assert(ENDS.has(ended) && ended !== 0, log);
  }
  return { life, outcome: { reached: hasFailed(log), errors: life.errors, ended, log } };
}

/** How many calls of each kind the scenario makes. */
async function countCalls(): Promise<Map<string, number>> {
  const { life, outcome } = await live("allocation:0");
  const { ended, errors, log } = outcome;
  assert(ended === null && errors.length === 0, `${errors.join("; ")}\n${log}`);
  await verify(life);
  return callsIn(log);
}

let counted: Map<string, number>;
test("nothing fails, and calls are counted", async () => {
  counted = await countCalls();
  for (const { name } of Object.values(KINDS)) assert((counted.get(name) ?? 0) > 10, name);
});

for (const [what, { name, errno, unseen = false, samples }] of Object.entries(KINDS)) {
  test(what, async () => {
    const count = counted.get(name) ?? 0;
    const step = every > 0 ? every : Math.floor(count / samples);
    const begin = every > 0 ? every : Math.ceil(step / 2);
    let reached = 0;
    let ends = 0;
    let errors = 0;
    for (let number = begin; number <= count; number += step) {
      const fail = `${name}:${number}${errno === undefined ? "" : `:${errno}`}`;
      try {
        const { life, outcome } = await live(fail);
        await verify(life);
        if (outcome.reached) reached++;
        if (outcome.ended !== null) ends++;
        errors += outcome.errors.length;
        const quiet = outcome.ended === null && outcome.errors.length === 0;
        assert(!unseen || quiet, `somebody sees it: ${outcome.errors.join("; ")} ${outcome.log}`);
      } catch (error) {
        throw new Error(`PANDO_FAIL_CALL=${fail}: ${(error as Error).message}`, { cause: error });
      }
    }
    console.log(`${reached} of ${count} calls failed: ${ends} daemons ended, ${errors} errors`);
    assert(reached > 0, "one of them is reached");
  });
}

test.run();
