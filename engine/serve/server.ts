// The control server: gRPC on a Unix socket, and on TCP if it is told to, in front of a
// PoolService.
// Checks arguments, calls the pool, translates; decides nothing.
import { setImmediate as othersTurn } from "node:timers/promises";
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  type Metadata,
  Server,
  ServerCredentials,
  type ServerWritableStream,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { type Address, formatAddress } from "../base/address.js";
import { AssertionError } from "../base/assert.js";
import type { ApiConfig } from "../base/config.js";
import { isPandoError, PandoError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { requireName } from "../base/name.js";
import { checkHostNqn } from "../base/nqn.js";
import { quote } from "../base/quote.js";
import { checkWholeBlocks } from "../base/size.js";
import type { Limits, PoolService, SnapshotInfo, SpaceInfo, VolumeInfo } from "../core/api.js";
import { choosePool, failureOf, isOpen, listPools, POOL_KEY, type PoolPlace } from "./pools.js";
import {
  type StreamMethods,
  type StreamName,
  service,
  type UnaryMethods,
  type UnaryName,
} from "./protocol.js";
import { bindPrivately, prepareSocket, removeSocket } from "./socket.js";
import { asPandoError, toStatus } from "./status.js";
import { serverCredentials } from "./tls.js";
import {
  fromLimitChange,
  fromOriginMessage,
  type Places,
  toPoolMessage,
  toPoolsMessage,
  toReceiveMessage,
  toSnapshotMessage,
  toVolumeMessage,
  viewReceive,
  viewSnapshot,
  viewVolume,
} from "./view.js";

/** All but those that are about the daemon. */
type PoolMethod = Exclude<UnaryName, "ListPools">;

type UnaryHandlers = {
  [M in PoolMethod]: (request: UnaryMethods[M]["request"]) => Promise<UnaryMethods[M]["response"]>;
};

type StreamHandlers = {
  [M in StreamName]: (
    request: StreamMethods[M]["request"],
  ) => Promise<Messages<StreamMethods[M]["response"]>>;
};

type Messages<T> = Iterable<T> | AsyncIterable<T>;

export interface ControlServer {
  /** Refuses new calls, lets those in progress end (for a bounded time), removes the socket. */
  close(): Promise<void>;
}

const CLOSE_TIMEOUT_MS = 5000;
/** Some milliseconds of the control plane's thread. */
const LIST_PAGE = 500;
/** An NQN has up to 223 bytes. */
const HOSTS_PER_MESSAGE = 4096;

export async function startControlServer(options: {
  pools: readonly PoolPlace[];
  socket: string;
  api: ApiConfig | null;
  log: Log;
}): Promise<ControlServer> {
  const { pools, socket, api, log } = options;
  // First, because files that cannot be read must leave nothing behind.
  const apiCredentials = api === null ? null : serverCredentials(api.tls);
  const served = await Promise.all(pools.map(serve));
  const choose: Choose = (metadata) => {
    const named = metadata.get(POOL_KEY)[0] ?? "";
    return choosePool(served, String(named)).handlers();
  };
  const implementation: UntypedServiceImplementation = {
    ListPools: serveUnary("ListPools", async () => toPoolsMessage(await listPools(pools)), log),
  };
  for (const [name, { responseStream }] of Object.entries(service)) {
    if (name === "ListPools") continue;
    implementation[name] = responseStream
      ? serveStream(name as StreamName, choose, log)
      : serveUnary(
          name as PoolMethod,
          (request, metadata) => choose(metadata).unary[name as PoolMethod](request as never),
          log,
        );
  }
  const server = new Server();
  server.addService(service, implementation);
  await prepareSocket(socket);
  await bindPrivately(socket, () => bind(server, socket));
  const close = async () => {
    await shutDown(server);
    removeSocket(socket);
  };
  try {
    if (api !== null && apiCredentials !== null) {
      await bindAddress(server, api.address, apiCredentials);
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { close };
}

/** The handlers of the pool that a request means. */
type Choose = (metadata: Metadata) => Handlers;

interface Handlers {
  unary: UnaryHandlers;
  stream: StreamHandlers;
}

async function serve(place: PoolPlace): Promise<{ name: string | null; handlers(): Handlers }> {
  const { name } = place;
  if (!isOpen(place)) {
    const handlers = () => {
      throw failureOf(place);
    };
    return { name, handlers };
  }
  const { pool, places } = place;
  const { blockSizeBytes } = await pool.info();
  const made = {
    unary: unaryHandlers(pool, places, blockSizeBytes),
    stream: streamHandlers(pool, places),
  };
  return { name, handlers: () => made };
}

function unaryHandlers(pool: PoolService, places: Places, blockSizeBytes: number): UnaryHandlers {
  const reply = (volume: VolumeInfo) => toVolumeMessage(viewVolume(volume, places));
  const checkSize = (sizeBytes: number) => {
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
      throw new PandoError("EINVAL", `${sizeBytes} is not a size`, { field: "size" });
    }
    checkWholeBlocks({ sizeBytes, blockSizeBytes, field: "size" });
  };
  return {
    GetPool: async () => toPoolMessage(await pool.info()),
    GrowPool: async ({ sizeBytes, sparse }) => {
      const size = sizeBytes === 0 ? null : sizeBytes;
      return toPoolMessage(await pool.grow({ sizeBytes: size, sparse }));
    },
    CheckPool: () => pool.check(),
    CreateVolume: async ({ name, sizeBytes }) => {
      requireName(name, "volume");
      checkSize(sizeBytes);
      return reply(await pool.createVolume(name, sizeBytes));
    },
    GetVolume: async ({ name, countFreed }) => {
      requireName(name, "volume");
      const volume = await pool.getVolume(name);
      return reply(countFreed ? await counted(volume, pool.countFreed(name, null)) : volume);
    },
    DeleteVolume: async ({ name }) => {
      requireName(name, "volume");
      await pool.deleteVolume(name);
      return {};
    },
    ResizeVolume: async ({ name, sizeBytes }) => {
      requireName(name, "volume");
      checkSize(sizeBytes);
      return reply(await pool.resizeVolume(name, sizeBytes));
    },
    CloneVolume: async ({ source, name }) => {
      if (source === null) {
        throw new PandoError("EINVAL", "a clone needs a source", { field: "source" });
      }
      const origin = fromOriginMessage(source);
      requireName(origin.volume, "volume");
      if (origin.snapshot !== null) requireName(origin.snapshot, "snapshot");
      requireName(name, "volume");
      return reply(await pool.cloneVolume(origin, name));
    },
    SetVolumeLimits: async ({ name, ...message }) => {
      requireName(name, "volume");
      const iops = fromLimitChange(message.iops);
      const bytesPerSecond = fromLimitChange(message.bytesPerSecond);
      const change: Partial<Limits> = {};
      if (iops !== undefined) change.iops = iops;
      if (bytesPerSecond !== undefined) change.bytesPerSecond = bytesPerSecond;
      return reply(await pool.setLimits(name, change));
    },
    RollbackVolume: async ({ volume, snapshot }) => {
      requireName(volume, "volume");
      requireName(snapshot, "snapshot");
      return reply(await pool.rollbackVolume(volume, snapshot));
    },
    ShareVolume: async ({ name, via }) => {
      requireName(name, "volume");
      if (via !== "nvmet") {
        throw new PandoError("EINVAL", `a volume is shared via nvmet, not via ${quote(via)}`, {
          field: "via",
        });
      }
      return reply(await pool.shareVolume(name));
    },
    UnshareVolume: async ({ name, force }) => {
      requireName(name, "volume");
      return reply(await pool.unshareVolume(name, { force }));
    },
    CreateSnapshot: ({ volume, snapshot }) => {
      requireName(volume, "volume");
      requireName(snapshot, "snapshot");
      return pool.createSnapshot(volume, snapshot);
    },
    GetSnapshot: async ({ volume, snapshot, countFreed }) => {
      requireName(volume, "volume");
      requireName(snapshot, "snapshot");
      const found = await pool.getSnapshot(volume, snapshot);
      const info = countFreed ? await counted(found, pool.countFreed(volume, snapshot)) : found;
      return toSnapshotMessage(viewSnapshot(info, places));
    },
    CreateSnapshots: async ({ snapshots }) => {
      for (const { volume, snapshot } of snapshots) {
        requireName(volume, "volume");
        requireName(snapshot, "snapshot");
      }
      return { snapshots: await pool.createSnapshots(snapshots) };
    },
    DeleteSnapshot: async ({ volume, snapshot }) => {
      requireName(volume, "volume");
      requireName(snapshot, "snapshot");
      await pool.deleteSnapshot(volume, snapshot);
      return {};
    },
    BeginReceive: async ({ snapshot, base, ...request }) => {
      requireName(request.name, "volume");
      if (snapshot !== "") requireName(snapshot, "snapshot");
      requireUuid(request.contents, "contents");
      if (base !== "") requireUuid(base, "base");
      checkSize(request.sizeBytes);
      const begun = { ...request, snapshot: snapshot || null, base: base || null };
      return toReceiveMessage(viewReceive(await pool.beginReceive(begun), places));
    },
    AdvanceReceive: async ({ name, offsetBytes }) => {
      requireName(name, "volume");
      await pool.advanceReceive(name, offsetBytes);
      return {};
    },
    FinishReceive: async ({ name }) => {
      requireName(name, "volume");
      return reply(await pool.finishReceive(name));
    },
    AbortReceive: async ({ name }) => {
      requireName(name, "volume");
      await pool.abortReceive(name);
      return {};
    },
    AllowHost: async ({ volume, hostNqn }) => {
      requireName(volume, "volume");
      checkHostNqn(hostNqn);
      return reply(await pool.allowHost(volume, hostNqn));
    },
    DenyHost: async ({ volume, hostNqn }) => {
      requireName(volume, "volume");
      checkHostNqn(hostNqn);
      return reply(await pool.denyHost(volume, hostNqn));
    },
    SetHostKeys: async ({ hostNqn, hostKey, controllerKey }) => {
      checkHostNqn(hostNqn);
      await pool.setHostKeys(hostNqn, { host: hostKey, controller: controllerKey || null });
      return {};
    },
    RemoveHostKeys: async ({ hostNqn }) => {
      checkHostNqn(hostNqn);
      await pool.removeHostKeys(hostNqn);
      return {};
    },
    SetHostTlsKey: async ({ hostNqn, key }) => {
      checkHostNqn(hostNqn);
      await pool.setHostTlsKey(hostNqn, key);
      return {};
    },
    RemoveHostTlsKey: async ({ hostNqn }) => {
      checkHostNqn(hostNqn);
      await pool.removeHostTlsKey(hostNqn);
      return {};
    },
    DisconnectHost: async ({ volume, hostNqn }) => {
      requireName(volume, "volume");
      checkHostNqn(hostNqn);
      return { controllers: await pool.disconnectHost(volume, hostNqn) };
    },
  };
}

function streamHandlers(pool: PoolService, places: Places): StreamHandlers {
  return {
    ListVolumes: async ({ after }) => {
      if (after !== "") requireName(after, "volume");
      const volumes = pages((last: VolumeInfo | null) => {
        const begin = after === "" ? null : after;
        return pool.listVolumes({ after: last?.name ?? begin, limit: LIST_PAGE });
      });
      return mapAsync(inMessages(volumes), (page) => {
        return { volumes: page.map((volume) => toVolumeMessage(viewVolume(volume, places))) };
      });
    },
    ListReceives: async () => {
      const receives = await pool.listReceives();
      return mapLazily(receives, (one) => toReceiveMessage(viewReceive(one, places)));
    },
    TrimPool: async ({ startBytes }) => pool.trim(startBytes),
    BackUpMetadata: async () => mapAsync(pool.backUpMetadata(), (data) => ({ data })),
    DiffSnapshots: async ({ base, target, startBytes }) => {
      if (target === null) {
        throw new PandoError("EINVAL", "a difference needs a target", { field: "target" });
      }
      for (const one of base === null ? [target] : [base, target]) {
        requireName(one.volume, "volume");
        requireName(one.snapshot, "snapshot");
      }
      return inTurns(pool.diff({ base, target, startBytes }));
    },
    ListSnapshots: async ({ volume }) => {
      if (volume !== "") requireName(volume, "volume");
      const found = pages((last: SnapshotInfo | null) => {
        const after = last === null ? null : { volume: last.volume, snapshot: last.name };
        const page = { after, limit: LIST_PAGE };
        return pool.listSnapshots(volume === "" ? undefined : volume, page);
      });
      return mapAsync(found, (snapshots) => ({ snapshots }));
    },
    ListHostKeys: () => pool.listHostKeys(),
    ListConnections: async ({ volume }) => {
      if (volume === "") return await pool.listConnections();
      requireName(volume, "volume");
      return await pool.listConnections(volume);
    },
  };
}

function requireUuid(text: string, field: string): void {
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text)) return;
  throw new PandoError("EINVAL", `${quote(text)} is not a UUID`, { field });
}

