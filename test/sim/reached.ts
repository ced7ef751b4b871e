// Where runs have been: a simulation that never gets into the dark corners proves nothing about
// them, so what it means to reach is counted, and the tests in CI want every count above zero.
import { findSnapshot, findVolume, getJournalRecord } from "../../engine/store/catalogue.js";
import { scanJournal } from "../../engine/store/journal.js";
import { findLayer, listLayers } from "../../engine/store/layers.js";
import type { StoreReader } from "../../engine/store/store.js";
import { native } from "../../native/native.js";
import { COMMIT_KINDS } from "./commit-kinds.js";
import type { World } from "./world.js";

export const GOALS = [
  "inherited read at depth 3 or more",
  "journal wrap",
  "crash at the begin of a checkpoint",
  "crash between a checkpoint's batches",
  "crash before a checkpoint's last transaction is durable",
  "crash while a snapshot freezes its volume",
  "crash before a snapshot is committed",
  "crash when a snapshot is committed and not durable",
  "crash when a snapshot is durable and what was written is not",
  "crash before a deletion is committed",
  "crash when a deletion is committed and not durable",
  "crash while a deleted layer waits for its reclaim",
  "crash when a reclaim is committed and not durable",
  "crash in a fold",
  "crash while a layer is absorbed",
  "crash while an index block is handed up",
  "span folded",
  "layer absorbed",
  "index block handed up",
  "span swept",
  "wait for a fold",
  "crash in recovery",
  "index-cache eviction",
  "ENOSPC for data",
  "ENOSPC of the device",
  ...COMMIT_KINDS.map((kind) => `ENOSPC of ${kind}` as const),
  "discard of shared blocks",
  "discard of own blocks",
  "free deferred by I/O under way",
  "free deferred by a read under way",
  "pool grown",
  "free block given back to the device",
  "crash while the device takes free blocks back",
  "stale index answer",
  "overlap wait",
  "gate wait",
  "wait for room in the journal",
  "wait for free blocks",
  "replay of a frozen layer's records",
  "replay of a dead layer's records",
  "replay of records that only memory had",
  "blocks of 4 KiB",
  "blocks of 16 KiB",
  "units of 512 bytes",
  "clean stop",
  "kill",
  "power cut",
  "power cut on trial",
  "failed data I/O",
  "failed flush or journal write",
  "short transfer",
  "failed store transaction",
  "store transaction in doubt",
] as const;

export type Goal = (typeof GOALS)[number];

export class Reached {
  readonly #times = new Map<Goal, number>();

  add(goal: Goal, times = 1): void {
    this.#times.set(goal, this.times(goal) + times);
  }

  addAll(other: Iterable<[Goal, number]>): void {
    for (const [goal, times] of other) this.add(goal, times);
  }

  times(goal: Goal): number {
    return this.#times.get(goal) ?? 0;
  }

  entries(): [Goal, number][] {
    return GOALS.map((goal) => [goal, this.times(goal)]);
  }

  missed(): Goal[] {
    return GOALS.filter((goal) => this.times(goal) === 0);
  }

  describe(): string {
    return this.entries()
      .map(([goal, times]) => `${String(times).padStart(10)}  ${goal}`)
      .join("\n");
  }

