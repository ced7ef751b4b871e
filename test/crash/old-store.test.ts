// Any copy of the store of earlier, beside the device as it is now: either it is refused (by the
// device's number of reclaims, by recovery, by the check), or everything that it names reads as it
// was written last. Nobody gets what is another's, and no deleted snapshot comes back changed.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { AssertionError } from "../../engine/base/assert.js";
import { SECTOR_BYTES } from "../../engine/base/constants.js";
import { isPandoError } from "../../engine/base/errors.js";
import { checkStore } from "../../engine/core/check.js";
import { recoverInMemory } from "../../engine/core/offline-check.js";
import { listSnapshots, listVolumes } from "../../engine/store/catalogue.js";
import { getBlock } from "../../engine/store/codec-index-block.js";
import { Lineage, lookupNearest } from "../../engine/store/lineage.js";
import type { StoreReader } from "../../engine/store/store.js";
import { blockOffset } from "../../engine/store/superblock.js";
import { IO_OP, native } from "../../native/native.js";
import { type Random, seeded } from "../prng.js";
import type { ModelStore } from "../sim/model-store.js";
import { World } from "../sim/world.js";

const test = suite("old store");
const SEEDS = 12;
const STEPS = 70;
/** Around the end of a span, so that both have some. */
const FIRST = 506;
const SECTORS = 12;
const SIZE_BYTES = 1024 * SECTOR_BYTES;

/** The version of each sector; 0: a hole. */
type Image = number[];

interface Backup {
  store: ModelStore;
  reclaims: number;
  step: number;
}

class History {
  /** By name; names are never used again. What was deleted is kept as it was. */
  readonly images = new Map<string, Image>();
  readonly backups: Backup[] = [];
  readonly world: World;
  readonly #random: Random;
  readonly #volumes: string[] = [];
  readonly #snapshots: string[] = [];
  #names = 0;
  #version = 0;

  constructor(world: World, random: Random) {
    this.world = world;
    this.#random = random;
  }

  async step(number: number): Promise<void> {
    const { pool } = this.world;
    const dice = this.#random.below(20);
    const volume = this.#volumes[this.#random.below(this.#volumes.length || 1)];
    if (volume === undefined || (dice === 0 && this.#volumes.length < 4)) await this.#create();
    else if (dice < 8) await this.#change(volume, IO_OP.write);
    else if (dice < 10) await this.#change(volume, IO_OP.discard);
    else if (dice < 12 && this.#snapshots.length < 4) await this.#snapshot(volume);
    else if (dice === 12 && this.#volumes.length < 4) await this.#clone();
    else if (dice < 15) await this.#deleteSnapshot();
    else if (dice === 15) await this.#deleteVolume();
    else if (dice < 18) await this.#run(pool.checkpoint());
    else if (dice < 19) await this.#run(pool.settle());
    if (this.#random.oneIn(4)) await this.#backUp(number);
  }

  async #run<T>(work: Promise<T>): Promise<T> {
    const done = await this.world.run(work);
    return (done as { value: T }).value;
  }

  async #create(): Promise<void> {
    const name = `v${++this.#names}`;
    await this.#run(this.world.pool.createVolume(name, SIZE_BYTES));
    this.#volumes.push(name);
    this.images.set(name, new Array<number>(SECTORS).fill(0));
  }

  async #change(name: string, op: number): Promise<void> {
    const at = this.#random.below(SECTORS);
    const sectors = 1 + this.#random.below(SECTORS - at);
    const version = op === IO_OP.write ? ++this.#version : 0;
    const data = Buffer.alloc(sectors * SECTOR_BYTES);
    for (let offset = 0; offset < data.length; offset += 4) data.writeUInt32LE(version, offset);
    const { pool } = this.world;
    await this.#run(pool.hold(name));
    const offset = (FIRST + at) * SECTOR_BYTES;
    await this.#run(pool.io(name, op, offset, data.length, version === 0 ? null : data));
    await this.#run(pool.io(name, IO_OP.flush, 0, 0));
    await this.#run(pool.release(name));
    this.images.get(name)?.fill(version, at, at + sectors);
  }

  async #snapshot(volume: string): Promise<void> {
    const name = `s${++this.#names}`;
    await this.#run(this.world.pool.createSnapshot(volume, name));
    this.#snapshots.push(`${volume}@${name}`);
    this.images.set(`${volume}@${name}`, [...(this.images.get(volume) as Image)]);
  }

  async #clone(): Promise<void> {
    const from = this.#snapshots[this.#random.below(this.#snapshots.length || 1)];
    if (from === undefined) return;
    const [volume, snapshot] = from.split("@") as [string, string];
    const name = `v${++this.#names}`;
    await this.#run(this.world.pool.cloneVolume({ volume, snapshot }, name));
    this.#volumes.push(name);
    this.images.set(name, [...(this.images.get(from) as Image)]);
  }

