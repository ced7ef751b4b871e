// Answers the data path's index questions in the control plane's own thread, where there is no
// index service: in a simulation.
import { isPandoError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { findLayer } from "../store/layers.js";
import { Lineage, lookupNearest } from "../store/lineage.js";
import type { StoreReader } from "../store/store.js";
import type { DataPath } from "./data-path.js";

export function answerHere(
  parts: { store: StoreReader; path: DataPath; log: Log },
  { token, layer, span }: { token: number; layer: number; span: number },
): void {
  const { store, path, log } = parts;
  if (findLayer(store, layer) === undefined) {
    // It was folded away: the look-up begins again.
    path.answerIndex(token, 0, null, true);
    return;
  }
  try {
    const found = lookupNearest(store, new Lineage(), layer, span);
    path.answerIndex(token, found?.owner ?? 0, found?.block.raw ?? null, false);
  } catch (error) {
    if (!isPandoError(error, "ECORRUPT")) throw error;
    log.error({ err: error }, "an index look-up failed");
    path.answerIndex(token, 0, null, true);
  }
}
