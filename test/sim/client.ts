// Whoever uses a pool: submits block I/O and changes of the catalogue, any number of them at a
// time, and enters them in the books. After a crash it finds out what became of that which was
// under way, and holds the pool to everything that was acknowledged.
import { assert } from "../../engine/base/assert.js";
import { SECTOR_BYTES } from "../../engine/base/constants.js";
import { isPandoError } from "../../engine/base/errors.js";
import { getVolume } from "../../engine/store/catalogue.js";
import { IO_OP, type IoResult } from "../../native/native.js";
import {
  compareNames,
  type Found,
  findNames,
  requireCleanStore,
  requireNothingLeft,
} from "./audit.js";
import { sectorsOf } from "./blocks.js";
import { Books, HOLE, type Range, type SnapshotBook, type VolumeBook } from "./books.js";
import { type History, type Mark, onTrial, written } from "./history.js";
import { compareSpace } from "./space.js";
import type { Scheduler, World } from "./world.js";

/** A change of the catalogue that is under way: after a crash either is right. */
interface Pending {
  what: string;
  /** Looks whether it happened, and takes it into the books. */
  resolve(found: Found): void;
}

interface Change extends Pending {
  /** It was acknowledged: takes it into the books. */
  done(): void;
}

const IO_NAMES = Object.keys(IO_OP);

/** An I/O's status that is no surprise. */
export type Outcome = IoResult["status"];

/** Sectors. */
const LONGEST_READ = 64;

export class Client {
  #world: World;
  #books = new Books();
  /** Names that a change under way is about. */
  busy = new Set<string>();
  /** Where the traffic is. */
  readonly places: readonly Range[];
  /** What is read to compare a whole volume: the places, and every sector that was ever changed. */
  readonly #touched = new Set<number>();
  underWay = 0;
  /** Of those that are under way. */
  grows = 0;
  #pending = new Set<Pending>();
  /** Told of everything that is asked for, and how it ends. */
  trace: (line: string) => void = () => undefined;
  #version = 0;
  #temporary = 0;
  /** Since the volumes were compared the last time. */
  #lostPower = false;
  /** The device's size, as a grow that was acknowledged has said. */
  #grownTo = 0;
  /** What is found counts for good. */
  #forGood = true;

  constructor(world: World, places: readonly Range[]) {
    this.#world = world;
    this.places = places;
    for (const place of places) this.#touch(place);
  }

  // Block I/O. Each submits at once, and resolves with the status.

