// What goes wrong, in CSI's own codes. Handlers throw a CsiError, or let through what the daemon or
// the initiator threw; the server answers with toCsiStatus().
import { status } from "@grpc/grpc-js";
import { type ErrorCode, isPandoError } from "../engine/base/errors.js";

export class CsiError extends Error {
  override readonly name = "CsiError";

  constructor(
    readonly status: status,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

/** The field is named as the request names it. */
export function invalid(field: string, why: string): CsiError {
  return new CsiError(status.INVALID_ARGUMENT, `${field} ${why}`);
}

export function notFound(message: string): CsiError {
  return new CsiError(status.NOT_FOUND, message);
}

const STATUS: Record<ErrorCode, status> = {
  EIO: status.INTERNAL,
  ECORRUPT: status.INTERNAL,
  ENOSPC: status.RESOURCE_EXHAUSTED,
  ENOTFOUND: status.NOT_FOUND,
  EEXIST: status.ALREADY_EXISTS,
  EBUSY: status.FAILED_PRECONDITION,
  EINVAL: status.INVALID_ARGUMENT,
  EVERSION: status.INTERNAL,
  ECLOSED: status.UNAVAILABLE,
  EPERM: status.PERMISSION_DENIED,
};

export interface CsiStatus {
  code: status;
  details: string;
  /** A bug of ours, as opposed to an answer. */
  unexpected: boolean;
}

export function toCsiStatus(error: unknown): CsiStatus {
  if (error instanceof CsiError) {
    return { code: error.status, details: error.message, unexpected: false };
  }
  if (isPandoError(error)) {
    const { hint } = error.context;
    const details = hint === undefined ? error.message : `${error.message} (${hint})`;
    return { code: STATUS[error.code], details, unexpected: false };
  }
  const what = error instanceof Error ? error.message : String(error);
  return { code: status.INTERNAL, details: `internal error: ${what}`, unexpected: true };
}
