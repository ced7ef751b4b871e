// Structured logs: one JSON object a line on stderr; stdout belongs to results. Errors are logged
// with their code and context, never with the objects that they came from.
import { type Logger, pino } from "pino";
import { isPandoError } from "./errors.js";

export type Log = Logger;

export const LOG_LEVELS = ["fatal", "error", "warn", "info", "debug", "trace"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export function makeLog(level: LogLevel): Log {
  // Synchronous: the line that says why the daemon stops must be out before it has stopped.
  return pino(
    {
      level,
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: { err: describe },
    },
    pino.destination({ fd: 2, sync: true }),
  );
}

function describe(error: unknown): Record<string, unknown> {
  if (isPandoError(error)) {
    return { code: error.code, message: error.message, ...error.context };
  }
  if (error instanceof Error) return { message: error.message, stack: error.stack };
  return { message: String(error) };
}
