// /metrics, /healthz and /readyz over plain HTTP, for machines on this machine: the configuration
// allows a loopback address only.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type Address, formatAddress } from "../base/address.js";
import { PandoError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { METRICS_CONTENT_TYPE, renderMetrics, type ScrapedPool } from "./metrics.js";
import { isOpen, listPools, type PoolPlace } from "./pools.js";

interface Reply {
  status: number;
  body: string;
  type?: string;
}

export interface HttpServer {
  /** The one that the system chose, if the address has none. */
  readonly port: number;
  close(): Promise<void>;
}

const REQUEST_TIMEOUT_MS = 10_000;
const MAX_CONNECTIONS = 64;
const MAX_HEADER_BYTES = 8192;

export async function startHttpServer(options: {
  pools: readonly PoolPlace[];
  address: Address;
  log: Log;
}): Promise<HttpServer> {
  const { pools, address, log } = options;
  const server = createServer(
    { maxHeaderSize: MAX_HEADER_BYTES, requestTimeout: REQUEST_TIMEOUT_MS },
    (request, response) => {
      answer(request, pools)
        .catch((error: unknown): Reply => {
          log.error({ url: request.url, err: error }, "an HTTP request failed");
          return { status: 500, body: "internal error\n" };
        })
        .then((reply) => send(response, reply));
    },
  );
  server.maxConnections = MAX_CONNECTIONS;
  await listen(server, address);
  const bound = server.address();
  return {
    port: typeof bound === "object" && bound !== null ? bound.port : address.port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(request: IncomingMessage, pools: readonly PoolPlace[]): Promise<Reply> {
  if (request.method !== "GET" && request.method !== "HEAD") {
    return { status: 405, body: "only GET\n" };
  }
  const path = (request.url ?? "/").split("?")[0];
  switch (path) {
    case "/healthz":
      // Alive is all that this says. A pool that takes no writes is not made better by a restart of
      // everything around it.
      return { status: 200, body: "ok\n" };
    case "/readyz": {
      // One that takes no writes, or is not there, must not take the others out of service.
      const failures = (await listPools(pools)).map(({ failure }) => failure);
      const said = failures.flatMap((failure) => failure ?? []).join("\n");
      const ready = failures.some((failure) => failure === null);
      return { status: ready ? 200 : 503, body: `${said || "ok"}\n` };
    }
    case "/metrics": {
      const body = await renderMetrics(await Promise.all(pools.map(scrape)));
      return { status: 200, body, type: METRICS_CONTENT_TYPE };
    }
    default:
      return { status: 404, body: "there are /metrics, /healthz and /readyz\n" };
  }
}

async function scrape(place: PoolPlace): Promise<ScrapedPool> {
  const { name } = place;
  if (!isOpen(place)) return { name, info: null, open: [] };
  const { pool } = place;
  const [info, open] = await Promise.all([pool.info(), pool.listOpenVolumes()]);
  return { name, info, open };
}

function send(response: ServerResponse, reply: Reply): void {
  response.writeHead(reply.status, {
    "content-type": reply.type ?? "text/plain; charset=utf-8",
    "content-length": Buffer.byteLength(reply.body),
  });
  // Node leaves the body out by itself where the request was HEAD.
  response.end(reply.body);
}

function listen(server: Server, address: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const why = cause.code === "EADDRINUSE" ? "it is in use" : cause.message;
      const message = `cannot serve metrics on ${formatAddress(address)}: ${why}`;
      const hint = "choose another with --metrics HOST:PORT, or --metrics none";
      reject(new PandoError("EBUSY", message, { field: "metrics", hint }, { cause }));
    });
    server.listen(address.port, address.host, () => resolve());
  });
}