  async write(name: string, range: Range, options: { fua?: boolean } = {}): Promise<Outcome> {
    const versions = Array.from({ length: range.count }, () => ++this.#version);
    const marks = versions.map((version, at) => ({ sector: range.sector + at, version }));
    return this.#change(name, IO_OP.write, range, marks, sectorsOf(versions), options.fua ?? false);
  }

  /** Whole blocks of the range become holes. */
  async discard(name: string, range: Range, options: { fua?: boolean } = {}): Promise<Outcome> {
    const block = this.world.superblock.blockSizeBytes / SECTOR_BYTES;
    const first = Math.ceil(range.sector / block) * block;
    const end = Math.floor((range.sector + range.count) / block) * block;
    const marks: { sector: number; version: number }[] = [];
    for (let sector = first; sector < end; sector++) marks.push({ sector, version: 0 });
    return this.#change(name, IO_OP.discard, range, marks, null, options.fua ?? false);
  }

  async writeZeroes(name: string, range: Range, options: { fua?: boolean } = {}): Promise<Outcome> {
    const marks = Array.from({ length: range.count }, (_, at) => ({
      sector: range.sector + at,
      version: 0,
    }));
    return this.#change(name, IO_OP.writeZeroes, range, marks, null, options.fua ?? false);
  }

  async flush(name: string): Promise<Outcome> {
    const volume = this.#books.volume(name);
    const since = this.#books.tick();
    const { status } = await this.#io(volume, IO_OP.flush, { sector: 0, count: 0 }, null, false);
    const now = this.#books.tick();
    if (status === "ok")
      for (const history of volume.histories.values()) history.flushed(since, now);
    return status;
  }

  /** Reads and compares. */
  async read(name: string, range: Range): Promise<Outcome> {
    const volume = this.#books.volume(name);
    const from = this.#books.tick();
    const { status, data } = await this.#io(volume, IO_OP.read, range, null, false);
    const to = this.#books.tick();
    if (status !== "ok") return status;
    this.#books.compare(volume, range, data, (history) => history.visible(from, to), "read");
    return status;
  }

  // The catalogue. Each refuses nothing: the caller picks names that are free and not busy.

  create(name: string, sectors: number): Promise<void> {
    const add = (): void => this.#books.addVolume(name, sectors, () => HOLE);
    return this.#alter([name], () => this.pool.createVolume(name, sectors * SECTOR_BYTES), {
      what: `create ${name} ${sectors}`,
      done: add,
      resolve: (found) => {
        if (found.volumes.has(name)) add();
      },
    });
  }

  snapshot(name: string, snapshot: string): Promise<void> {
    return this.snapshotGroup([name], snapshot);
  }

  /** Of each volume one of this name, at one instant. */
  async snapshotGroup(names: string[], snapshot: string): Promise<void> {
    const volumes = names.map((name) => this.#books.volume(name));
    const keys = names.map((name) => `${name}@${snapshot}`);
    const from = this.#books.tick();
    const add = (cut: boolean): void => {
      volumes.forEach((volume, at) => {
        const image = this.#books.imageOf(volume, from, cut);
        this.snapshots.set(keys[at] as string, { image, sectors: volume.sectors });
      });
    };
    const work = () => this.pool.createSnapshots(names.map((volume) => ({ volume, snapshot })));
    await this.#pinned(volumes, keys, work, {
      what: `snapshot ${keys.join(" ")}`,
      done: () => {
        add(false);
        for (const volume of volumes) this.#books.frozen(volume, from);
      },
      resolve: (found) => {
        const there = keys.filter((key) => found.snapshots.has(key)).length;
        assert(there === 0 || there === keys.length, "a group is there whole or not at all");
        if (there > 0) add(this.#lostPower);
      },
    });
  }

  /** The volume goes on from its snapshot; nobody has it open afterwards. */
  async rollBack(key: string): Promise<void> {
    const [name, snapshot] = key.split("@") as [string, string];
    const source = this.snapshots.get(key);
    assert(source !== undefined, `${key} exists`);
    this.busy.add(name);
    await this.close(name);
    const { sectors } = this.#books.volume(name);
    const before = getVolume(this.world.store, name).layer;
    const replace = (): void =>
      this.#books.addVolume(name, sectors, (sector) =>
        sector < source.sectors ? source.image.at(sector) : HOLE,
      );
    await this.#alter([name, key], () => this.pool.rollbackVolume(name, snapshot), {
      what: `roll back ${key}`,
      done: replace,
      resolve: () => {
        if (getVolume(this.world.store, name).layer !== before) replace();
      },
    });
  }

  cloneSnapshot(key: string, name: string): Promise<void> {
    const [volume, snapshot] = key.split("@") as [string, string];
    const source = this.snapshots.get(key);
    assert(source !== undefined, `${key} exists`);
    const add = (): void =>
      this.#books.addVolume(name, source.sectors, (sector) => source.image.at(sector));
    return this.#alter([name], () => this.pool.cloneVolume({ volume, snapshot }, name), {
      what: `clone ${key} ${name}`,
      done: add,
      resolve: (found) => {
        if (found.volumes.has(name)) add();
      },
    });
  }

  cloneVolume(source: string, name: string): Promise<void> {
    const volume = this.#books.volume(source);
    const from = this.#books.tick();
    const add = (cut: boolean): void => {
      const image = this.#books.imageOf(volume, from, cut);
      this.#books.addVolume(name, volume.sectors, (sector) => image.at(sector));
    };
    const origin = { volume: source, snapshot: null };
    return this.#pinned([volume], [name], () => this.pool.cloneVolume(origin, name), {
      what: `clone ${source} ${name}`,
      done: () => {
        add(false);
        this.#books.frozen(volume, from);
      },
      resolve: (found) => {
        if (found.volumes.has(name)) add(this.#lostPower);
      },
    });
  }

  async deleteVolume(name: string): Promise<void> {
    this.busy.add(name);
    await this.close(name);
    const remove = (): void => {
      this.volumes.delete(name);
    };
    await this.#alter([name], () => this.pool.deleteVolume(name), {
      what: `delete ${name}`,
      done: remove,
      resolve: (found) => {
        if (!found.volumes.has(name)) remove();
      },
    });
  }

  deleteSnapshot(key: string): Promise<void> {
    const [volume, snapshot] = key.split("@") as [string, string];
    const remove = (): void => {
      this.snapshots.delete(key);
    };
    return this.#alter([key], () => this.pool.deleteSnapshot(volume, snapshot), {
      what: `delete ${key}`,
      done: remove,
      resolve: (found) => {
        if (!found.snapshots.has(key)) remove();
      },
    });
  }

  resize(name: string, sectors: number): Promise<void> {
    const volume = this.#books.volume(name);
    return this.#alter([name], () => this.pool.resizeVolume(name, sectors * SECTOR_BYTES), {
      what: `resize ${name} ${sectors}`,
      done: () => {
        volume.sectors = sectors;
      },
      resolve: (found) => {
        const bytes = found.volumes.get(name);
        if (bytes === sectors * SECTOR_BYTES) this.#books.volume(name).sectors = sectors;
      },
    });
  }

  /** Opens the volume in the data path, if it is not. */
  async open(name: string): Promise<void> {
    const volume = this.#books.volume(name);
    if (volume.held) return;
    volume.moving = true;
    await this.#counted(this.pool.hold(name));
    volume.moving = false;
    volume.held = true;
  }

  async close(name: string): Promise<void> {
    const volume = this.#books.volume(name);
    if (!volume.held) return;
    volume.moving = true;
    await this.#counted(this.pool.release(name));
    volume.held = false;
    volume.moving = false;
  }

  checkpoint(): Promise<void> {
    return this.#counted(this.pool.checkpoint());
  }

  /** The pool has so many blocks more, if its device has the room and nobody else was faster. */
  async grow(blocks: number): Promise<void> {
    const { deviceSizeBytes, blockSizeBytes } = this.world.superblock;
    const sizeBytes = deviceSizeBytes + blocks * blockSizeBytes;
    this.grows++;
    try {
      await this.#counted(this.pool.grow({ sizeBytes, sparse: true }));
      this.#grownTo = Math.max(this.#grownTo, sizeBytes);
    } catch (error) {
      if (!isPandoError(error, "EINVAL")) throw error;
    } finally {
      this.grows--;
    }
  }

  /**
   * The process has died: nothing that was under way will be answered. If power was not lost,
   * everything that was acknowledged is still there: a host that stays up will not write it again.
   */
  died(how: "kill" | "power"): void {
    if (how === "power") this.#lostPower = true;
    this.busy.clear();
    this.underWay = 0;
    this.grows = 0;
    for (const volume of this.volumes.values()) {
      volume.held = false;
      volume.moving = false;
      volume.pins = 0;
    }
  }

  /**
   * The pool was opened again: finds out what happened to what was under way, compares every
   * volume, and forgets what cannot come back.
   */
  async resume(scheduler?: Scheduler): Promise<void> {
    const found = await findNames(this.world);
    compareSpace(this.world, found.listed);
    for (const pending of this.#pending) pending.resolve(found);
    this.#pending.clear();
    compareNames(found, this.#books);
    this.checkStore();
    const { deviceSizeBytes } = this.world.superblock;
    assert(deviceSizeBytes >= this.#grownTo, `a pool of ${this.#grownTo} has ${deviceSizeBytes}`);
    const volumes = [...this.volumes.values()];
    if (this.#forGood) {
      for (const volume of volumes) await this.#compareVolume(volume, true, scheduler);
    } else {
      const all = Promise.all(volumes.map((volume) => this.#compareAtOnce(volume)));
      await this.world.run(all);
    }
    this.#lostPower = false;
  }

  /**
   * Finds out whether all that was acknowledged is in the world that a crash now would leave, as
   * resume() does after one, and then whatever `more` wants to know. This client and its own world
   * stay as they are; the other one ends.
   */
  async tryCrash(
    how: "kill" | "power",
    after: World,
    more: () => Promise<void> = async () => undefined,
  ): Promise<void> {
    const { busy, underWay, grows, trace } = this;
    const kept = { world: this.#world, books: this.#books, pending: this.#pending };
    const lostPower = this.#lostPower;
    const temporary = this.#temporary;
    this.#world = after;
    this.#books = kept.books.copy();
    this.#pending = new Set(kept.pending);
    this.busy = new Set();
    this.#forGood = false;
    this.trace = () => undefined;
    try {
      await onTrial(async () => {
        this.died(how);
        await after.open();
        await this.resume();
        await more();
      });
      after.destroy();
    } finally {
      this.#world = kept.world;
      this.#books = kept.books;
      this.#pending = kept.pending;
      this.busy = busy;
      this.underWay = underWay;
      this.grows = grows;
      this.trace = trace;
      this.#lostPower = lostPower;
      this.#temporary = temporary;
      this.#forGood = true;
    }
  }

  /** Reads everything that there is, snapshots too. */
  async compareAll(scheduler?: Scheduler): Promise<void> {
    assert(this.underWay === 0, "nothing is under way");
    compareNames(await findNames(this.world), this.#books);
    for (const volume of [...this.volumes.values()])
      await this.#compareVolume(volume, false, scheduler);
    await this.compareSnapshots(scheduler);
  }

  /** Reads them through clones. */
  async compareSnapshots(scheduler?: Scheduler): Promise<void> {
    for (const key of [...this.snapshots.keys()]) {
      const name = `temporary-${++this.#temporary}`;
      const options = scheduler === undefined ? {} : { scheduler };
      await this.world.run(this.cloneSnapshot(key, name), options);
      await this.#compareVolume(this.#books.volume(name), false, scheduler);
      await this.world.run(this.deleteVolume(name), options);
    }
  }

  /** Deletes everything; afterwards nothing may be left. */
  async deleteAll(): Promise<void> {
    const { world } = this;
    for (const key of [...this.snapshots.keys()]) await world.run(this.deleteSnapshot(key));
    for (const name of [...this.volumes.keys()]) await world.run(this.deleteVolume(name));
    await requireNothingLeft(world);
  }

  checkStore(): void {
    requireCleanStore(this.world);
  }

  get world(): World {
    return this.#world;
  }

  get volumes(): Map<string, VolumeBook> {
    return this.#books.volumes;
  }

  /** By `volume@snapshot`. */
  get snapshots(): Map<string, SnapshotBook> {
    return this.#books.snapshots;
  }

  /** Changes of the catalogue that are under way. */
  get changes(): string[] {
    return [...this.#pending].map(({ what }) => what);
  }

  get pool(): World["pool"] {
    return this.world.pool;
  }

  async #change(
    name: string,
    op: number,
    range: Range,
    changes: { sector: number; version: number }[],
    data: Uint8Array | null,
    fua: boolean,
  ): Promise<Outcome> {
    const volume = this.#books.volume(name);
    this.#touch(range);
    const began = this.#books.tick();
    const marks: Mark[] = changes.map(({ sector, version }) =>
      this.#books.history(volume, sector).begin(written(version), began),
    );
    const { status } = await this.#io(volume, op, range, data, fua);
    const ended = this.#books.tick();
    for (const mark of marks) {
      mark.ended = ended;
      mark.ok = status === "ok";
      if (mark.ok && fua) mark.durable = ended;
    }
    return status;
  }

  async #io(
    volume: VolumeBook,
    op: number,
    { sector, count }: Range,
    data: Uint8Array | null,
    fua: boolean,
  ): Promise<IoResult> {
    const offset = sector * SECTOR_BYTES;
    const what = `${IO_NAMES[op]} ${volume.name} ${sector}+${count}${fua ? " fua" : ""}`;
    this.trace(what);
    const io = this.pool.io(volume.name, op, offset, count * SECTOR_BYTES, data, fua);
    const result = await this.#counted(io);
    this.trace(`${what}: ${result.status}`);
    return result;
  }

  #touch({ sector, count }: Range): void {
    for (let i = 0; i < count; i++) this.#touched.add(sector + i);
  }

  async #counted<T>(work: Promise<T>): Promise<T> {
    this.underWay++;
    try {
      return await work;
    } finally {
      this.underWay--;
    }
  }

  async #pinned(
    volumes: VolumeBook[],
    names: string[],
    work: () => Promise<unknown>,
    change: Change,
  ): Promise<void> {
    for (const volume of volumes) volume.pins++;
    try {
      await this.#alter(names, work, change);
    } finally {
      for (const volume of volumes) volume.pins--;
    }
  }

  async #alter(names: string[], work: () => Promise<unknown>, change: Change): Promise<void> {
    for (const name of names) this.busy.add(name);
    const { what } = change;
    this.#pending.add(change);
    this.#books.tick();
    this.trace(what);
    try {
      await this.#counted(work());
      this.#pending.delete(change);
      change.done();
      this.trace(`${what}: done`);
    } catch (error) {
      this.trace(`${what}: ${(error as Error).message}`);
      // Refused for good, unless the pool is broken or closed: then opening it again shows.
      const unknown = isPandoError(error, "EIO") || isPandoError(error, "ECLOSED");
      if (!unknown) this.#pending.delete(change);
      throw error;
    } finally {
      for (const name of names) this.busy.delete(name);
    }
  }

  async #compareVolume(volume: VolumeBook, crashed: boolean, scheduler?: Scheduler): Promise<void> {
    const options = scheduler === undefined ? {} : { scheduler };
    await this.world.run(this.open(volume.name), options);
    for (const range of this.#touchedOf(volume)) {
      await this.world.run(this.#compareRange(volume, range, crashed), options);
    }
    await this.world.run(this.close(volume.name), options);
  }

  /** After a crash on trial: nothing changes meanwhile, so the reads may meet each other. */
  async #compareAtOnce(volume: VolumeBook): Promise<void> {
    await this.open(volume.name);
    const ranges = this.#touchedOf(volume);
    await Promise.all(ranges.map((range) => this.#compareRange(volume, range, true)));
    await this.close(volume.name);
  }

  async #compareRange(volume: VolumeBook, range: Range, crashed: boolean): Promise<void> {
    const from = this.#books.tick();
    const { status, data } = await this.#io(volume, IO_OP.read, range, null, false);
    assert(status === "ok", `reading ${volume.name} ends with ${status}`);
    const allowed = (history: History): Mark[] =>
      crashed && this.#lostPower
        ? history.durableOrNewer()
        : history.visible(from, this.#books.tick());
    const when = crashed ? "after a crash" : "at rest";
    this.#books.compare(volume, range, data, allowed, when, crashed && this.#forGood);
  }

  #touchedOf(volume: VolumeBook): Range[] {
    return runsOf([...this.#touched].filter((sector) => sector < volume.sectors));
  }
}

/** In order, none longer than one request may be. */
function runsOf(sectors: readonly number[]): Range[] {
  const runs: Range[] = [];
  for (const sector of [...sectors].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last !== undefined && last.sector + last.count === sector && last.count < LONGEST_READ) {
      runs[runs.length - 1] = { sector: last.sector, count: last.count + 1 };
    } else {
      runs.push({ sector, count: 1 });
    }
  }
  return runs;
}
