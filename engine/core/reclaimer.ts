// Brings back the space of deleted layers, in the background and in bounded steps; a kill at any
// point loses no step.
//
// A dead layer is *reclaimed*: a batch of index blocks goes together with the bits of the blocks
// that they own, in one transaction; the layer's record goes last, when no index block is left
// under its key. A hidden layer with one child is *folded* into it (fold.ts), or absorbed by it
// (absorb.ts), whichever is the cheaper; a frozen child with much of its own *hands it up* before
// that (hand-up.ts). Hidden layers with more children wait until one is left, and meanwhile are
// *swept* (sweep.ts): once at first, then whenever their children have written or let go enough
// since, and all of them before a write is told that the pool is full.
//
// A layer's turn comes only after a checkpoint that began when its deletion was durable: then no
// record of it is left in the journal after the tail, and none of its index blocks is dirty. One
// layer at a time. Dead layers go first; of hidden ones the youngest, so that what lies under
// several of one line is moved once.
import type { Log } from "../base/log.js";
import type { BlockRun } from "../store/block-run.js";
import { freeAll } from "../store/free-map-patch.js";
import { changeIndex } from "../store/index-changes.js";
import { findLayer, getLayer, listReclaim, onlyChild, removeLayer } from "../store/layers.js";
import { Lineage } from "../store/lineage.js";
import { type AbsorbLimits, absorb, isAbsorbable } from "./absorb.js";
import type { Checkpointer } from "./checkpointer.js";
import { type FoldParts, finishFold, foldableInto, foldBatch } from "./fold.js";
import { handUpBatch, mustHandUp } from "./hand-up.js";
import { Mutex } from "./mutex.js";
import type { Pace } from "./pace.js";
import { type BatchLimits, nextBatch, retireBlocks } from "./reclaim-batch.js";
import { type Family, type FamilyState, familyOf, sweepBatch } from "./sweep.js";

/** Index blocks that one batch of a sweep looks at, the children's included. */
const SWEEP_BATCH = 512;
/** A layer is swept again when its children have changed so much of what it owns. */
const SWEEP_AFTER = 1 / 16;
/** Shared layers that are looked at in one turn; there may be a million of them. */
const SWEEP_LOOKS = 256;
/** Of a layer that was deleted before this process began: recovery has left it no records. */
const BEFORE_RECOVERY = -1;

export interface ReclaimerParts extends FoldParts {
  checkpointer: Checkpointer;
  pace: Pace;
  /** Hosts' writes to the index blocks that a transaction of a fold changes wait for it. */
  fold: BatchLimits;
  absorb: AbsorbLimits;
  reclaim: BatchLimits;
  log: Log;
  /** Writes fail for want of space. */
  spaceWanted: () => boolean;
  /** The data path serves the layer itself (not a child of it). */
  inUse: (layer: number) => boolean;
  /** The store has index blocks of the layer that the data path did not put there. */
  gotIndexBlocks: (layer: number) => void;
}

export interface ReclaimProgress {
  /** Deleted layers whose turn is now or comes after the next checkpoint. */
  layersWaiting: number;
  /** Their index blocks. */
  spansWaiting: number;
  // Since the pool was opened.
  layersReclaimed: number;
  layersFolded: number;
  spansReclaimed: number;
  spansFolded: number;
  spansSwept: number;
  blocksFreed: number;
}

interface Waiting {
  /** The number of checkpoints begun when its deletion was durable. */
  since: number;
  spansLeft: number;
  /** A child that has to hand up, and the checkpoints begun when that was seen. */
  handsUp?: { child: number; since: number };
}

type Job = { layer: number; waiting: Waiting; child: number | null };

/** A hidden layer with several children. */
interface Shared {
  since: number;
  /** As those below were when it was swept last; null: never, and it has not been looked at. */
  swept: FamilyState | null;
  /** It was deleted before this process began: what could be swept then is left until it pays. */
  old: boolean;
}

