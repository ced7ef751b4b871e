// Randomness, as far as the engine knows it: passed in, so that a simulation has its own.
import { randomBytes, randomUUID } from "node:crypto";

export function newUuid(): string {
  return randomUUID();
}

export function newBytes(count: number): Uint8Array {
  return randomBytes(count);
}
