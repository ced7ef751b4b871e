// PandoError to gRPC status and back. The status is for programs that know gRPC; our own client
// reads the code and the context (with the hint) from the trailing metadata and throws the very
// error that the engine threw.
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { type ErrorCode, type ErrorContext, isPandoError, PandoError } from "../base/errors.js";

const CODE_KEY = "pando-code";
const CONTEXT_KEY = "pando-context-bin";

const STATUS: Record<ErrorCode, status> = {
  EIO: status.INTERNAL,
  ECORRUPT: status.DATA_LOSS,
  ENOSPC: status.RESOURCE_EXHAUSTED,
  ENOTFOUND: status.NOT_FOUND,
  EEXIST: status.ALREADY_EXISTS,
  EBUSY: status.FAILED_PRECONDITION,
  EINVAL: status.INVALID_ARGUMENT,
  EVERSION: status.UNIMPLEMENTED,
  ECLOSED: status.UNAVAILABLE,
  EPERM: status.PERMISSION_DENIED,
};

const CODES = new Map<status, ErrorCode>(
  (Object.entries(STATUS) as [ErrorCode, status][]).map(([code, value]) => [value, code]),
);

export interface StatusReply {
  code: status;
  details: string;
  metadata: Metadata;
}

export function toStatus(error: PandoError): StatusReply {
  const metadata = new Metadata();
  metadata.set(CODE_KEY, error.code);
  metadata.set(CONTEXT_KEY, Buffer.from(JSON.stringify(error.context)));
  return { code: STATUS[error.code], details: error.message, metadata };
}

/** What the peer did not mark as ours (the transport's own errors) gets the nearest code. */
export function fromStatus(error: ServiceError): PandoError {
  const code = error.metadata?.get(CODE_KEY)[0];
  const known = isErrorCode(code) ? code : (CODES.get(error.code) ?? "EIO");
  return new PandoError(known, error.details || error.message, readContext(error.metadata), {
    cause: error,
  });
}

/** True if no daemon answered, as opposed to one that answered with an error. */
export function isNoAnswer(error: ServiceError): boolean {
  const silent = error.code === status.UNAVAILABLE || error.code === status.DEADLINE_EXCEEDED;
  return silent && (error.metadata?.get(CODE_KEY).length ?? 0) === 0;
}

/**
 * Whatever a handler threw, as an error of ours. What is not one is a bug: it is logged where it is
 * caught.
 */
export function asPandoError(error: unknown): PandoError {
  if (isPandoError(error)) return error;
  const what = error instanceof Error ? error.message : String(error);
  return new PandoError("EIO", `internal error: ${what}`, {}, { cause: error });
}

function readContext(metadata: Metadata | undefined): ErrorContext {
  const value = metadata?.get(CONTEXT_KEY)[0];
  if (!Buffer.isBuffer(value)) return {};
  try {
    const parsed: unknown = JSON.parse(value.toString("utf8"));
    return typeof parsed === "object" && parsed !== null ? (parsed as ErrorContext) : {};
  } catch {
    // A context that does not parse is worth less than the error that it came with.
    return {};
  }
}

function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === "string" && Object.hasOwn(STATUS, value);
}
