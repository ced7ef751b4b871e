// Pando as a subject: a new pool, served by the real daemon in a process of its own, or open in
// this process where the engine alone is measured.
import { rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { makeLog } from "../../engine/base/log.js";
import { createPool, poolPaths } from "../../engine/core/format.js";
import { type OpenedPool, openRealPool } from "../../engine/open-pool.js";
import { PandoClient } from "../../engine/serve/client.js";
import { ServerProcess } from "./server-process.js";
import { writeInFull } from "./written-file.js";

const INDEX_CACHE_BYTES = 64 * 1024 * 1024;
const DAEMON = fileURLToPath(new URL("../../engine/cli/pandod.js", import.meta.url));

/** `poolBytes`: of the data file; fully allocated unless sparse, and written in full if asked. */
export interface PoolSize {
  poolBytes: number;
  sparse?: boolean;
  written?: boolean;
}

/** In this process. */
export async function openEngine(path: string, size: PoolSize): Promise<OpenedPool> {
  await makePool(path, size);
  const log = makeLog("warn");
  return openRealPool({ path, metaPath: null, indexCacheBytes: INDEX_CACHE_BYTES, log });
}

export interface PandoServer {
  client: PandoClient;
  /** HTTP, on loopback. */
  metricsUrl: string;
  /** NVMe/TCP, on loopback. */
  target: { address: string; port: number };
  process: ServerProcess;
  /** Of fio's nbd engine. */
  uri(volume: string): string;
  /** Ends the daemon and starts it again; milliseconds until it serves. */
  restart(signal?: NodeJS.Signals): Promise<number>;
  stop(): Promise<void>;
}

let servers = 0;

/** A daemon on a new pool at `path`; `more`: arguments of it. */
export async function servePando(
  path: string,
  size: PoolSize,
  more: readonly string[] = [],
): Promise<PandoServer> {
  await makePool(path, size);
  return serveExisting(path, more);
}

/** A daemon on the pool that is at `path`. */
export async function serveExisting(
  path: string,
  more: readonly string[] = [],
): Promise<PandoServer> {
  servers += 1;
  const [metricsPort, targetPort] = await freePorts();
  // Not below `path`: a socket's path is short.
  const base = join(tmpdir(), `pando-bench-${process.pid}-${servers}`);
  const control = `${base}.sock`;
  const nbd = `${base}.nbd`;
  const start = () =>
    ServerProcess.start({
      name: "pandod",
      command: process.execPath,
      args: [
        ...[DAEMON, "--pool", path, "--socket", control, "--nbd-socket", nbd],
        ...["--metrics", `127.0.0.1:${metricsPort}`, "--target", `127.0.0.1:${targetPort}`],
        ...["--log-level", "warn"],
        ...more,
      ],
      sockets: [control, nbd],
    });
  const client = new PandoClient(control);
  const server: PandoServer = {
    client,
    process: await start(),
    metricsUrl: `http://127.0.0.1:${metricsPort}/metrics`,
    target: { address: "127.0.0.1", port: targetPort },
    uri: (volume) => `nbd+unix:///${volume}?socket=${nbd}`,
    async restart(signal) {
      await server.process.stop(signal);
      const started = performance.now();
      server.process = await start();
      return performance.now() - started;
    },
    async stop() {
      client.close();
      await server.process.stop();
    },
  };
  return server;
}

async function makePool(path: string, size: PoolSize): Promise<void> {
  const { poolBytes, sparse = false, written = false } = size;
  rmSync(path, { recursive: true, force: true });
  await createPool(path, { sizeBytes: poolBytes, sparse });
  if (written) await writeInFull(poolPaths(path).data);
}

/** Two that nobody listens on now. */
export async function freePorts(): Promise<[number, number]> {
  const listeners = [createServer(), createServer()];
  const ports: number[] = [];
  for (const listener of listeners) {
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    ports.push((listener.address() as AddressInfo).port);
  }
  for (const listener of listeners) {
    await new Promise<void>((resolve) => listener.close(() => resolve()));
  }
  return [ports[0] as number, ports[1] as number];
}
