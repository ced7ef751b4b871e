// What a process says that reads a store for another one: a line of JSON each, on stdout. Every
// such process ends with an answer, or it was its death that ended it.
import { writeSync } from "node:fs";
import { AssertionError } from "./base/assert.js";
import { type ErrorCode, type ErrorContext, isPandoError, PandoError } from "./base/errors.js";
import type { CheckReport } from "./core/api.js";
import type { InspectItem } from "./core/inspect.js";
import type { RepairReport } from "./core/repair.js";

export type StoreMessage =
  /** The store is open; it waits for a line. */
  | { ready: true }
  /** What is read is the store as it is now, whatever is written from here on. */
  | { begun: true }
  /** What it is about to read: a space of the store, or the device. */
  | { at: string }
  /** It is alive. */
  | { seen: number }
  | { item: InspectItem }
  | { report: CheckReport }
  | { repaired: RepairReport }
  /** All is said. */
  | { done: true }
  | { error: { code: ErrorCode; message: string; context: ErrorContext } };

/** At once and whole: the next read may end this process. */
export function say(message: StoreMessage): void {
  const line = Buffer.from(`${JSON.stringify(message)}\n`);
  for (let done = 0; done < line.length; ) done += writeSync(1, line, done);
}

/** Runs `work`; what it throws is the answer. */
export async function answering(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    const { code, message, context } = toError(error);
    say({ error: { code, message, context } });
  }
}

function toError(error: unknown): PandoError {
  if (isPandoError(error)) return error;
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof AssertionError) {
    return new PandoError("ECORRUPT", `the store contradicts itself: ${message}`);
  }
  return new PandoError("EIO", message);
}