type Handle<M extends UnaryName> = (
  request: UnaryMethods[M]["request"],
  metadata: Metadata,
) => Promise<UnaryMethods[M]["response"]>;

function serveUnary<M extends UnaryName>(
  name: M,
  handle: Handle<M>,
  log: Log,
): handleUnaryCall<UnaryMethods[M]["request"], UnaryMethods[M]["response"]> {
  return async (call, callback) => {
    try {
      const response = await handle(call.request, call.metadata);
      log.debug({ method: name }, "served");
      callback(null, response);
    } catch (error) {
      callback(toStatus(report(name, error, log)));
    }
  };
}

function serveStream<M extends StreamName>(
  name: M,
  choose: Choose,
  log: Log,
): handleServerStreamingCall<StreamMethods[M]["request"], StreamMethods[M]["response"]> {
  return async (call) => {
    try {
      for await (const message of await choose(call.metadata).stream[name](call.request)) {
        if (call.cancelled) return;
        if (!call.write(message)) await drained(call);
      }
      log.debug({ method: name }, "served");
      call.end();
    } catch (error) {
      call.emit("error", toStatus(report(name, error, log)));
    }
  };
}

function report(method: string, thrown: unknown, log: Log): PandoError {
  // What is not an error of ours is a bug; its stack goes to the log, its sentence to the caller.
  if (isPandoError(thrown)) log.info({ method, err: thrown }, "refused");
  else log.error({ method, err: thrown }, "internal error");
  // A broken invariant stops the daemon, as soon as the caller has its answer.
  if (thrown instanceof AssertionError) {
    setImmediate(() => {
      throw thrown;
    });
  }
  return asPandoError(thrown);
}

