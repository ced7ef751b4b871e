// What a commit of the store was for, by what it has written and what the pool is doing: each is a
// path of its own when the store is full.
import { META_GROW, META_JOURNAL, META_POOL } from "../../engine/store/codec-keys.js";
import type { Space } from "../../engine/store/store.js";
import { toText } from "../../engine/store/text-key.js";
import type { Write } from "./model-store.js";
import type { World } from "./world.js";

export const COMMIT_KINDS = [
  "a change of the catalogue",
  "a checkpoint's index blocks",
  "a checkpoint's last transaction",
  "a fold, reclaim or sweep",
  "a grow",
] as const;

export type CommitKind = (typeof COMMIT_KINDS)[number];

export function kindOf(writes: readonly Write[], world: World): CommitKind {
  const has = (space: Space, key?: Uint8Array): boolean =>
    writes.some(
      (write) => write.space === space && (key === undefined || write.key === toText(key)),
    );
  if (has("volumes") || has("snapshots")) return "a change of the catalogue";
  if (has("meta", META_GROW) || has("meta", META_POOL)) return "a grow";
  if (has("meta", META_JOURNAL)) return "a checkpoint's last transaction";
  const batch = world.checkpointPhase === "batches" && world.foldPhase === "none";
  return batch && has("index") && !has("free")
    ? "a checkpoint's index blocks"
    : "a fold, reclaim or sweep";
}
