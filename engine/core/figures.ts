// A pool in figures, as of now: what is in it, how full it is, what waits to come back, and what
// the data path has counted.
import { SECTOR_BYTES } from "../base/constants.js";
import type { FreeMap } from "../store/free-map.js";
import type { StoreReader } from "../store/store.js";
import type { Superblock } from "../store/superblock.js";
import type { PoolInfo } from "./api.js";
import type { Checkpointer } from "./checkpointer.js";
import type { DataPath } from "./data-path.js";
import type { DeviceErrors } from "./device-errors.js";
import type { Punches } from "./punches.js";
import type { Reclaimer } from "./reclaimer.js";
import type { SpaceLevels } from "./space-levels.js";
import type { Trim } from "./trim.js";

export interface FiguresParts {
  path: string;
  store: StoreReader;
  dataPath: DataPath;
  map: FreeMap;
  punches: Punches;
  trim: Pick<Trim, "heldBlocks">;
  reclaimer: Reclaimer;
  checkpointer: Checkpointer;
  levels: SpaceLevels;
  deviceErrors: DeviceErrors;
  /** As the superblocks are now. */
  superblock: () => Superblock;
}

export class Figures {
  readonly #parts: FiguresParts;

  constructor(parts: FiguresParts) {
    this.#parts = parts;
  }

  async info(failure: string | null): Promise<PoolInfo> {
    const { path, store, punches, reclaimer, checkpointer, levels } = this.#parts;
    const stats = await this.#parts.dataPath.stats();
    const superblock = this.#parts.superblock();
    const { blockSizeBytes: block, dataBlocks, deviceSizeBytes } = superblock;
    const { blocksFreed, ...progress } = reclaimer.progress();
    const usedBlocks = this.#usedBlocks(stats.lentBlocks ?? 0);
    const { waitingBlocks, punchedBlocks, skippedBlocks } = punches.counts();
    return {
      uuid: superblock.uuid,
      path,
      blockSizeBytes: block,
      sizeBytes: dataBlocks * block,
      usedBytes: usedBlocks * block,
      freeBytes: (dataBlocks - usedBlocks) * block,
      reservedBytes: deviceSizeBytes - dataBlocks * block,
      pendingBytes: ((stats.pendingFreeBlocks ?? 0) + waitingBlocks) * block,
      spaceLevel: levels.at(usedBlocks, dataBlocks).level,
      volumes: store.count("volumes"),
      snapshots: store.count("snapshots"),
      layers: store.count("layers"),
      reclaiming: store.count("reclaim"),
      reclaim: { ...progress, freedBytes: blocksFreed * block },
      failure,
      journal: {
        sizeBytes: superblock.journalBlocks * SECTOR_BYTES,
        usedBytes: (stats.journalUsedBlocks ?? 0) * SECTOR_BYTES,
      },
      discard: {
        state: punches.state,
        punchedBytes: punchedBlocks * block,
        skippedBytes: skippedBlocks * block,
      },
      counters: { ...stats, checkpoints: checkpointer.completed },
    };
  }

  /**
   * Says in the log how full it is, if that is another level than the last time, and what the
   * device has failed since then.
   */
  watch(): void {
    const { dataPath, levels, deviceErrors, superblock } = this.#parts;
    void dataPath.stats().then(({ lentBlocks = 0, ioErrors = 0 }) => {
      deviceErrors.watch(ioErrors);
      levels.watch(this.#usedBlocks(lentBlocks), superblock().dataBlocks);
    });
  }

  /** What is lent and not written does not count. */
  #usedBlocks(unwrittenBlocks: number): number {
    const { used, lent, released } = this.#parts.map.counts();
    return used + released + lent - unwrittenBlocks - this.#parts.trim.heldBlocks;
  }
}