function drained<Request, Response>(call: ServerWritableStream<Request, Response>): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      call.off("drain", done);
      call.off("cancelled", done);
      resolve();
    };
    call.once("drain", done);
    call.once("cancelled", done);
  });
}

/** Each batch is made at once: others have their turn between two of them. */
async function* inTurns<T>(batches: AsyncIterable<T[]>): AsyncGenerator<{ ranges: T[] }> {
  for await (const ranges of batches) {
    yield { ranges };
    await othersTurn();
  }
}

/** What deleting it frees, counted; others have their turn meanwhile. */
async function counted<T extends SpaceInfo>(
  info: T,
  counting: AsyncGenerator<undefined, number | null>,
): Promise<T> {
  for (;;) {
    const { done, value } = await counting.next();
    if (done && typeof value === "number") {
      return { ...info, freedByDeleteBytes: value, freedByDeleteAtMost: false };
    }
    if (done) return info;
    await othersTurn();
  }
}

/**
 * A list, however long, page by page, a message each: others have their turn between two of them,
 * and neither is all of it in memory at once nor is any of it from before the page before.
 */
async function* pages<T>(list: (after: T | null) => Promise<T[]>): AsyncGenerator<T[]> {
  for (let last: T | null = null; ; ) {
    const page: T[] = await list(last);
    last = page.at(-1) ?? null;
    if (last === null) return;
    yield page;
    await othersTurn();
  }
}

