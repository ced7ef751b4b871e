// The control client: what the CLI, and later others, use to talk to a daemon. Methods have the
// names and types of PoolService, and throw the errors that the pool threw.
import {
  Client,
  type ClientOptions,
  credentials,
  Metadata,
  type ServiceError,
} from "@grpc/grpc-js";
import { type Address, formatAddress } from "../base/address.js";
import type { TlsFiles } from "../base/config.js";
import { PandoError } from "../base/errors.js";
import type { SnapshotRef } from "../base/name.js";
import type {
  ChangedRange,
  CheckReport,
  ConnectionInfo,
  DiffRequest,
  HostKeysInfo,
  Limits,
  Origin,
  PoolInfo,
  ReceiveRequest,
  SnapshotInfo,
  TrimProgress,
} from "../core/api.js";
import { POOL_KEY, type PoolEntry } from "./pools.js";
import {
  method,
  type StreamMethods,
  type StreamName,
  type UnaryMethods,
  type UnaryName,
} from "./protocol.js";
import { fromStatus, isNoAnswer } from "./status.js";
import { clientCredentials } from "./tls.js";
import {
  fromPoolMessage,
  fromPoolsMessage,
  fromReceiveMessage,
  fromSnapshotMessage,
  fromVolumeMessage,
  type ReceiveView,
  type SnapshotView,
  toLimitChange,
  toOriginMessage,
  type VolumeView,
} from "./view.js";

export type {
  ChangedRange,
  CheckReport,
  ConnectionInfo,
  DiffRequest,
  HostKeysInfo,
  Limits,
  Origin,
  PoolInfo,
  ReceiveRequest,
  SnapshotInfo,
  SpaceInfo,
  TrimProgress,
  VolumeInfo,
} from "../core/api.js";
export type { PoolEntry } from "./pools.js";
export type { ReceiveView, Served, SnapshotView, VolumeView } from "./view.js";

/** A daemon on another machine. */
export interface RemoteDaemon {
  address: Address;
  /** Null only for a loopback address. */
  tls: TlsFiles | null;
  /** Of each call: a machine that is gone must not hold its caller. */
  timeoutMs: number;
}

/** A daemon that comes back is found soon, one that is silent is not waited for. */
const REMOTE_OPTIONS: ClientOptions = {
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1000,
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 5000,
};

export class PandoClient {
  readonly #client: Client;
  readonly #place: string;
  readonly #hint: string;
  readonly #timeoutMs: number | null;
  readonly #metadata = new Metadata();

  /**
   * A socket of this machine, or a daemon elsewhere; `pool` is the name of one of several that it
   * serves.
   */
  constructor(daemon: string | RemoteDaemon, pool: string | null = null) {
    if (pool !== null) this.#metadata.set(POOL_KEY, pool);
    if (typeof daemon === "string") {
      this.#place = daemon;
      this.#hint = "pando daemon --pool PATH, or name its socket with --socket";
      this.#timeoutMs = null;
      this.#client = new Client(`unix:${daemon}`, credentials.createInsecure());
    } else {
      this.#place = formatAddress(daemon.address);
      this.#hint = 'is it up, does it have "api" set, and do the certificates fit?';
      this.#timeoutMs = daemon.timeoutMs;
      this.#client = new Client(this.#place, clientCredentials(daemon.tls), REMOTE_OPTIONS);
    }
  }

  close(): void {
    this.#client.close();
  }

