// Randomness, as far as the engine knows it: passed in, so that a simulation has its own.
import { randomUUID } from "node:crypto";

export function newUuid(): string {
  return randomUUID();
}