/** A message has a limit of 4 MiB, and a volume's list of hosts has none. */
async function* inMessages(volumes: AsyncIterable<VolumeInfo[]>): AsyncGenerator<VolumeInfo[]> {
  for await (const page of volumes) {
    let begin = 0;
    let hosts = 0;
    for (const [at, volume] of page.entries()) {
      hosts += volume.allowedHosts.length;
      if (hosts <= HOSTS_PER_MESSAGE || at === begin) continue;
      yield page.slice(begin, at);
      begin = at;
      hosts = volume.allowedHosts.length;
    }
    yield page.slice(begin);
  }
}

async function* mapAsync<From, To>(
  items: AsyncIterable<From>,
  change: (item: From) => To,
): AsyncGenerator<To> {
  for await (const item of items) yield change(item);
}

function* mapLazily<From, To>(items: Iterable<From>, change: (item: From) => To): Iterable<To> {
  for (const item of items) yield change(item);
}

function bind(server: Server, socket: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) => {
      if (error === null) resolve();
      else {
        reject(
          new PandoError(
            "EPERM",
            `cannot listen on ${socket}: ${error.message}`,
            { path: socket, hint: "choose another place with --socket" },
            { cause: error },
          ),
        );
      }
    });
  });
}

function bindAddress(
  server: Server,
  address: Address,
  serverCredentials: ServerCredentials,
): Promise<void> {
  const place = formatAddress(address);
  return new Promise((resolve, reject) => {
    server.bindAsync(place, serverCredentials, (cause) => {
      if (cause === null) return resolve();
      const inUse = cause.message.includes("EADDRINUSE");
      const why = inUse ? "it is in use" : cause.message;
      const hint = "choose another with --api HOST:PORT, or --api none";
      reject(
        new PandoError(
          inUse ? "EBUSY" : "EINVAL",
          `cannot serve the API on ${place}: ${why}`,
          { field: "api", hint },
          { cause },
        ),
      );
    });
  });
}

function shutDown(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => server.forceShutdown(), CLOSE_TIMEOUT_MS);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}
