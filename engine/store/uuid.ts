// UUIDs as text (lower case, with dashes) and as the 16 bytes that superblocks and journal blocks
// carry.
import { assert } from "../base/assert.js";

export const UUID_BYTES = 16;

export function uuidToBytes(uuid: string): Uint8Array {
  const hex = uuid.replaceAll("-", "");
  assert(/^[0-9a-f]{32}$/.test(hex), `${uuid} is not a UUID`);
  return Buffer.from(hex, "hex");
}

export function uuidFromBytes(bytes: Uint8Array): string {
  assert(bytes.length === UUID_BYTES, "a UUID has 16 bytes");
  const hex = Buffer.from(bytes).toString("hex");
  const parts = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20)];
  return [...parts, hex.slice(20)].join("-");
}
