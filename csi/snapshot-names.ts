// Which names of snapshots are taken. To the engine a snapshot's name is its volume's; to CSI it is
// one for all volumes, and taken again for another volume it has to be refused.
//
// A memory, never a truth: read from the storage nodes once, kept by what this controller does, and
// asked again before anything is refused. A controller that starts anew reads it anew.
import { isPandoError } from "../engine/base/errors.js";
import type { SnapshotId } from "./ids.js";
import type { StorageNodes } from "./storage-nodes.js";

export class SnapshotNames {
  readonly #nodes: StorageNodes;
  /** By snapshot name. */
  readonly #taken = new Map<string, SnapshotId>();
  /** Nodes whose snapshots are in `taken`. */
  readonly #read = new Map<string, Promise<void>>();

  constructor(nodes: StorageNodes) {
    this.#nodes = nodes;
  }

  /** A snapshot of this name, if there is one; `but`: not this one. */
  async takenBy(name: string, but: SnapshotId | null): Promise<SnapshotId | null> {
    await Promise.all(this.#nodes.all.map(({ name: node }) => this.#readNode(node)));
    const known = this.#taken.get(name);
    if (known === undefined) return null;
    if (known.node === but?.node && known.volume === but.volume) return null;
    if ((await this.#nodes.findSnapshot(known)) !== null) return known;
    this.deleted(known);
    return null;
  }

  made(id: SnapshotId): void {
    this.#taken.set(id.snapshot, id);
  }

  deleted(id: SnapshotId): void {
    const known = this.#taken.get(id.snapshot);
    if (known?.node === id.node && known.volume === id.volume) this.#taken.delete(id.snapshot);
  }

  /** One that is down is read when it is back. */
  async #readNode(node: string): Promise<void> {
    const reading = this.#read.get(node) ?? this.#load(node);
    this.#read.set(node, reading);
    try {
      await reading;
    } catch (error) {
      this.#read.delete(node);
      if (!isPandoError(error, "ECLOSED")) throw error;
    }
  }

  async #load(node: string): Promise<void> {
    for (const { volume, name } of await this.#nodes.get(node).daemon.listSnapshots()) {
      if (!this.#taken.has(name)) this.#taken.set(name, { node, volume, snapshot: name });
    }
  }
}
