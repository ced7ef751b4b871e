// Volumes and snapshots as the tree that they are: a snapshot hangs on its volume, a clone on the
// snapshot or volume that it was made from.
//
// Origins are names, and a name can have been given to something else since. So a parent counts
// only if it is older than the child, and whatever is on no path from a root is a root of its own:
// nothing is shown twice, nothing is left out.
import type { SnapshotInfo, VolumeInfo } from "../serve/client.js";

export type Branch<V extends VolumeInfo> =
  | { kind: "volume"; volume: V }
  | { kind: "snapshot"; snapshot: SnapshotInfo };

export interface TreeRow<V extends VolumeInfo> {
  branch: Branch<V>;
  /** What the name is indented with: "", "├ ", "│ └ " … */
  prefix: string;
}

export function branchTree<V extends VolumeInfo>(
  volumes: V[],
  snapshots: SnapshotInfo[],
): TreeRow<V>[] {
  const branches: Branch<V>[] = [
    ...volumes.map((volume): Branch<V> => ({ kind: "volume", volume })),
    ...snapshots.map((snapshot): Branch<V> => ({ kind: "snapshot", snapshot })),
  ];
  branches.sort((a, b) => compare(createdAt(a), createdAt(b)) || compare(keyOf(a), keyOf(b)));
  const byKey = new Map(branches.map((branch) => [keyOf(branch), branch]));
  const children = new Map<Branch<V>, Branch<V>[]>();
  const roots: Branch<V>[] = [];
  for (const branch of branches) {
    const parent = byKey.get(parentKey(branch));
    if (parent === undefined || createdAt(parent) > createdAt(branch)) roots.push(branch);
    else children.set(parent, [...(children.get(parent) ?? []), branch]);
  }
  const rows: TreeRow<V>[] = [];
  const shown = new Set<Branch<V>>();
  const show = (branch: Branch<V>, prefix: string, below: string) => {
    if (shown.has(branch)) return;
    shown.add(branch);
    rows.push({ branch, prefix });
    const under = children.get(branch) ?? [];
    for (const [index, child] of under.entries()) {
      const last = index === under.length - 1;
      show(child, below + (last ? "└ " : "├ "), below + (last ? "  " : "│ "));
    }
  };
  for (const root of roots) show(root, "", "");
  // Two of the same instant can name each other.
  for (const branch of branches) show(branch, "", "");
  return rows;
}

function keyOf<V extends VolumeInfo>(branch: Branch<V>): string {
  if (branch.kind === "volume") return branch.volume.name;
  return `${branch.snapshot.volume}@${branch.snapshot.name}`;
}

/** Not a key of anything for a volume that is no clone. */
function parentKey<V extends VolumeInfo>(branch: Branch<V>): string {
  if (branch.kind === "snapshot") return branch.snapshot.volume;
  const { origin } = branch.volume;
  if (origin === null) return "";
  return origin.snapshot === null ? origin.volume : `${origin.volume}@${origin.snapshot}`;
}

function createdAt<V extends VolumeInfo>(branch: Branch<V>): string {
  return branch.kind === "volume" ? branch.volume.createdAt : branch.snapshot.createdAt;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