export class Reclaimer {
  readonly #parts: ReclaimerParts;
  readonly #mutex = new Mutex();
  readonly #dead = new Map<number, Waiting>();
  readonly #hidden = new Map<number, Waiting>();
  readonly #shared = new Map<number, Shared>();
  /** Of the last that became one: the most checkpoints begun. */
  #sharedSince = BEFORE_RECOVERY;
  /** Shared ones that this round has not come to. */
  #round: number[] = [];
  /** Hidden ones, the youngest first; null: to be sorted again. */
  #byAge: number[] | null = null;
  #stopped = false;
  readonly #progress: ReclaimProgress = {
    layersWaiting: 0,
    spansWaiting: 0,
    layersReclaimed: 0,
    layersFolded: 0,
    spansReclaimed: 0,
    spansFolded: 0,
    spansSwept: 0,
    blocksFreed: 0,
  };

  constructor(parts: ReclaimerParts) {
    this.#parts = parts;
    for (const { id } of listReclaim(parts.store)) this.#consider(id, BEFORE_RECOVERY);
  }

  /** The layer's deletion is durable. */
  deleted(layer: number): void {
    this.#consider(layer, this.#parts.checkpointer.started);
  }

  /** Layers that still have to go and can; `ready` ones need no further checkpoint. */
  waiting(): { total: number; ready: number } {
    let total = 0;
    let ready = 0;
    const look = (layer: number, turn: boolean): void => {
      if (this.#parts.inUse(layer)) return;
      total++;
      if (turn) ready++;
    };
    for (const [layer, { since }] of this.#dead) look(layer, this.#ready(since));
    for (const [layer, waiting] of this.#hidden) {
      const child = foldableInto(this.#parts.store, layer);
      if (child !== null) look(layer, this.#isTurn(layer, waiting, child));
    }
    return { total, ready };
  }

  progress(): ReclaimProgress {
    return { ...this.#progress, layersWaiting: this.#dead.size + this.#hidden.size };
  }

  /** Everything whose turn is now, resting under load. */
  run(): Promise<void> {
    return this.#mutex.run(async () => {
      await this.#parts.pace.begin();
      for (;;) {
        const job = this.#stopped ? null : this.#next();
        if (job === null) return;
        job.waiting.spansLeft = this.#recount(job);
        if (job.child === null) await this.#reclaim(job);
        else await this.#fold(job, job.child);
      }
    });
  }

  /** The same without rests: somebody waits for the space. */
  runNow(): Promise<void> {
    return this.#parts.pace.hurry(() => this.run());
  }

  /** Sweeps what is worth it now. */
  sweep(): Promise<void> {
    return this.#mutex.run(async () => {
      await this.#parts.pace.begin();
      await this.#sweepSome(Math.min(SWEEP_LOOKS, this.#shared.size), false);
    });
  }

  /**
   * Sweeps all that there is, without rests, after a checkpoint: somebody waits for the space.
   * False: nothing came free.
   */
  sweepNow(): Promise<boolean> {
    return this.#parts.pace.hurry(() =>
      this.#mutex.run(async () => {
        const before = this.#progress.blocksFreed;
        this.#round = [];
        await this.#sweepSome(this.#shared.size, true);
        return this.#progress.blocksFreed > before;
      }),
    );
  }

  /** Hidden layers with several children; `ready`: their turn needs no further checkpoint. */
  shared(): { total: number; ready: boolean } {
    return { total: this.#shared.size, ready: this.#ready(this.#sharedSince) };
  }

  /** What is under way ends with its batch; the next opening goes on with it. */
  stop(): void {
    this.#stopped = true;
    this.#parts.pace.stop();
  }

  #consider(layer: number, since: number): void {
    const record = findLayer(this.#parts.store, layer);
    if (record === undefined || this.#dead.has(layer)) return;
    if (record.state !== "dead" && record.state !== "hidden") return;
    const waiting = this.#hidden.get(layer) ?? { since, spansLeft: 0 };
    const shared = this.#shared.get(layer);
    this.#shared.delete(layer);
    if (record.state === "dead") {
      this.#hidden.delete(layer);
      this.#dead.set(layer, waiting);
    } else if (onlyChild(this.#parts.store, layer) !== null) {
      this.#hidden.set(layer, waiting);
    } else {
      const old = since === BEFORE_RECOVERY;
      this.#shared.set(layer, shared ?? { since, swept: null, old });
      this.#sharedSince = Math.max(this.#sharedSince, since);
      return;
    }
    this.#byAge = null;
    this.#progress.spansWaiting += record.indexBlocks - waiting.spansLeft;
    waiting.spansLeft = record.indexBlocks;
  }

  #ready(since: number): boolean {
    return this.#parts.checkpointer.completed > since;
  }

  #next(): Job | null {
    for (const [layer, waiting] of this.#dead) {
      if (!this.#ready(waiting.since) || this.#parts.inUse(layer)) continue;
      return { layer, waiting, child: null };
    }
    this.#byAge ??= [...this.#hidden.keys()].sort((a, b) => b - a);
    for (const layer of this.#byAge) {
      const waiting = this.#hidden.get(layer);
      if (waiting === undefined || this.#parts.inUse(layer)) continue;
      const child = foldableInto(this.#parts.store, layer);
      if (child === null || !this.#isTurn(layer, waiting, child)) continue;
      return { layer, waiting, child };
    }
    return null;
  }

  /** Of a layer with this only child. */
  #isTurn(layer: number, waiting: Waiting, child: number): boolean {
    if (!this.#ready(waiting.since)) return false;
    if (!mustHandUp(this.#parts.store, layer, child, this.#parts.absorb)) return true;
    // Records of a child that was frozen since may be in the journal.
    if (waiting.handsUp?.child !== child) {
      waiting.handsUp = { child, since: this.#parts.checkpointer.started };
    }
    return this.#ready(waiting.handsUp.since);
  }

  /** Folds into a layer that waits itself have given it more. */
  #recount({ layer, waiting }: Job): number {
    const { indexBlocks } = getLayer(this.#parts.store, layer);
    this.#progress.spansWaiting += indexBlocks - waiting.spansLeft;
    return indexBlocks;
  }

  #did({ waiting }: Job, spans: number, freedBlocks: number): void {
    waiting.spansLeft -= spans;
    this.#progress.spansWaiting -= spans;
    this.#progress.blocksFreed += freedBlocks;
  }

  async #fold(job: Job, child: number): Promise<void> {
    const { layer } = job;
    // A volume that nobody has opened yet would be opened as one that the store knows nothing of.
    this.#parts.gotIndexBlocks(child);
    if (!(await this.#handUp(job, child)) || (await this.#absorb(job, child))) return;
    for (;;) {
      const done = await foldBatch(this.#parts, layer, child, this.#parts.fold);
      if (done === null) break;
      this.#did(job, done.spans, done.freedBlocks);
      this.#progress.spansFolded += done.spans;
      await this.#parts.pace.rest();
      if (this.#stopped || foldableInto(this.#parts.store, layer) !== child) return;
    }
    await finishFold(this.#parts, layer, child);
    this.#folded(job, child);
  }

  /** False: it ends here for now. */
  async #handUp(job: Job, child: number): Promise<boolean> {
    const { store, absorb: limits, fold, pace } = this.#parts;
    const batch = { spans: limits.batch, chunks: fold.chunks };
    while (mustHandUp(store, job.layer, child, limits)) {
      const done = await handUpBatch(this.#parts, job.layer, child, batch);
      this.#did(job, 0, done.freedBlocks);
      this.#progress.spansFolded += done.spans;
      await pace.rest();
      if (this.#stopped || foldableInto(store, job.layer) !== child) return false;
    }
    return true;
  }

  /** False: it is to be folded batch by batch. */
  async #absorb(job: Job, child: number): Promise<boolean> {
    const limits = this.#parts.absorb;
    if (!isAbsorbable(this.#parts.store, job.layer, child, limits)) return false;
    const done = await absorb(this.#parts, job.layer, child, limits.most);
    if (done === null) return false;
    this.#did(job, job.waiting.spansLeft, done.freedBlocks);
    this.#progress.spansFolded += done.spans;
    this.#folded(job, child);
    await this.#parts.pace.rest();
    return true;
  }

  #folded({ layer }: Job, child: number): void {
    this.#hidden.delete(layer);
    this.#byAge = null;
    this.#progress.layersFolded++;
    this.#parts.log.debug({ layer, child }, "layer folded");
  }

  async #reclaim(job: Job): Promise<void> {
    const { store, path, map, pace } = this.#parts;
    const { layer } = job;
    const { parent } = getLayer(store, layer);
    const turn = () => pace.turn();
    const parts = { store, map, turn, stopped: () => this.#stopped };
    for (;;) {
      const batch = await nextBatch(parts, layer, this.#parts.reclaim);
      if (this.#stopped) return;
      if (batch === null) break;
      await store.transact((txn) => {
        changeIndex(txn, new Lineage(), (index) => {
          for (const span of batch.spans) index.remove(layer, span);
        });
        freeAll(txn, batch.owned);
      });
      const retire = (runs: BlockRun[]) => {
        map.retire(runs);
        path.releaseBlocks(runs);
      };
      await retireBlocks(batch.owned, { turn, retire });
      this.#did(job, batch.spans.length, batch.owned.count);
      this.#progress.spansReclaimed += batch.spans.length;
      await this.#parts.pace.rest();
      if (this.#stopped) return;
    }
    await store.transact((txn) => removeLayer(txn, layer));
    this.#dead.delete(layer);
    this.#progress.layersReclaimed++;
    // It may have died with this child, or have one left. It was frozen before the child was made:
    // the checkpoint that the child waited for has covered its records too.
    if (parent !== null) this.#consider(parent, job.waiting.since);
    this.#parts.log.debug({ layer, parent }, "layer reclaimed");
  }

  async #sweepSome(looks: number, hurry: boolean): Promise<void> {
    for (let look = 0; look < looks && !this.#stopped; look++) {
      const layer = this.#nextShared();
      const shared = layer === null ? undefined : this.#shared.get(layer);
      if (layer === null || shared === undefined) return;
      if (!this.#ready(shared.since) || this.#parts.inUse(layer)) continue;
      const found = familyOf(this.#parts.store, layer);
      if (found === null) continue;
      const { family, state } = found;
      if (hurry || this.#isDue(shared, state, layer)) await this.#sweep(shared, family, state);
      else shared.swept ??= state;
    }
  }

  /** Round and round, the youngest of a round first: it may let go what one above it owns. */
  #nextShared(): number | null {
    if (this.#round.length === 0) this.#round = [...this.#shared.keys()].sort((a, b) => a - b);
    return this.#round.pop() ?? null;
  }

  #isDue({ swept, old }: Shared, state: FamilyState, layer: number): boolean {
    if (swept === null) return !old;
    if (state.members !== swept.members) return true;
    const changed =
      Math.abs(state.ownedBlocks - swept.ownedBlocks) +
      Math.abs(state.mappedDelta - swept.mappedDelta) +
      Math.abs(state.indexBlocks - swept.indexBlocks);
    if (changed === 0 || this.#parts.spaceWanted()) return changed > 0;
    return changed >= SWEEP_AFTER * getLayer(this.#parts.store, layer).ownedBlocks;
  }

  async #sweep(shared: Shared, family: Family, state: FamilyState): Promise<void> {
    const limit = Math.max(1, Math.floor(SWEEP_BATCH / (state.members + 1)));
    const swept = { ...state };
    for (let from: number | null = 0; from !== null; ) {
      const done = await sweepBatch(this.#parts, family, from, limit);
      swept.mappedDelta += done.mappedMore;
      this.#progress.spansSwept += done.spans;
      this.#progress.blocksFreed += done.freedBlocks;
      from = done.next;
      if (from === null) break;
      await this.#parts.pace.rest();
      if (this.#stopped) return;
    }
    shared.swept = swept;
    this.#parts.log.debug({ layer: family.id, below: state.members }, "shared layer swept");
  }
}
