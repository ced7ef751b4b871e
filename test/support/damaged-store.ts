// Damages LMDB's file, a byte at a time by seed, and says what a check makes of each: the same
// pool, problems, or an error. LMDB may end the process; the one that started it goes on behind
// that seed.
//
//   node dist/test/support/damaged-store.js POOL FIRST END      a line of JSON for each seed
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { AssertionError } from "../../engine/base/assert.js";
import { isPandoError } from "../../engine/base/errors.js";
import { checkStore } from "../../engine/core/check.js";
import { openDataDevice } from "../../engine/core/data-device.js";
import { recoverInMemory } from "../../engine/core/offline-check.js";
import { listSnapshots, listVolumes } from "../../engine/store/catalogue.js";
import { Lineage, lookupNearest } from "../../engine/store/lineage.js";
import { openEnvironment } from "../../engine/store/lmdb-environment.js";
import { LmdbReader } from "../../engine/store/lmdb-store.js";
import type { StoreReader } from "../../engine/store/store.js";
import { type Random, seeded } from "../prng.js";

export type Verdict = "same" | "different" | "problems" | "error";

export interface Judged {
  seed: number;
  at: number;
  verdict: Verdict;
  /** The first problem, or the error. */
  why: string;
}

const PAGE_BYTES = 4096;
const HEADER_BYTES = 64;
const SPANS = 3;

/** One byte of `whole` is another one. */
export function damageBySeed(seed: number, whole: Buffer): { at: number; bytes: Buffer } {
  const random = seeded(seed);
  const at = damagedByte(random, whole);
  const bytes = Buffer.from(whole);
  bytes[at] = (bytes[at] as number) ^ (1 + random.below(255));
  return { at, bytes };
}

/** Half of all damage is where LMDB keeps its own numbers: in the first bytes of a page. */
function damagedByte(random: Random, bytes: Buffer): number {
  if (random.oneIn(2)) return random.below(bytes.length);
  return random.below(bytes.length / PAGE_BYTES) * PAGE_BYTES + random.below(HEADER_BYTES);
}

/** All names, and what every slot of theirs maps. */
function contentsOf(store: StoreReader): string {
  const lineage = new Lineage();
  const mapped = (layer: number): string[] =>
    Array.from({ length: SPANS }, (_, span) => {
      const raw = lookupNearest(store, lineage, layer, span)?.block.raw;
      return raw === undefined ? "" : Buffer.from(raw).toString("base64");
    });
  return JSON.stringify([
    listVolumes(store).map(({ name, record }) => [name, record, mapped(record.layer)]),
    listSnapshots(store).map(({ volume, name, record }) => [volume, name, mapped(record.layer)]),
  ]);
}

async function judge(
  meta: string,
  data: string,
  expected: string | null,
): Promise<{ verdict: Verdict; why: string; contents: string }> {
  const device = openDataDevice(data, "r");
  try {
    const environment = openEnvironment(meta, "read");
    try {
      const store = await recoverInMemory(new LmdbReader(environment), device);
      const { clean, problems } = checkStore(store);
      if (!clean) return { verdict: "problems", why: problems[0] ?? "", contents: "" };
      const contents = contentsOf(store);
      const same = expected === null || contents === expected;
      return { verdict: same ? "same" : "different", why: "", contents };
    } finally {
      await environment.root.close();
    }
  } catch (error) {
    if (!isPandoError(error) && !(error instanceof AssertionError)) throw error;
    return { verdict: "error", why: error.message, contents: "" };
  } finally {
    device.close();
  }
}

async function main(pool: string, first: number, end: number): Promise<void> {
  const data = join(pool, "data");
  const whole = readFileSync(join(pool, "meta/data.mdb"));
  const { contents } = await judge(join(pool, "meta"), data, null);
  for (let seed = first; seed < end; seed++) {
    const { at, bytes } = damageBySeed(seed, whole);
    const meta = join(pool, `meta-${seed}`);
    mkdirSync(meta);
    writeFileSync(join(meta, "data.mdb"), bytes);
    // Told before: what comes next may be the last.
    process.stdout.write(`${JSON.stringify({ seed, at })}\n`);
    const { verdict, why } = await judge(meta, data, contents);
    process.stdout.write(`${JSON.stringify({ seed, at, verdict, why })}\n`);
    rmSync(meta, { recursive: true });
  }
}

const [pool, first, end] = process.argv.slice(2);
if (pool !== undefined && process.argv[1]?.endsWith("damaged-store.js")) {
  await main(pool, Number(first), Number(end));
}