  /** What the data path has counted since it was opened; the journal began at `sequence`. */
  async count(world: World, sequence: number): Promise<void> {
    const info = (await world.run(world.pool.info()))?.value;
    const counters = info?.counters ?? {};
    this.add("layer absorbed", world.absorbed);
    this.add("index block handed up", world.handedUp);
    this.add("span folded", info?.reclaim.spansFolded ?? 0);
    this.add("span swept", info?.reclaim.spansSwept ?? 0);
    const punched = info?.discard.punchedBytes ?? 0;
    this.add("free block given back to the device", punched / world.superblock.blockSizeBytes);
    const count = (name: string): number => {
      const value = counters[name];
      if (value === undefined) throw new Error(`there is no counter ${name}`);
      return value;
    };
    const blocks = world.superblock.journalBlocks;
    const rounds = (at: number): number => Math.floor(at / blocks);
    this.add("inherited read at depth 3 or more", count("indexInheritedDepthMax") >= 3 ? 1 : 0);
    this.add("journal wrap", rounds(count("journalSequence")) - rounds(sequence));
    this.add("index-cache eviction", count("indexEvictions"));
    this.add("ENOSPC for data", count("noSpace"));
    this.add("discard of shared blocks", count("discardedSharedSlots"));
    this.add("discard of own blocks", count("discardedOwnedSlots"));
    this.add("free deferred by I/O under way", count("releasesHeldByIo"));
    this.add("free deferred by a read under way", count("releasesHeldByReads"));
    this.add("stale index answer", count("indexStaleAnswers"));
    this.add("overlap wait", count("overlapWaits"));
    this.add("gate wait", count("gateWaits"));
    this.add("wait for a fold", count("foldWaits"));
    this.add("wait for room in the journal", count("journalWaits"));
    this.add("wait for free blocks", count("extentWaits"));
  }

  /** What the pool is doing when it is about to die; `changes` of the catalogue are under way. */
  crash(world: World, changes: readonly string[]): void {
    const phase = world.checkpointPhase;
    if (phase === "begin") this.add("crash at the begin of a checkpoint");
    if (phase === "batches") this.add("crash between a checkpoint's batches");
    if (world.foldPhase === "absorb") this.add("crash while a layer is absorbed");
    else if (world.foldPhase === "hand up") this.add("crash while an index block is handed up");
    else if (world.foldPhase !== "none") this.add("crash in a fold");
    if (phase === "last") this.add("crash before a checkpoint's last transaction is durable");
    if (world.freezePhase === "freeze") this.add("crash while a snapshot freezes its volume");
    if (world.freezePhase === "store") {
      const committed = world.store.pendingCount > 0;
      if (committed) this.add("crash when a snapshot is committed and not durable");
      else this.add("crash before a snapshot is committed");
    }
    if (world.freezePhase === "flush") {
      this.add("crash when a snapshot is durable and what was written is not");
    }
    const { store } = world;
    for (const change of changes) {
      const [what, name = ""] = change.split(" ");
      if (what !== "delete") continue;
      if (isThere(store, name)) this.add("crash before a deletion is committed");
      else if (isThere(store.durable, name))
        this.add("crash when a deletion is committed and not durable");
    }
    this.add("pool grown", world.grown > 0 ? 1 : 0);
    const punching = world.choices().some(({ kind }) => kind === "discard");
    if (punching) this.add("crash while the device takes free blocks back");
    if (deadOf(store).length > 0) this.add("crash while a deleted layer waits for its reclaim");
    const reclaimed = deadOf(store.durable).some(
      ({ id, record }) => findLayer(store, id)?.indexBlocks !== record.indexBlocks,
    );
    if (reclaimed) this.add("crash when a reclaim is committed and not durable");
  }

  /** Whose records the next recovery is going to replay. */
  lookAtJournal(world: World): void {
    const { store, superblock, device } = world;
    const place = {
      offsetBytes: superblock.journalOffsetBytes,
      blocks: superblock.journalBlocks,
      uuid: superblock.uuid,
      dataBlocks: superblock.dataBlocks,
      ...getJournalRecord(store),
    };
    const read = (offset: number, length: number): Uint8Array =>
      native.deviceRead(device, offset, length);
    scanJournal(place, read, ({ layer }) => {
      const state = findLayer(store, layer)?.state;
      if (state === "frozen" || state === "hidden") this.add("replay of a frozen layer's records");
      if (state === "dead") this.add("replay of a dead layer's records");
    });
  }
}

/** A volume, or `volume@snapshot`. */
function isThere(reader: StoreReader, key: string): boolean {
  const [volume = "", snapshot] = key.split("@");
  if (snapshot === undefined) return findVolume(reader, volume) !== undefined;
  return findSnapshot(reader, volume, snapshot) !== undefined;
}

const deadOf = (reader: StoreReader) =>
  listLayers(reader).filter(({ record }) => record.state === "dead");
