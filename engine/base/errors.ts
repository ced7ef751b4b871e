// The one error class of the project: a small closed set of codes to act on, a sentence for people,
// and where it happened.

export type ErrorCode =
  | "EIO" // a device or the store failed
  | "ECORRUPT" // what was read is not what was written
  | "ENOSPC"
  | "ENOTFOUND"
  | "EEXIST"
  | "EBUSY"
  | "EINVAL"
  | "EVERSION" // a format or interface of another version
  | "ECLOSED" // used after close
  | "EPERM";

export interface ErrorContext {
  pool?: string;
  volume?: string;
  snapshot?: string;
  layer?: number;
  span?: number;
  path?: string;
  field?: string;
  /** What the user can do about it, as a sentence or a command. */
  hint?: string;
}

export class PandoError extends Error {
  override readonly name = "PandoError";

  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly context: ErrorContext = {},
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

export function isPandoError(error: unknown, code?: ErrorCode): error is PandoError {
  return error instanceof PandoError && (code === undefined || error.code === code);
}
