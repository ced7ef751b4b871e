// The data path as core sees it: one open pool of the addon, its errors turned into ours. Every
// message over the boundary passes through here; the table in ARCHITECTURE.md says what each means,
// who owns what, and in which order they come.

import type {
  Addon,
  CheckpointBatch,
  CheckpointStart,
  HeldBlocks,
  IoResult,
  LayerDelta,
  PoolEvent,
  PoolOpenOptions,
  VolumeOpenOptions,
} from "../../native/native.js";
import { SLOTS_PER_SPAN } from "../base/constants.js";
import { type ErrorContext, isPandoError, PandoError } from "../base/errors.js";
import type { BlockRun } from "../store/block-run.js";

export class DataPath {
  readonly #addon: Addon;
  readonly handle: number;

  constructor(
    addon: Addon,
    device: number,
    options: PoolOpenOptions,
    onEvent: (event: PoolEvent) => void,
  ) {
    this.#addon = addon;
    this.handle = addon.poolOpen(device, options, onEvent);
  }

  close(): void {
    this.#addon.poolClose(this.handle);
  }

  poison(what: string): void {
    this.#addon.poolPoison(this.handle, what);
  }

  stats(): Promise<Record<string, number>> {
    return this.#addon.poolStats(this.handle);
  }

  openVolume(options: VolumeOpenOptions): Promise<void> {
    return translate(this.#addon.volumeOpen(this.handle, options), { volume: options.name });
  }

  closeVolume(volume: number): Promise<void> {
    return translate(this.#addon.volumeClose(this.handle, volume));
  }

  flushVolume(volume: number): Promise<void> {
    return translate(this.#addon.volumeFlush(this.handle, volume));
  }

  freezeVolumes(volumes: number[]): Promise<void> {
    return translate(this.#addon.volumeFreeze(this.handle, volumes));
  }

  thawVolume(volume: number, newLayer: number): Promise<void> {
    return translate(this.#addon.volumeThaw(this.handle, volume, newLayer));
  }

  resizeVolume(volume: number, sizeBytes: number): Promise<void> {
    return translate(this.#addon.volumeResize(this.handle, volume, sizeBytes));
  }

  limitVolume(
    volume: number,
    limits: { requestsPerSecond: number; bytesPerSecond: number },
  ): Promise<void> {
    const { requestsPerSecond, bytesPerSecond } = limits;
    return translate(
      this.#addon.volumeLimit(this.handle, volume, requestsPerSecond, bytesPerSecond),
    );
  }

  io(
    volume: number,
    op: number,
    offsetBytes: number,
    lengthBytes: number,
    data: Uint8Array | null,
    fua: boolean,
  ): Promise<IoResult> {
    return translate(
      this.#addon.volumeIo(this.handle, volume, op, offsetBytes, lengthBytes, data, fua),
    );
  }

  layerDeltas(): Promise<LayerDelta[]> {
    return this.#addon.layerDeltas(this.handle);
  }

  checkpointBegin(): Promise<CheckpointStart> {
    return translate(this.#addon.checkpointBegin(this.handle));
  }

  checkpointTake(limit: number): Promise<CheckpointBatch> {
    return translate(this.#addon.checkpointTake(this.handle, limit));
  }

  checkpointStored(): Promise<void> {
    return this.#addon.checkpointStored(this.handle);
  }

  checkpointEnd(success: boolean): Promise<void> {
    return this.#addon.checkpointEnd(this.handle, success);
  }

  foldHold(layer: number, spans: number[]): Promise<HeldBlocks> {
    return translate(this.#addon.foldHold(this.handle, layer, spans));
  }

  foldApply(parent: number, child: number, spans: number[], adopted: Uint8Array): Promise<void> {
    return this.#addon.foldApply(this.handle, parent, child, spans, adopted);
  }

  foldLetGo(layer: number, spans: number[]): Promise<void> {
    return this.#addon.foldLetGo(this.handle, layer, spans);
  }

  foldHoldAll(layer: number, limit: number): Promise<HeldBlocks | null> {
    return translate(this.#addon.foldHoldAll(this.handle, layer, limit));
  }

  foldAbsorb(parent: number, child: number, spans: number[], adopted: Uint8Array): Promise<void> {
    return this.#addon.foldAbsorb(this.handle, parent, child, spans, adopted);
  }

  foldLetGoAll(layer: number): Promise<void> {
    return this.#addon.foldLetGoAll(this.handle, layer);
  }

  /**
   * Memory forgets what it has of a layer that takes no changes, and answers under way; look-ups
   * that would have passed the layer by ask for its index block of these spans from now on.
   */
  async forgetIndexBlocks(layer: number, spans: number[]): Promise<void> {
    await this.foldHold(layer, spans);
    try {
      const nothing = new Uint8Array((spans.length * SLOTS_PER_SPAN) / 8);
      await this.foldApply(layer, layer, spans, nothing);
    } finally {
      await this.foldLetGo(layer, spans);
    }
  }

  foldUnlink(parent: number, child: number): Promise<void> {
    return this.#addon.foldUnlink(this.handle, parent, child);
  }

  /** A "freed" event follows when no device I/O knows them any more. */
  releaseBlocks(runs: readonly BlockRun[]): void {
    if (runs.length > 0) this.#addon.blocksRelease(this.handle, flatten(runs));
  }

  /** Nobody's until it settles. Null, or the system's name of what went wrong. */
  async punchBlocks(runs: readonly BlockRun[]): Promise<string | null> {
    try {
      await this.#addon.blocksPunch(this.handle, flatten(runs));
      return null;
    } catch (error) {
      return error instanceof Error && "code" in error ? String(error.code) : "EIO";
    }
  }

  lend(runs: readonly BlockRun[], exhausted: boolean): void {
    this.#addon.extentsLend(this.handle, flatten(runs), exhausted);
  }

  answerIndex(token: number, owner: number, block: Uint8Array | null, failed: boolean): void {
    this.#addon.indexAnswer(this.handle, token, owner, block, failed);
  }
}

export function flatten(runs: readonly BlockRun[]): Uint32Array {
  const flat = new Uint32Array(runs.length * 2);
  runs.forEach((run, at) => {
    flat[at * 2] = run.first;
    flat[at * 2 + 1] = run.count;
  });
  return flat;
}

export function unflatten(flat: Uint32Array): BlockRun[] {
  const runs: BlockRun[] = [];
  for (let at = 0; at < flat.length; at += 2) {
    runs.push({ first: flat[at] as number, count: flat[at + 1] as number });
  }
  return runs;
}

/** Errors of the addon carry an errno's name. */
export async function translate<T>(call: Promise<T>, context: ErrorContext = {}): Promise<T> {
  try {
    return await call;
  } catch (cause) {
    if (isPandoError(cause) || !(cause instanceof Error)) throw cause;
    const name = (cause as { code?: unknown }).code;
    if (name === "ENOENT") throw new PandoError("ENOTFOUND", cause.message, context, { cause });
    if (name === "EEXIST") throw new PandoError("EEXIST", cause.message, context, { cause });
    if (name === "EINVAL") throw new PandoError("EINVAL", cause.message, context, { cause });
    if (name === "ENOSPC") throw new PandoError("ENOSPC", cause.message, context, { cause });
    throw new PandoError("EIO", cause.message, context, { cause });
  }
}
