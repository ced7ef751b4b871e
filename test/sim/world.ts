// The engine in a simulation: the production data path on the simulated disk, the production core
// on the model store, nothing moving but by a step. A step completes one operation of the disk,
// lets the store take one, or brings a question about the index or its answer a leg further; which,
// the scheduler says.
import { assert } from "../../engine/base/assert.js";
import type { Clock } from "../../engine/base/clock.js";
import { DEFAULT_POLICY } from "../../engine/base/dhchap-key.js";
import { PandoError } from "../../engine/base/errors.js";
import { type Log, makeLog } from "../../engine/base/log.js";
import { planGrow } from "../../engine/core/grow.js";
import { Pool } from "../../engine/core/pool.js";
import { type Recovered, readSuperblock, recover } from "../../engine/core/recovery.js";
import { replaceSuperblocks } from "../../engine/core/superblocks.js";
import {
  putIdsRecord,
  putJournalRecord,
  putPoolRecord,
  putSpaceRecord,
} from "../../engine/store/catalogue.js";
import { onlyChild } from "../../engine/store/layers.js";
import {
  DATA_ALIGNMENT_BYTES,
  encodeSuperblock,
  type Superblock,
} from "../../engine/store/superblock.js";
import { type Addon, native, type PendingDiskOp, SURVIVORS } from "../../native/native.js";
import { ModelStore, type StoreStep } from "./model-store.js";

export type Survivors = keyof typeof SURVIVORS;

export interface WorldOptions {
  dataBlocks: number;
  journalBlocks?: number;
  blockSizeBytes?: number;
  atomicUnit?: 512 | 4096;
  indexCacheBytes?: number;
  dirtyLimit?: number;
  /** Index blocks that a deleted layer has at least for its only child to absorb it. */
  absorbFrom?: number;
  /** Index blocks that this child has at most; of more it hands up. */
  absorbMost?: number;
  /** Chunks in which a transaction of a fold frees blocks; 0: one span, if it frees any. */
  foldChunks?: number;
  /** The pool may grow by so many. */
  roomBlocks?: number;
  /** Free blocks go back to the disk. */
  discard?: boolean;
  /** And never by a trim. */
  keepsRoom?: boolean;
  /** Of the first journal block: how far from the ring's end the journal begins. */
  firstSequence?: number;
  /** Where the pool says what it has to say to the operator; by default nowhere. */
  log?: Log;
}

/** A question waits for the index service to read the store; an answer is on its way back. */
export type IndexStep = "question" | "answer";
/** A flush of the superblocks. */
export type DeviceStep = "superblock";
/** Work in the background lets others go first. */
export type TurnStep = "turn";

export interface Choice {
  kind: PendingDiskOp["kind"] | StoreStep | IndexStep | DeviceStep | TurnStep;
  /** Disk operations: where. */
  offset: number;
  length: number;
  /** Lets the thing happen; a disk operation fails with `errno` if it is not 0. */
  take(errno?: number): void;
  /** Reads and writes of more than one atomic unit: so many bytes of it, the rest later. */
  shorten?: { unitBytes: number; take(lengthBytes: number): void };
}

/**
 * What a checkpoint is doing; "last": index blocks are put, the transaction with the tail is not
 * durable.
 */
export type CheckpointPhase = "none" | "begin" | "batches" | "last";

/**
 * What a fold is doing with a batch of spans: getting them, or putting them in the store; "absorb":
 * putting them all, the other way round; "hand up": putting some.
 */
export type FoldPhase = "none" | "hold" | "transaction" | "absorb" | "hand up";

/**
 * What a snapshot is doing; "store": its volume is frozen, its transaction not yet durable;
 * "flush": it is, the volume goes on, and what was written before may not be durable.
 */
export type FreezePhase = "none" | "freeze" | "store" | "flush";

/** Picks the next thing to happen; null: nothing that is there may happen yet. */
export type Scheduler = (choices: Choice[]) => Choice | null;

