// The storage nodes of the configuration or of Kubernetes, and on which of them a volume is or
// goes.
//
// Nothing is remembered: what exists is asked of the nodes. One that does not answer fails the
// calls about its own volumes, with UNAVAILABLE, and no others.
import { status } from "@grpc/grpc-js";
import { isPandoError } from "../engine/base/errors.js";
import type { PandoClient, PoolInfo, SnapshotInfo, VolumeView } from "../engine/serve/client.js";
import { CsiError } from "./errors.js";
import type { SnapshotId, VolumeId } from "./ids.js";

/** What the driver asks of a daemon. */
export type Daemon = Pick<
  PandoClient,
  | "info"
  | "createVolume"
  | "getVolume"
  | "listVolumes"
  | "deleteVolume"
  | "resizeVolume"
  | "setLimits"
  | "cloneVolume"
  | "createSnapshot"
  | "createSnapshots"
  | "getSnapshot"
  | "listSnapshots"
  | "deleteSnapshot"
  | "diff"
  | "allowHost"
  | "denyHost"
  | "listHostKeys"
  | "close"
>;

export interface StorageNode {
  readonly name: string;
  readonly daemon: Daemon;
  /** Null: nobody says. */
  readonly zone: string | null;
}

export interface Found<T> {
  node: StorageNode;
  item: T;
}

export class StorageNodes {
  readonly #nodes: Map<string, StorageNode>;
  /** They keep what they have, and get nothing new. */
  readonly #leaving = new Set<string>();

  constructor(nodes: StorageNode[]) {
    this.#nodes = new Map(nodes.map((node) => [node.name, node]));
  }

  has(name: string): boolean {
    return this.#nodes.has(name);
  }

  /** One that is new, or has another address now: calls under way at the old one fail. */
  put(node: StorageNode): void {
    this.#nodes.get(node.name)?.daemon.close();
    this.#nodes.set(node.name, node);
    this.placeOn(node.name, true);
  }

  /** Whether new volumes go to a node. */
  placeOn(name: string, isWanted: boolean): void {
    if (isWanted) this.#leaving.delete(name);
    else this.#leaving.add(name);
  }

  get all(): StorageNode[] {
    return [...this.#nodes.values()];
  }

  /** A node that was taken out of the configuration still has its volumes. */
  get(name: string): StorageNode {
    const node = this.#nodes.get(name);
    if (node !== undefined) return node;
    const known = [...this.#nodes.keys()].join(", ");
    throw new CsiError(
      status.UNAVAILABLE,
      `storage node ${name} is not in the driver's configuration, which has ${known}`,
    );
  }

  /** Null if there is no such volume, or another one has its name by now. */
  async findVolume({ node: name, volume, uuid }: VolumeId): Promise<Found<VolumeView> | null> {
    const node = this.get(name);
    const item = await orNull(node.daemon.getVolume(volume));
    return item === null || item.uuid !== uuid ? null : { node, item };
  }

  async findSnapshot(id: SnapshotId): Promise<Found<SnapshotInfo> | null> {
    const node = this.get(id.node);
    const item = await orNull(node.daemon.getSnapshot(id.volume, id.snapshot));
    return item === null ? null : { node, item };
  }

  /**
   * The volume of this name, on whichever node. One that is down is passed over: what it may have
   * is an orphan of a call that was never answered, since nobody has its id.
   */
  async findByName(volume: string): Promise<Found<VolumeView> | null> {
    const found = await this.#askAll(async (node) => {
      const item = await orNull(node.daemon.getVolume(volume));
      return item === null ? null : { node, item };
    });
    return found.find((one) => one !== null) ?? null;
  }

  /** Those that answer and take new volumes, the one with the most room first. */
  async byRoom(): Promise<Found<PoolInfo>[]> {
    const found = await this.#askAll(async (node) => ({ node, item: await node.daemon.info() }));
    return found
      .filter(({ node, item }) => item.failure === null && !this.#leaving.has(node.name))
      .sort((a, b) => b.item.freeBytes - a.item.freeBytes);
  }

  close(): void {
    for (const { daemon } of this.all) daemon.close();
  }

  /** The answers of those that answer; UNAVAILABLE if none does. */
  async #askAll<T>(ask: (node: StorageNode) => Promise<T>): Promise<T[]> {
    const outcomes = await Promise.allSettled(this.all.map(ask));
    const answers: T[] = [];
    let silent: unknown;
    for (const outcome of outcomes) {
      if (outcome.status === "fulfilled") answers.push(outcome.value);
      else if (isPandoError(outcome.reason, "ECLOSED")) silent = outcome.reason;
      else throw outcome.reason;
    }
    if (answers.length > 0) return answers;
    throw new CsiError(status.UNAVAILABLE, "no storage node answers", { cause: silent });
  }
}

export async function orNull<T>(asked: Promise<T>): Promise<T | null> {
  try {
    return await asked;
  } catch (error) {
    if (isPandoError(error, "ENOTFOUND")) return null;
    throw error;
  }
}
