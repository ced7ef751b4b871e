// Serves CSI on a Unix socket. Around every call: one at a time for its subject, the answer's code,
// and a line in the log.
//
// A request is never logged: it may hold secrets, in fields that a later version of CSI adds too.
// What is logged is named here.
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServerWritableStream,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { PandoError } from "../engine/base/errors.js";
import type { Log } from "../engine/base/log.js";
import { toCsiStatus } from "./errors.js";
import { InFlight } from "./in-flight.js";
import { type ServiceName, serviceDefinition } from "./protocol.js";
import { prepareCsiSocket } from "./socket.js";

interface UnaryMethod<Request, Response> {
  /** What the call is about: the next one about the same waits for its turn elsewhere. */
  subject?: (request: Request) => string;
  run: (request: Request) => Promise<Response>;
}

/** Changes nothing, so any number of them may be under way. */
interface StreamMethod<Request, Message> {
  stream: (request: Request) => AsyncIterable<Message>;
}

// biome-ignore lint/suspicious/noExplicitAny: each method has messages of its own
export type Service = Record<string, UnaryMethod<any, unknown> | StreamMethod<any, unknown>>;

export interface CsiServer {
  close(): Promise<void>;
}

const LOGGED = [
  ...["name", "volumeId", "snapshotId", "sourceVolumeId", "nodeId"],
  ...["groupSnapshotId", "baseSnapshotId", "targetSnapshotId", "startingOffset"],
  ...["stagingTargetPath", "targetPath", "volumePath"],
];
const CLOSE_TIMEOUT_MS = 10_000;
/** CSI's requests and answers are small, but for lists. */
const MAX_REQUEST_BYTES = 4 * 1024 * 1024;

export async function startCsiServer(options: {
  socket: string;
  services: Partial<Record<ServiceName, Service>>;
  log: Log;
}): Promise<CsiServer> {
  const { socket, services, log } = options;
  const server = new Server({ "grpc.max_receive_message_length": MAX_REQUEST_BYTES });
  const inFlight = new InFlight();
  for (const [name, service] of Object.entries(services)) {
    const implementation: UntypedServiceImplementation = {};
    for (const [method, handler] of Object.entries(service)) {
      implementation[method] =
        "stream" in handler
          ? serveStream(method, handler, log)
          : serve(method, handler, { inFlight, log });
    }
    server.addService(serviceDefinition(name as ServiceName), implementation);
  }
  const removeSocket = prepareCsiSocket(socket);
  await bind(server, socket);
  return {
    async close() {
      await shutDown(server);
      removeSocket();
    },
  };
}

type Request = Record<string, unknown>;

function serve(
  method: string,
  handler: UnaryMethod<Request, unknown>,
  around: { inFlight: InFlight; log: Log },
): handleUnaryCall<Request, unknown> {
  const { inFlight, log } = around;
  return async (call, callback) => {
    const report = reporter(method, call.request);
    try {
      const subject = handler.subject?.(call.request);
      const work = () => handler.run(call.request);
      const response = subject === undefined ? await work() : await inFlight.run(subject, work);
      log[handler.subject === undefined ? "debug" : "info"](report(), "done");
      callback(null, response);
    } catch (error) {
      callback(refuse(error, report(), log));
    }
  };
}

/** Written no faster than it is read, and no further than it is wanted. */
function serveStream(
  method: string,
  handler: StreamMethod<Request, unknown>,
  log: Log,
): handleServerStreamingCall<Request, unknown> {
  return async (call) => {
    const report = reporter(method, call.request);
    try {
      for await (const message of handler.stream(call.request)) {
        if (call.cancelled) return;
        if (!call.write(message)) await drained(call);
      }
      log.info(report(), "done");
      call.end();
    } catch (error) {
      call.emit("error", refuse(error, report(), log));
    }
  };
}

function drained(call: ServerWritableStream<Request, unknown>): Promise<void> {
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

/** What the log may say of a call, whenever it is asked. */
function reporter(method: string, request: Request): () => object {
  const startedAt = performance.now();
  return () => ({
    method,
    ...Object.fromEntries(LOGGED.map((field) => [field, request[field] || undefined])),
    elapsedMs: Math.round(performance.now() - startedAt),
  });
}

function refuse(error: unknown, report: object, log: Log): { code: status; details: string } {
  const { code, details, unexpected } = toCsiStatus(error);
  if (unexpected) log.error({ ...report, err: error }, "internal error");
  else log.info({ ...report, code: status[code], details }, "refused");
  return { code, details };
}

function bind(server: Server, socket: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (cause) => {
      if (cause === null) return resolve();
      const context = { path: socket, hint: "choose another place with --endpoint" };
      reject(
        new PandoError("EPERM", `cannot listen on ${socket}: ${cause.message}`, context, { cause }),
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
