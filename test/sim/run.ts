// One run of the simulator: random operations on a pool, compared with what a plain model of
// volumes, snapshots and clones allows, with crashes in the middle of anything, recovery crashed in
// its turn, errors of the device and of the store. Then everything heals, and must converge: all
// that was asked for ends, everything that was acknowledged is there, all space can be written and
// comes back.
//
// The same options give the same run, byte for byte of its log. What happens comes from four
// sources of randomness (the pool, each operation, the schedule, the faults), so that operations
// and faults can be left out one by one.
import { assert } from "../../engine/base/assert.js";
import { SECTOR_BYTES } from "../../engine/base/constants.js";
import { type Random, seeded } from "../prng.js";
import { findNames, requireAccounts } from "./audit.js";
import { Client } from "./client.js";
import { kindOf } from "./commit-kinds.js";
import { describeRates, FaultDice, type FaultRates, NO_FAULTS, ratesOf } from "./faults.js";
import { Load } from "./load.js";
import type { Reached } from "./reached.js";
import { isOfStore, SeededScheduler } from "./seeded-scheduler.js";
import { compareSpace, requireAllSeen } from "./space.js";
import { type FoldPhase, World, type WorldOptions } from "./world.js";

export interface RunOptions {
  seed: number;
  /** How many are drawn. */
  operations?: number;
  /** In place of what the seed says. */
  rates?: Partial<FaultRates>;
  /**
   * Once in so many turns power is cut on trial: the run goes on as if nothing had been. 0: never.
   */
  trialCuts?: number;
  /** Numbers of operations that are left out. */
  skippedOperations?: ReadonlySet<number>;
  /** Numbers of faults that are left out. */
  skippedFaults?: ReadonlySet<number>;
  /** Told of everything, line by line. */
  tell?: (line: string) => void;
}

export interface Summary {
  operations: number;
  /** Decided on; those left out are included. */
  faults: number;
  steps: number;
  powerCuts: number;
  /** Of these, and not counted there: of a copy of the world. */
  trialCuts: number;
  kills: number;
  digest: string;
}

export const OPERATIONS = 260;
/** What a run comes to a few times, for a few turns. */
const RARE_PHASES: FoldPhase[] = ["absorb", "hand up"];
const RARE_TRIAL_CUTS = 3;
/** Of trial cuts, once in so many turns. */
export const TRIAL_CUTS = 100;
/** What is kept of what was not flushed. */
const SURVIVORS = ["none", "all", "completed", "random", "random"] as const;
/** The journal fills up behind a slow store only if there is more to do. */
const SLOW_FACTOR = 3;
const UNDER_WAY = 10;
const ENTRY_BYTES = 2400;
const MAX_RECOVERY_CRASHES = 3;
/** Turns in which nothing can happen and somebody waits, before it counts as a deadlock. */
const PATIENCE = 20;
/** Turns after which a healed pool has come to rest. */
const CONVERGENCE_TURNS = 20_000;
const FILL_SECTORS = 64;
const GROW_ROLLS = 8;

/** What the seed says about the pool. */
function poolOf(seed: number, random: Random): WorldOptions {
  const large = seed % 3 === 0;
  const blocks = seed % 4 === 1 ? 110 : 600;
  return {
    blockSizeBytes: large ? 16384 : 4096,
    dataBlocks: large ? Math.floor(blocks / 2) : blocks,
    journalBlocks: 64,
    firstSequence: random.below(64) + 1,
    atomicUnit: random.oneIn(2) ? 512 : 4096,
    indexCacheBytes: random.pick([2, 4, 8, 100]) * ENTRY_BYTES,
    dirtyLimit: random.pick([2, 6, 1000]),
    discard: seed % 4 !== 2,
    absorbFrom: seed % 5 < 3 ? 1 : 1000,
    absorbMost: seed % 5 === 0 ? 1000 : 0,
    foldChunks: seed % 2,
    roomBlocks: seed % 3 === 1 ? 100 : 0,
  };
}

export class Run {
  /** What is known when it ends, or fails. */
  readonly summary: Summary;
  readonly #options: RunOptions;
  readonly #rates: FaultRates;
  readonly #pool: WorldOptions;
  readonly #random: Random;
  readonly #trials: Random;
  readonly #dice: FaultDice;
  readonly #reached: Reached;
  readonly #world: World;
  readonly #client: Client;
  readonly #load: Load;
  #scheduler: SeededScheduler;
  #journalBegin = 0;
  /** Something has failed that may have ended the pool's service. */
  #suspect = false;