  async #deleteSnapshot(): Promise<void> {
    if (this.#snapshots.length === 0) return;
    const at = this.#random.below(this.#snapshots.length);
    const [volume, snapshot] = (this.#snapshots.splice(at, 1)[0] as string).split("@");
    await this.#run(this.world.pool.deleteSnapshot(volume as string, snapshot as string));
  }

  async #deleteVolume(): Promise<void> {
    const [name] = this.#volumes.splice(this.#random.below(this.#volumes.length), 1);
    await this.#run(this.world.pool.deleteVolume(name as string));
  }

  async #backUp(step: number): Promise<void> {
    const { world } = this;
    let reclaims = 0;
    const collect = async (): Promise<void> => {
      for await (const bytes of world.pool.backUpMetadata()) reclaims = bytes[0] as number;
    };
    await this.#run(collect());
    this.backups.push({ store: world.store.copy(), reclaims, step });
  }
}

/** Null, or the store as it would be opened. */
async function accepted(world: World, backup: Backup): Promise<StoreReader | null> {
  if (backup.reclaims !== world.reclaims) return null;
  const device = {
    sizeBytes: world.superblock.deviceSizeBytes,
    read: (offset: number, length: number) => native.deviceRead(world.device, offset, length),
  };
  try {
    const store = await recoverInMemory(backup.store, device);
    return checkStore(store).clean ? store : null;
  } catch (error) {
    if (!isPandoError(error, "ECORRUPT") && !(error instanceof AssertionError)) throw error;
    return null;
  }
}

function imageOf(world: World, store: StoreReader, layer: number): Image {
  const lineage = new Lineage();
  return Array.from({ length: SECTORS }, (_, at) => {
    const sector = FIRST + at;
    const found = lookupNearest(store, lineage, layer, Math.floor(sector / 512));
    const block = found === null ? 0 : getBlock(found.block.raw, sector % 512);
    if (block === 0) return 0;
    const offset = blockOffset(world.superblock, block);
    return Buffer.from(native.deviceRead(world.device, offset, SECTOR_BYTES)).readUInt32LE(0);
  });
}

test("a copy of the store is refused, or all that it names reads as it was written last", async () => {
  const seen = { accepted: 0, withChanges: 0, refused: 0 };
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seeded(seed);
    const world = new World({ dataBlocks: 160, journalBlocks: 64 });
    await world.format();
    await world.open();
    const history = new History(world, random);
    for (let step = 0; step < STEPS; step++) {
      await history.step(step);
      for (const backup of history.backups.slice(-4)) {
        const store = await accepted(world, backup);
        if (store === null) {
          seen.refused++;
          continue;
        }
        seen.accepted++;
        if (step - backup.step > 3) seen.withChanges++;
        const layers = [
          ...listVolumes(store).map(({ name, record }) => [name, record.layer] as const),
          ...listSnapshots(store).map(({ volume, name, record }) => {
            return [`${volume}@${name}`, record.layer] as const;
          }),
        ];
        for (const [name, layer] of layers) {
          const where = `seed ${seed}: ${name} after step ${step}, by the copy of ${backup.step}`;
          assert.equal(imageOf(world, store, layer), history.images.get(name), where);
        }
      }
    }
    await world.close();
    world.destroy();
  }
  assert.ok(seen.accepted > 200 && seen.withChanges > 50, JSON.stringify(seen));
  assert.ok(seen.refused > 200, JSON.stringify(seen));
});

test.run();
