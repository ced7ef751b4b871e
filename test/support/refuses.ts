// That something is refused with the right code and sentence; returns the error for more questions.
import * as assert from "uvu/assert";
import { type ErrorCode, isPandoError, type PandoError } from "../../engine/base/errors.js";

export function refuses(work: () => unknown, code: ErrorCode, message: RegExp): PandoError {
  try {
    work();
  } catch (error) {
    return check(error, code, message);
  }
  assert.unreachable(`not refused: ${work}`);
  throw new Error("unreachable");
}

export async function rejects(
  work: Promise<unknown>,
  code: ErrorCode,
  message: RegExp,
): Promise<PandoError> {
  let error: unknown;
  try {
    await work;
  } catch (caught) {
    error = caught;
  }
  return check(error, code, message);
}

function check(error: unknown, code: ErrorCode, message: RegExp): PandoError {
  if (!isPandoError(error)) throw error ?? new Error(`not refused; expected ${code} ${message}`);
  assert.is(error.code, code);
  assert.match(error.message, message);
  assert.not.match(error.message, /\n/);
  return error;
}