  constructor(options: RunOptions, reached: Reached) {
    const { seed } = options;
    this.#options = options;
    this.#rates = { ...ratesOf(seed), ...options.rates };
    this.#pool = poolOf(seed, seeded(mix(seed, 1)));
    this.#random = seeded(mix(seed, 2));
    this.#trials = seeded(mix(seed, 4));
    this.#dice = new FaultDice(mix(seed, 3), this.#rates, options.skippedFaults, (line) =>
      this.#tell(line),
    );
    this.#reached = reached;
    this.#world = new World(this.#pool);
    const span = (512 * this.#world.superblock.blockSizeBytes) / 4096;
    this.#client = new Client(this.#world, Load.places(span));
    this.#client.trace = (line) => this.#tell(line);
    const { slowStore } = this.#rates;
    this.#scheduler = new SeededScheduler(this.#random, {
      dice: this.#dice,
      slowStore,
      deviceFull: () => this.#reached.add("ENOSPC of the device"),
    });
    this.#load = new Load(this.#client, {
      span,
      maxVolumes: 5,
      maxSnapshots: 4,
      maxChanges: slowStore > 0 ? 1 : UNDER_WAY,
      tolerated: this.#tolerated(),
    });
    this.summary = {
      operations: 0,
      faults: 0,
      steps: 0,
      powerCuts: 0,
      trialCuts: 0,
      kills: 0,
      digest: "",
    };
  }

  /** The pool and every rate: what a run prints first. */
  describe(): string {
    return `seed ${this.#options.seed}; pool ${JSON.stringify(this.#pool)}; faults ${describeRates(this.#rates)}`;
  }

  async run(): Promise<void> {
    try {
      await this.#phases();
    } finally {
      this.summary.faults = this.#dice.decided;
      this.summary.steps = this.#world.stepCount;
    }
  }

  async #phases(): Promise<void> {
    const { blockSizeBytes, atomicUnit } = this.#pool;
    this.#tell(this.describe());
    this.#reached.add(blockSizeBytes === 4096 ? "blocks of 4 KiB" : "blocks of 16 KiB");
    if (atomicUnit === 512) this.#reached.add("units of 512 bytes");
    await this.#world.format();
    await this.#open();
    await this.#operate();
    this.#tell("heal");
    this.#dice.heal();
    await this.#converge();
    await this.#restart();
    await this.#client.deleteAll();
    await this.#fillAndEmpty();
    this.summary.digest = (this.#world.digest >>> 0).toString(16).padStart(8, "0");
    this.#tell(`${this.#world.stepCount} steps, digest ${this.summary.digest}`);
    this.#world.destroy();
  }

  async #operate(): Promise<void> {
    const { seed, operations = OPERATIONS, skippedOperations } = this.#options;
    const total = this.#rates.slowStore > 0 ? SLOW_FACTOR * operations : operations;
    let patience = PATIENCE;
    let attempts = 0;
    for (let next = 0; next < total; ) {
      await this.#world.settle();
      if (this.#load.surprise !== null) throw this.#load.surprise;
      const { trialCuts = TRIAL_CUTS } = this.#options;
      const rare = RARE_PHASES.includes(this.#world.foldPhase);
      const once = rare ? Math.min(trialCuts, RARE_TRIAL_CUTS) : trialCuts;
      if (once > 0 && this.#trials.oneIn(once)) await this.#cutOnTrial();
      if (this.#dice.roll("powerCut")) await this.#crash("power");
      else if (this.#dice.roll("kill")) await this.#crash("kill");
      else if (await this.#isBroken()) await this.#crash(this.#random.pick(["power", "kill"]));
      const submits = this.#random.oneIn(3) || this.#onlyStoreWaits();
      if (this.#client.underWay < UNDER_WAY && submits) {
        const skipped = skippedOperations?.has(next) === true;
        const random = seeded(mix(mix(seed, 1000 + next), attempts++));
        if (!skipped && !this.#load.submit(next, random)) continue;
        if (!skipped) this.summary.operations++;
        next++;
        attempts = 0;
      } else if (this.#step()) {
        patience = PATIENCE;
      } else if (this.#client.underWay > 0) {
        assert(patience-- > 0, "deadlock: somebody waits, and nothing can happen");
        this.#world.tick();
      }
    }
  }

  /** A slow store is not helped along by idleness. */
  #onlyStoreWaits(): boolean {
    const { slowStore } = this.#rates;
    if (slowStore === 0 || this.#random.oneIn(slowStore)) return false;
    return this.#world.choices().every(isOfStore);
  }

  /** False: nothing can happen. */
  #step(): boolean {
    const choice = this.#scheduler.choose(this.#world.choices());
    if (choice === null) return false;
    if (choice.kind === "commit") this.#maybeFailCommit();
    if (this.#scheduler.take(choice)) this.#suspect = true;
    return true;
  }

  #maybeFailCommit(): void {
    const { store } = this.#world;
    const failure = this.#storeIsFull()
      ? "ENOSPC"
      : this.#dice.roll("storeError")
        ? "EIO"
        : this.#dice.roll("storeDoubt")
          ? "doubt"
          : null;
    if (failure === null) return;
    store.failNextCommit(failure);
    store.onFailure = (how, writes) => {
      if (how === "ENOSPC") this.#reached.add(`ENOSPC of ${kindOf(writes, this.#world)}`);
    };
    // For want of room a grow that has begun ends the pool's service, too.
    if (failure !== "ENOSPC" || this.#world.roomBlocks > 0) this.#suspect = true;
  }

  /** A grow is rare: there is no room for it as often as for all that is done more. */
  #storeIsFull(): boolean {
    for (let rolls = this.#client.grows > 0 ? GROW_ROLLS : 1; rolls > 0; rolls--) {
      if (this.#dice.roll("storeFull")) return true;
    }
    return false;
  }

  async #isBroken(): Promise<boolean> {
    if (!this.#suspect || !this.#random.oneIn(10)) return false;
    const info = (await this.#world.run(this.#world.pool.info()))?.value;
    return info?.failure !== null;
  }

  async #crash(how: "power" | "kill"): Promise<void> {
    await this.#reached.count(this.#world, this.#journalBegin);
    this.#reached.crash(this.#world, this.#client.changes);
    this.#die(how);
    await this.#reopen();
  }

  #die(how: "power" | "kill"): void {
    const random = this.#random;
    const seed = random.below(2 ** 30);
    if (how === "kill") {
      this.#reached.add("kill");
      this.summary.kills++;
      this.#world.kill(seed);
    } else {
      this.#reached.add("power cut");
      this.summary.powerCuts++;
      const survivors = random.pick(SURVIVORS);
      this.#world.cutPower(survivors, seed, (n) => random.below(n));
    }
    this.#tell(how === "kill" ? "killed" : "power is cut");
    this.#client.died(how);
    this.#load.died();
    this.#suspect = false;
  }

  /** What a power cut now would leave, one of the many things that it may. */
  async #cutOnTrial(): Promise<void> {
    const random = this.#trials;
    this.#reached.crash(this.#world, this.#client.changes);
    const survivors = random.pick(SURVIVORS);
    const seed = random.below(2 ** 30);
    this.#tell(`power cut on trial ${this.summary.trialCuts}: ${survivors}, ${seed}`);
    const after = this.#world.afterPowerCut(survivors, seed, (n) => random.below(n));
    const more = random.below(8);
    await this.#client.tryCrash("power", after, async () => {
      if (more === 0) await this.#client.compareSnapshots();
      if (more === 1) await this.#client.deleteAll();
    });
    this.summary.trialCuts++;
    this.#reached.add("power cut on trial");
  }

  async #reopen(): Promise<void> {
    this.#reached.lookAtJournal(this.#world);
    for (let crashes = 0; ; crashes++) {
      const stays = crashes === MAX_RECOVERY_CRASHES;
      if (await this.#open(() => !stays && this.#dice.roll("recoveryCrash"))) break;
      this.#reached.add("crash in recovery");
      this.#die(this.#random.oneIn(3) ? "kill" : "power");
    }
    const { replayedRecords = 0, unflushedRecords = 0 } = this.#world.recovered ?? {};
    this.#tell(`open again: ${replayedRecords} records replayed, ${unflushedRecords} from memory`);
    this.#reached.add("replay of records that only memory had", unflushedRecords);
    const calm = this.#calm();
    await this.#client.resume(calm.pick);
    if (this.#random.oneIn(3)) await this.#client.compareAll(calm.pick);
  }

  async #open(interrupt = (): boolean => false): Promise<boolean> {
    const opened = await this.#world.open({ scheduler: this.#calm().pick, interrupt });
    this.#journalBegin = this.#world.recovered?.nextSequence ?? 0;
    return opened;
  }

  /** Nothing fails any more: everything that was asked for ends, and is compared. */
  async #converge(): Promise<void> {
    this.#scheduler = this.#calm();
    if ((await this.#world.run(this.#world.pool.info()))?.value.failure !== null) {
      await this.#crash("kill");
    }
    let patience = PATIENCE;
    for (let turns = CONVERGENCE_TURNS; this.#client.underWay > 0; turns--) {
      assert(turns > 0, "the pool does not come to rest");
      await this.#world.settle();
      if (this.#load.surprise !== null) throw this.#load.surprise;
      if (this.#step()) continue;
      assert(patience-- > 0, "deadlock at the end");
      this.#world.tick();
    }
    await this.#client.compareAll(this.#scheduler.pick);
    await requireAccounts(this.#world);
    await this.#settle();
    await this.#reached.count(this.#world, this.#journalBegin);
    for (const [fault, times] of this.#dice.injected) {
      if (fault === "dataError") this.#reached.add("failed data I/O", times);
      if (fault === "flushError") this.#reached.add("failed flush or journal write", times);
      if (fault === "shortTransfer") this.#reached.add("short transfer", times);
      if (fault === "storeError") this.#reached.add("failed store transaction", times);
      if (fault === "storeDoubt") this.#reached.add("store transaction in doubt", times);
    }
  }

  /** All that was deleted comes back, but for what somebody still sees. */
  async #settle(): Promise<void> {
    const { pick } = this.#scheduler;
    await this.#world.run(this.#world.pool.settle(), { scheduler: pick });
    await this.#world.run(this.#world.pool.checkpoint(), { scheduler: pick });
    await this.#world.quiesce();
    await requireAllSeen(this.#world);
    compareSpace(this.#world, (await findNames(this.#world)).listed);
    await this.#client.compareAll(pick);
  }

  /** Once more, by a clean stop or by a crash. */
  async #restart(): Promise<void> {
    const { pick } = this.#calm();
    if (this.#random.oneIn(2)) {
      this.#reached.add("clean stop");
      for (const name of this.#client.volumes.keys()) {
        await this.#world.run(this.#client.close(name), { scheduler: pick });
      }
      await this.#world.close(pick);
      this.#tell("stopped");
      this.#client.died("kill");
      assert(await this.#open(), "it opens again");
      assert(this.#world.recovered?.replayedRecords === 0, "a clean stop leaves nothing to replay");
      await this.#client.resume(pick);
    } else {
      this.#die("power");
      await this.#reopen();
    }
  }

  /** No block is lost: the empty pool can be filled to the last one, and emptied again. */
  async #fillAndEmpty(): Promise<void> {
    const client = this.#client;
    const { dataBlocks, blockSizeBytes } = this.#world.superblock;
    const sectors = (dataBlocks * blockSizeBytes) / SECTOR_BYTES;
    await this.#world.run(client.create("all", sectors));
    await this.#world.run(client.open("all"));
    for (let sector = 0; sector < sectors; sector += FILL_SECTORS) {
      const count = Math.min(FILL_SECTORS, sectors - sector);
      const done = await this.#world.run(client.write("all", { sector, count }));
      assert(done?.value === "ok", `a write into the empty pool ends with ${done?.value}`);
    }
    await this.#world.run(client.flush("all"));
    await client.deleteAll();
  }

  /** Nothing fails; things may still be held back. */
  #calm(): SeededScheduler {
    const { hang } = this.#rates;
    const seed = this.#random.below(2 ** 30);
    return new SeededScheduler(this.#random, {
      dice: new FaultDice(seed, { ...NO_FAULTS, hang }),
    });
  }

  /** What an operation may end with, since faults are about. */
  #tolerated(): Set<string> {
    const { dataError, flushError, storeFull, storeError, storeDoubt } = this.#rates;
    const tolerated = new Set(["no-space"]);
    if (dataError + flushError + storeError + storeDoubt > 0) tolerated.add("io-error").add("EIO");
    if (storeFull > 0) tolerated.add("ENOSPC");
    return tolerated;
  }

  #tell(line: string): void {
    this.#options.tell?.(line);
  }
}

/** A seed of its own for each purpose. */
function mix(seed: number, purpose: number): number {
  return (Math.imul(seed, 0x9e3779b1) ^ Math.imul(purpose, 0x85ebca6b)) >>> 0;
}
