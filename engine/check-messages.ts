// What the process that checks a store says, a line of JSON each.
import type { ErrorCode, ErrorContext } from "./base/errors.js";
import type { CheckReport } from "./core/api.js";

export type CheckMessage =
  /** The store is open; it waits for a line. */
  | { ready: true }
  /** What is checked is the store as it is now, whatever is written from here on. */
  | { begun: true }
  /** What it is about to read: a space of the store, or the device. */
  | { at: string }
  /** It is alive. */
  | { seen: number }
  | { report: CheckReport }
  | { error: { code: ErrorCode; message: string; context: ErrorContext } };