  async listPools(): Promise<PoolEntry[]> {
    return fromPoolsMessage(await this.#call("ListPools", {}));
  }

  async info(): Promise<PoolInfo> {
    return fromPoolMessage(await this.#call("GetPool", {}));
  }

  /** Null: all of a block device. */
  async grow(sizeBytes: number | null, sparse: boolean): Promise<PoolInfo> {
    return fromPoolMessage(await this.#call("GrowPool", { sizeBytes: sizeBytes ?? 0, sparse }));
  }

  check(): Promise<CheckReport> {
    return this.#call("CheckPool", {});
  }

  /** Until it is done, or nobody reads on. */
  trim(startBytes: number): AsyncGenerator<TrimProgress> {
    return this.#stream("TrimPool", { startBytes });
  }

  /** The bytes of a copy of the pool's metadata. */
  async *backUpMetadata(): AsyncGenerator<Uint8Array> {
    for await (const { data } of this.#stream("BackUpMetadata", {})) yield data;
  }

  async createVolume(name: string, sizeBytes: number): Promise<VolumeView> {
    return fromVolumeMessage(await this.#call("CreateVolume", { name, sizeBytes }));
  }

  /** `countFreed`: what deleting it would free is counted, not bounded. */
  async getVolume(name: string, { countFreed = false } = {}): Promise<VolumeView> {
    return fromVolumeMessage(await this.#call("GetVolume", { name, countFreed }));
  }

  /** By name: those behind `after`, and `most` of them. */
  async listVolumes({ after = "", most = Infinity } = {}): Promise<VolumeView[]> {
    const found: VolumeView[] = [];
    for await (const { volumes } of this.#stream("ListVolumes", { after })) {
      for (const volume of volumes) found.push(fromVolumeMessage(volume));
      if (found.length >= most) return found.slice(0, most);
    }
    return found;
  }

  async deleteVolume(name: string): Promise<void> {
    await this.#call("DeleteVolume", { name });
  }

  async resizeVolume(name: string, sizeBytes: number): Promise<VolumeView> {
    return fromVolumeMessage(await this.#call("ResizeVolume", { name, sizeBytes }));
  }

  /** What is undefined stays as it is; null takes the limit away. */
  async setLimits(name: string, change: Partial<Limits>): Promise<VolumeView> {
    const iops = toLimitChange(change.iops);
    const bytesPerSecond = toLimitChange(change.bytesPerSecond);
    const message = { name, iops, bytesPerSecond };
    return fromVolumeMessage(await this.#call("SetVolumeLimits", message));
  }

  async cloneVolume(source: Origin, name: string): Promise<VolumeView> {
    const message = { source: toOriginMessage(source), name };
    return fromVolumeMessage(await this.#call("CloneVolume", message));
  }

  async shareVolume(name: string, via: string): Promise<VolumeView> {
    return fromVolumeMessage(await this.#call("ShareVolume", { name, via }));
  }

  async unshareVolume(name: string, options: { force: boolean }): Promise<VolumeView> {
    return fromVolumeMessage(await this.#call("UnshareVolume", { name, ...options }));
  }

  async rollbackVolume(volume: string, snapshot: string): Promise<VolumeView> {
    return fromVolumeMessage(await this.#call("RollbackVolume", { volume, snapshot }));
  }

  async getSnapshot(
    volume: string,
    snapshot: string,
    { countFreed = false } = {},
  ): Promise<SnapshotView> {
    return fromSnapshotMessage(await this.#call("GetSnapshot", { volume, snapshot, countFreed }));
  }

  createSnapshot(volume: string, snapshot: string): Promise<SnapshotInfo> {
    return this.#call("CreateSnapshot", { volume, snapshot });
  }

  /** Of several volumes at one instant, all or none. */
  async createSnapshots(snapshots: readonly SnapshotRef[]): Promise<SnapshotInfo[]> {
    const message = { snapshots: [...snapshots] };
    return (await this.#call("CreateSnapshots", message)).snapshots;
  }

  /** Batches, as they come: what changed from `base` to `target`, or all that `target` has. */
  async *diff(request: DiffRequest): AsyncGenerator<ChangedRange[]> {
    for await (const { ranges } of this.#stream("DiffSnapshots", request)) yield ranges;
  }

  async listSnapshots(volume = ""): Promise<SnapshotInfo[]> {
    const found: SnapshotInfo[] = [];
    for await (const { snapshots } of this.#stream("ListSnapshots", { volume })) {
      for (const snapshot of snapshots) found.push(snapshot);
    }
    return found;
  }

  async deleteSnapshot(volume: string, snapshot: string): Promise<void> {
    await this.#call("DeleteSnapshot", { volume, snapshot });
  }

  async beginReceive(request: ReceiveRequest): Promise<ReceiveView> {
    const { snapshot, base, ...rest } = request;
    const message = { ...rest, snapshot: snapshot ?? "", base: base ?? "" };
    return fromReceiveMessage(await this.#call("BeginReceive", message));
  }

  async advanceReceive(name: string, offsetBytes: number): Promise<void> {
    await this.#call("AdvanceReceive", { name, offsetBytes });
  }

  async finishReceive(name: string): Promise<VolumeView> {
    return fromVolumeMessage(await this.#call("FinishReceive", { name }));
  }

  async abortReceive(name: string): Promise<void> {
    await this.#call("AbortReceive", { name });
  }

  async listReceives(): Promise<ReceiveView[]> {
    return (await this.#list("ListReceives", {})).map(fromReceiveMessage);
  }

  async allowHost(volume: string, hostNqn: string): Promise<VolumeView> {
    return fromVolumeMessage(await this.#call("AllowHost", { volume, hostNqn }));
  }

  async denyHost(volume: string, hostNqn: string): Promise<VolumeView> {
    return fromVolumeMessage(await this.#call("DenyHost", { volume, hostNqn }));
  }

  async disconnectHost(volume: string, hostNqn: string): Promise<number> {
    return (await this.#call("DisconnectHost", { volume, hostNqn })).controllers;
  }

  async setHostKeys(
    hostNqn: string,
    keys: { host: string; controller: string | null },
  ): Promise<void> {
    const { host, controller } = keys;
    await this.#call("SetHostKeys", { hostNqn, hostKey: host, controllerKey: controller ?? "" });
  }

  async removeHostKeys(hostNqn: string): Promise<void> {
    await this.#call("RemoveHostKeys", { hostNqn });
  }

  async setHostTlsKey(hostNqn: string, key: string): Promise<void> {
    await this.#call("SetHostTlsKey", { hostNqn, key });
  }

  async removeHostTlsKey(hostNqn: string): Promise<void> {
    await this.#call("RemoveHostTlsKey", { hostNqn });
  }

  listHostKeys(): Promise<HostKeysInfo[]> {
    return this.#list("ListHostKeys", {});
  }

  listConnections(volume = ""): Promise<ConnectionInfo[]> {
    return this.#list("ListConnections", { volume });
  }

  #call<M extends UnaryName>(
    name: M,
    request: UnaryMethods[M]["request"],
  ): Promise<UnaryMethods[M]["response"]> {
    const definition = method<UnaryMethods[M]["request"], UnaryMethods[M]["response"]>(name);
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        definition.path,
        definition.requestSerialize,
        definition.responseDeserialize,
        request,
        this.#metadata,
        this.#callOptions(),
        (error, response) => {
          if (error !== null) reject(this.#error(error));
          else if (response === undefined) {
            reject(new PandoError("EIO", `the daemon answered ${name} with nothing`));
          } else resolve(response);
        },
      );
    });
  }

  async #list<M extends StreamName>(
    name: M,
    request: StreamMethods[M]["request"],
  ): Promise<StreamMethods[M]["response"][]> {
    const messages: StreamMethods[M]["response"][] = [];
    for await (const message of this.#stream(name, request)) messages.push(message);
    return messages;
  }

  async *#stream<M extends StreamName>(
    name: M,
    request: StreamMethods[M]["request"],
  ): AsyncGenerator<StreamMethods[M]["response"]> {
    type Response = StreamMethods[M]["response"];
    const definition = method<StreamMethods[M]["request"], Response>(name);
    const call = this.#client.makeServerStreamRequest(
      definition.path,
      definition.requestSerialize,
      definition.responseDeserialize,
      request,
      this.#metadata,
      this.#callOptions(),
    );
    try {
      for await (const message of call) yield message as Response;
    } catch (error) {
      throw this.#error(error as ServiceError);
    } finally {
      // Who reads no further lets the daemon know; after the end it does nothing.
      call.cancel();
    }
  }

  #callOptions(): { deadline?: Date } {
    return this.#timeoutMs === null ? {} : { deadline: new Date(Date.now() + this.#timeoutMs) };
  }

  #error(error: ServiceError): PandoError {
    if (!isNoAnswer(error)) return fromStatus(error);
    const context = { path: this.#place, hint: this.#hint };
    return new PandoError("ECLOSED", `no daemon answers on ${this.#place}`, context, {
      cause: error,
    });
  }
}