export const firstCome: Scheduler = (choices) => choices[0] ?? null;

const DATA_OFFSET_BYTES = 2 * DATA_ALIGNMENT_BYTES;
const BOOT_ID = "simulation";
/** The most that the device is read at once. */
const READ_BYTES = 1024 * 1024;

export class World {
  /** As it was read or written last. */
  superblock: Superblock;
  readonly #options: WorldOptions;
  #device: number;
  #store: ModelStore;
  #storeSteps: { step: StoreStep; resolve: () => void }[] = [];
  #indexSteps: { step: IndexStep | DeviceStep | TurnStep; take: () => void }[] = [];
  #pool: Pool | null = null;
  #uuids = 0;
  #ticks: { interval: number; run: () => void }[] = [];
  checkpointPhase: CheckpointPhase = "none";
  foldPhase: FoldPhase = "none";
  /** Layers, so far. */
  absorbed = 0;
  /** Index blocks, so far. */
  handedUp = 0;
  /** What was forgotten last, by itself. */
  #forgotten: { layer: number; spans: string } | null = null;
  #handsUp = false;
  freezePhase: FreezePhase = "none";
  /** Of volumes, under way. */
  #flushes = 0;
  /** What the superblocks would say of reclaims. */
  reclaims = 0;
  /** What recovery said at the last opening. */
  recovered: Recovered | null = null;
  /** Steps taken since the world began, by kind. */
  readonly steps: Record<Choice["kind"], number> = {
    read: 0,
    write: 0,
    "write-durable": 0,
    flush: 0,
    discard: 0,
    commit: 0,
    durable: 0,
    question: 0,
    answer: 0,
    turn: 0,
    superblock: 0,
  };

