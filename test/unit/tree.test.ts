// The tree of branches, where names have been given twice and parents are gone too.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { branchTree } from "../../engine/cli/tree.js";
import type { SnapshotInfo, SpaceInfo, VolumeInfo } from "../../engine/core/api.js";

const NO_SPACE: SpaceInfo = {
  ownBytes: 0,
  sharedBytes: 0,
  logicalBytes: 0,
  freedByDeleteBytes: 0,
  freedByDeleteAtMost: false,
};

/** `parent` as people write it: "db", "db@monday", or "" for none. */
function volume(name: string, at: number, parent = ""): VolumeInfo {
  const [of = "", snapshot = null] = parent.split("@");
  return {
    name,
    uuid: name,
    sizeBytes: 4096,
    ...NO_SPACE,
    origin: parent === "" ? null : { volume: of, snapshot },
    createdAt: time(at),
    allowedHosts: [],
    sessions: [],
    sharedVia: null,
    limits: { iops: null, bytesPerSecond: null },
  };
}

function snapshot(of: string, name: string, at: number): SnapshotInfo {
  const createdAt = time(at);
  const place = { volume: of, volumeUuid: of, name, uuid: name };
  return { ...place, sizeBytes: 4096, createdAt, ...NO_SPACE };
}

const time = (second: number) => new Date(second * 1000).toISOString();

function lines(volumes: VolumeInfo[], snapshots: SnapshotInfo[] = []): string[] {
  return branchTree(volumes, snapshots).map(({ branch, prefix }) =>
    branch.kind === "volume" ? prefix + branch.volume.name : `${prefix}@${branch.snapshot.name}`,
  );
}

test("nothing", () => {
  assert.equal(lines([]), []);
});

test("in the order in which they were made, each under its parent", () => {
  const volumes = [
    volume("c", 5, "a@s"),
    volume("b", 2),
    volume("e", 6, "c"),
    volume("a", 1),
    volume("d", 4, "a"),
  ];
  assert.equal(lines(volumes, [snapshot("a", "s", 3), snapshot("a", "t", 7)]), [
    "a",
    "├ @s",
    "│ └ c",
    "│   └ e",
    "├ d",
    "└ @t",
    "b",
  ]);
});

test("one whose parent is gone is a root", () => {
  assert.equal(lines([volume("a", 1, "gone"), volume("b", 2, "a@gone")]), ["a", "b"]);
});

test("one that is younger is nobody's parent, whatever its name", () => {
  // `a` was cloned to `b`, deleted, and made again as a clone of `b`.
  assert.equal(lines([volume("b", 2, "a"), volume("a", 3, "b")]), ["b", "└ a"]);
  assert.equal(lines([volume("b", 2, "a@s"), volume("a", 1)], [snapshot("a", "s", 3)]), [
    "a",
    "└ @s",
    "b",
  ]);
});

test("two of one instant that name each other are both shown, once", () => {
  assert.equal(lines([volume("a", 1, "b"), volume("b", 1, "a")]), ["a", "└ b"]);
  assert.equal(lines([volume("a", 1, "a")]), ["a"]);
});

test("a chain of two thousand is no problem", () => {
  const chain = Array.from({ length: 2000 }, (_, index) =>
    volume(`v${index}`, index, index === 0 ? "" : `v${index - 1}`),
  );
  assert.is(lines(chain).length, 2000);
});

test.run();