  /** `from`: another one's device and store, to go on with. */
  constructor(options: WorldOptions, from?: { world: World; device: number; store: ModelStore }) {
    this.#options = options;
    const blockSizeBytes = options.blockSizeBytes ?? 4096;
    const journalBlocks = options.journalBlocks ?? 256;
    const dataOffsetBytes = DATA_OFFSET_BYTES;
    assert(journalBlocks * 4096 <= DATA_ALIGNMENT_BYTES, "a simulated journal has up to 1 MiB");
    this.superblock = {
      version: 1,
      blockSizeBytes,
      uuid: this.#newUuid(),
      generation: 1,
      deviceSizeBytes: dataOffsetBytes + options.dataBlocks * blockSizeBytes,
      journalOffsetBytes: DATA_ALIGNMENT_BYTES,
      journalBlocks,
      dataOffsetBytes,
      dataBlocks: options.dataBlocks,
      epoch: 0,
      reclaims: 0,
    };
    if (from !== undefined) {
      this.superblock = from.world.superblock;
      this.#device = from.device;
      this.#store = from.store.fork({ schedule: this.#schedule });
      this.#uuids = from.world.#uuids;
      return;
    }
    this.#device = native.simDiskFork(usedDisk(this.#diskBytes, options.atomicUnit ?? 4096));
    for (const offset of [0, 64 * 1024]) {
      native.simDiskWrite(this.#device, offset, encodeSuperblock(this.superblock));
    }
    native.deviceFlush(this.#device);
    this.#store = new ModelStore({ schedule: this.#schedule });
  }

  /**
   * Another world with the same device and store, nothing under way: only while the pool is closed.
   */
  fork(): World {
    assert(this.#pool === null, "a world in service cannot be forked");
    const device = native.simDiskFork(this.#device);
    return new World(this.#options, { world: this, device, store: this.#store });
  }

  /** The world that a power cut now would leave; this one goes on as if nothing had been. */
  afterPowerCut(survivors: Survivors, seed: number, kept: (limit: number) => number): World {
    const device = native.simDiskFork(this.#device);
    native.simDiskCutPower(device, SURVIVORS[survivors], seed);
    const store = this.#store.afterCrash(true, kept);
    return new World(this.#options, { world: this, device, store });
  }

  /** The world that a kill now would leave; this one goes on as if nothing had been. */
  afterKill(seed: number): World {
    const device = native.simDiskFork(this.#device);
    native.simDiskKill(device, seed);
    const store = this.#store.afterCrash(false, (n) => seed % n);
    return new World(this.#options, { world: this, device, store });
  }

  get isOpen(): boolean {
    return this.#pool !== null;
  }

  get pool(): Pool {
    assert(this.#pool !== null, "the pool is open");
    return this.#pool;
  }

  get store(): ModelStore {
    return this.#store;
  }

  get device(): number {
    return this.#device;
  }

  get atomicUnit(): 512 | 4096 {
    return this.#options.atomicUnit ?? 4096;
  }

  /**
   * Every I/O, every commit of the store and what is on the device now, as one number: two runs
   * that differ anywhere differ here.
   */
  get digest(): number {
    let digest = native.crc32c(
      Buffer.from(`${native.simDiskDigest(this.#device)} ${this.#store.digest}`),
    );
    for (let offset = 0; offset < this.#diskBytes; offset += READ_BYTES) {
      const length = Math.min(READ_BYTES, this.#diskBytes - offset);
      digest = native.crc32c(native.deviceRead(this.#device, offset, length), digest);
    }
    return digest;
  }

  /** How many things have happened. */
  get stepCount(): number {
    return Object.values(this.steps).reduce((sum, count) => sum + count, 0);
  }

  get roomBlocks(): number {
    return this.#options.roomBlocks ?? 0;
  }

  /** Blocks that the pool has got since it was made. */
  get grown(): number {
    return this.superblock.dataBlocks - this.#options.dataBlocks;
  }

  get #diskBytes(): number {
    const { dataBlocks, roomBlocks = 0, blockSizeBytes = 4096 } = this.#options;
    return DATA_OFFSET_BYTES + (dataBlocks + roomBlocks) * blockSizeBytes;
  }

  get #reader() {
    return {
      sizeBytes: this.#diskBytes,
      read: (offset: number, length: number) => native.deviceRead(this.#device, offset, length),
      flush: async () => native.deviceFlush(this.#device),
    };
  }

  /** How a pool in service writes its superblocks: a flush of theirs is a step. */
  get #superblocks() {
    return {
      ...this.#reader,
      write: (offset: number, bytes: Uint8Array) => {
        native.simDiskWrite(this.#device, offset, bytes);
        this.superblock = readSuperblock(this.#reader);
      },
      flush: async () => {
        await new Promise<void>((resolve) => this.#later("superblock", resolve));
        native.deviceFlush(this.#device);
      },
      close: () => undefined,
    };
  }

  /** Writes the store's first records, as making a pool does. */
  async format(): Promise<void> {
    const { uuid, generation, blockSizeBytes, dataBlocks, journalBlocks } = this.superblock;
    await this.run(
      this.#store.transact((txn) => {
        putPoolRecord(txn, {
          version: 1,
          uuid,
          generation,
          blockSize: blockSizeBytes,
          dataBlocks,
          journalBlocks,
        });
        putJournalRecord(txn, { epoch: 1, tail: this.#options.firstSequence ?? 1 });
        putIdsRecord(txn, { nextLayer: 1 });
        putSpaceRecord(txn, { allocatedBlocks: 0 });
      }),
    );
  }

  /** Recovers and opens, step by step, so that `interrupt` may end it in the middle. */
  async open(options: { scheduler?: Scheduler; interrupt?: () => boolean } = {}): Promise<boolean> {
    const device = this.#reader;
    const recovering = async (): Promise<Recovered> => {
      const recovered = await recover(this.#store, device, {
        spansPerTransaction: 2,
        unflushed: { memory: native.simSharedRead(this.#device), bootId: BOOT_ID },
      });
      if (recovered.grew) await replaceSuperblocks(this.#superblocks, recovered.superblock);
      return recovered;
    };
    const done = await this.run(recovering(), options);
    if (done === null) return false;
    this.recovered = done.value;
    this.superblock = done.value.superblock;
    this.#pool = new Pool({
      addon: this.#addon,
      device: this.#device,
      store: this.#store,
      recovered: done.value,
      clock: this.#clock,
      log: this.#options.log ?? silent,
      newUuid: () => this.#newUuid(),
      authentication: { policy: DEFAULT_POLICY, newBytes: (count) => new Uint8Array(count) },
      news: {
        disconnect: async () => ({ controllers: 0, ended: true }),
        connections: async () => [],
        resized: () => {},
        exportsChanged: () => {},
      },
      memory: { sharedPath: "", bootId: BOOT_ID },
      path: "simulation",
      indexCacheBytes: this.#options.indexCacheBytes ?? 1024 * 1024,
      dirtyLimit: this.#options.dirtyLimit ?? 1000,
      fold: { spans: 2, chunks: this.#options.foldChunks ?? 1 },
      absorb: {
        from: this.#options.absorbFrom ?? 1000,
        times: 0,
        most: this.#options.absorbMost ?? 1000,
        batch: 1,
      },
      reclaim: { spans: 2, chunks: 1 },
      discard: this.#options.discard ?? false,
      keepsRoom: this.#options.keepsRoom ?? false,
      spaceLevels: [80, 90, 95],
      backups: {
        store: async function* (fixed): AsyncGenerator<Uint8Array> {
          yield await fixed(async (reclaims) => Uint8Array.of(reclaims));
        },
      },
      writeSuperblocks: async ({ reclaims, dataBlocks }) => {
        assert(
          dataBlocks === this.superblock.dataBlocks,
          "what was grown stays in the superblocks",
        );
        this.reclaims = reclaims;
      },
      growing: {
        plan: (current, { sizeBytes }) => {
          const larger = planGrow(current, sizeBytes ?? this.#diskBytes);
          if (larger.deviceSizeBytes <= this.#diskBytes) return larger;
          throw new PandoError("EINVAL", "the device has no more room");
        },
        makeRoom: async () => undefined,
        device: () => this.#superblocks,
      },
    });
    return true;
  }

  /**
   * Steps until `work` is settled; gives its result, or null if `interrupt` said so before a step.
   * Throws what it throws, and if nothing is left to happen while it still waits.
   */
  async run<T>(
    work: Promise<T>,
    options: { scheduler?: Scheduler; interrupt?: () => boolean } = {},
  ): Promise<{ value: T } | null> {
    let outcome: { value: T } | { error: unknown } | null = null;
    work.then(
      (value) => {
        outcome = { value };
      },
      (error: unknown) => {
        outcome = { error };
      },
    );
    for (;;) {
      await this.settle();
      if (outcome !== null) break;
      if (options.interrupt?.() === true) return null;
      const choice = (options.scheduler ?? firstCome)(this.choices());
      assert(choice !== null, "deadlock: nothing can happen, and somebody waits");
      choice.take();
    }
    const settled = outcome as { value: T } | { error: unknown };
    if ("error" in settled) throw settled.error;
    return settled;
  }

  /**
   * Everything that can happen now, the oldest first: the disk's operations, then the index
   * service's, then the store's.
   */
  choices(): Choice[] {
    const choices: Choice[] = native.simDiskPending(this.#device).map((op, index) => ({
      kind: op.kind,
      offset: op.offset,
      length: op.length,
      take: (errno = 0) => {
        this.steps[op.kind]++;
        native.simDiskComplete(this.#device, index, errno, this.stepCount);
      },
      ...(op.kind !== "discard" &&
        op.length > this.atomicUnit && {
          shorten: {
            unitBytes: this.atomicUnit,
            take: (lengthBytes: number) => {
              this.steps[op.kind]++;
              native.simDiskTransfer(this.#device, index, lengthBytes);
            },
          },
        }),
    }));
    for (const waiting of this.#indexSteps) {
      choices.push({
        kind: waiting.step,
        offset: 0,
        length: 0,
        take: () => {
          this.steps[waiting.step]++;
          this.#indexSteps.splice(this.#indexSteps.indexOf(waiting), 1);
          waiting.take();
        },
      });
    }
    const [next] = this.#storeSteps;
    if (next !== undefined) {
      choices.push({
        kind: next.step,
        offset: 0,
        length: 0,
        take: () => {
          this.steps[next.step]++;
          this.#storeSteps.shift();
          next.resolve();
        },
      });
    }
    return choices;
  }

  /** Lets both languages come to rest: every message delivered, every promise chain run. */
  async settle(): Promise<void> {
    for (let chains = false; ; chains = true) {
      const ran = this.#pool === null ? 0 : native.poolDrain(this.#pool.handle);
      if (ran === 0 && chains) return;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** The engine's timers of up to this interval come due. */
  tick(longestMs = Number.POSITIVE_INFINITY): void {
    for (const { interval, run } of [...this.#ticks]) if (interval <= longestMs) run();
  }

  /** Steps until nothing is left to happen. */
  async quiesce(scheduler: Scheduler = firstCome): Promise<void> {
    for (;;) {
      await this.settle();
      const choices = this.choices();
      if (choices.length === 0) return;
      (scheduler(choices) ?? (choices[0] as Choice)).take();
    }
  }

  /**
   * Power is cut: `survivors` of what the disk had not flushed, and `kept` of the transactions that
   * were not durable.
   */
  cutPower(survivors: Survivors, seed: number, kept: (limit: number) => number): void {
    // The disk first: what is pending there lies in the pool's memory.
    native.simDiskCutPower(this.#device, SURVIVORS[survivors], seed);
    this.#die();
    this.#store = this.#store.crash(true, kept, { schedule: this.#schedule });
  }

  /** The process is killed: caches stay, requests under way land or not. */
  kill(seed: number): void {
    native.simDiskKill(this.#device, seed);
    this.#die();
    this.#store = this.#store.crash(false, (n) => seed % n, { schedule: this.#schedule });
  }

  /** A clean stop. */
  async close(scheduler: Scheduler = firstCome): Promise<void> {
    await this.run(this.pool.close(), { scheduler });
    assert(native.simDiskPendingCount(this.#device) === 0, "a closed pool leaves the disk alone");
    this.#die();
    this.#store = this.#store.fork({ schedule: this.#schedule });
  }

  /** Ends the world; its memory goes. */
  destroy(): void {
    native.simDiskKill(this.#device, 0);
    this.#die();
    native.deviceClose(this.#device);
  }

  #die(): void {
    if (this.#pool !== null) native.poolClose(this.#pool.handle);
    this.#pool = null;
    this.#storeSteps = [];
    this.#indexSteps = [];
    this.#ticks = [];
    this.checkpointPhase = "none";
    this.foldPhase = "none";
    this.absorbed = 0;
    this.handedUp = 0;
    this.#forgotten = null;
    this.#handsUp = false;
    this.freezePhase = "none";
    this.#flushes = 0;
  }

  readonly #schedule = (step: StoreStep): Promise<void> =>
    new Promise((resolve) => {
      this.#storeSteps.push({ step, resolve });
    });

  /**
   * The addon, with the index service at arm's length: it reads at one step and answers at another.
   */
  readonly #addon: Addon = {
    ...native,
    poolOpen: (device, options, onEvent) =>
      native.poolOpen(device, options, (event) => {
        if (event.type === "index") this.#later("question", () => onEvent(event));
        else onEvent(event);
      }),
    checkpointBegin: (pool) => {
      this.checkpointPhase = "begin";
      return native.checkpointBegin(pool);
    },
    checkpointTake: async (pool, limit) => {
      this.checkpointPhase = "batches";
      const batch = await native.checkpointTake(pool, limit);
      if (batch.layers.length === 0) this.checkpointPhase = "last";
      return batch;
    },
    checkpointEnd: (pool, success) => {
      this.checkpointPhase = "none";
      return native.checkpointEnd(pool, success);
    },
    foldHold: async (pool, layer, spans) => {
      this.foldPhase = "hold";
      const held = await native.foldHold(pool, layer, spans);
      this.foldPhase = "transaction";
      return held;
    },
    foldHoldAll: async (pool, layer, limit) => {
      this.foldPhase = "hold";
      const held = await native.foldHoldAll(pool, layer, limit);
      this.foldPhase = held === null ? "none" : "absorb";
      return held;
    },
    foldAbsorb: (...args) => {
      this.absorbed++;
      return native.foldAbsorb(...args);
    },
    foldLetGoAll: (pool, layer) => {
      this.foldPhase = "none";
      return native.foldLetGoAll(pool, layer);
    },
    foldApply: (pool, parent, child, spans, adopted) => {
      if (parent === child) this.#handsUp = this.#isHandUp(child, spans);
      return native.foldApply(pool, parent, child, spans, adopted);
    },
    foldLetGo: (pool, layer, spans) => {
      this.foldPhase = this.#handsUp ? "hand up" : "none";
      return native.foldLetGo(pool, layer, spans);
    },
    volumeFreeze: async (pool, volumes) => {
      this.freezePhase = "freeze";
      await native.volumeFreeze(pool, volumes);
      this.freezePhase = "store";
    },
    volumeFlush: async (pool, volume) => {
      this.#flushes++;
      try {
        await native.volumeFlush(pool, volume);
      } finally {
        if (this.#pool?.handle === pool && --this.#flushes === 0) {
          if (this.freezePhase === "flush") this.freezePhase = "none";
        }
      }
    },
    volumeThaw: (pool, volume, newLayer) => {
      this.freezePhase = this.#flushes > 0 ? "flush" : "none";
      return native.volumeThaw(pool, volume, newLayer);
    },
    poolClose: (pool) => {
      native.poolClose(pool);
      this.#pool = null;
    },
    // Its contents are to be found when it is opened again.
    deviceClose: () => undefined,
    indexAnswer: (...answer) => this.#later("answer", () => native.indexAnswer(...answer)),
  };

  /** A child's index blocks are forgotten, and then its only parent's: they are handed up next. */
  #isHandUp(layer: number, spans: readonly number[]): boolean {
    const last = this.#forgotten;
    this.#forgotten = { layer, spans: spans.join() };
    if (last === null || last.spans !== this.#forgotten.spans) return false;
    if (onlyChild(this.#store, layer) !== last.layer) return false;
    this.handedUp += spans.length;
    return true;
  }

  #later(step: IndexStep | DeviceStep | TurnStep, take: () => void): void {
    this.#indexSteps.push({ step, take });
  }

  readonly #clock: Clock = {
    now: () => "2026-01-01T00:00:00.000Z",
    every: (interval, run) => {
      const tick = { interval, run };
      this.#ticks.push(tick);
      return () => {
        this.#ticks = this.#ticks.filter((other) => other !== tick);
      };
    },
    turn: () => new Promise<void>((resolve) => this.#later("turn", resolve)),
  };

  #newUuid(): string {
    this.#uuids++;
    return `00000000-0000-4000-8000-${this.#uuids.toString(16).padStart(12, "0")}`;
  }
}

const usedDisks = new Map<string, number>();

/**
 * A disk that has had other data on it: what nobody has written reads as no version of anything.
 */
function usedDisk(deviceSizeBytes: number, atomicUnit: 512 | 4096): number {
  const key = `${deviceSizeBytes}/${atomicUnit}`;
  let disk = usedDisks.get(key);
  if (disk === undefined) {
    disk = native.simDiskCreate(deviceSizeBytes, atomicUnit);
    native.simDiskWrite(disk, 0, new Uint8Array(deviceSizeBytes).fill(0xa5));
    native.deviceFlush(disk);
    usedDisks.set(key, disk);
  }
  return disk;
}

const silent = makeLog("fatal");
