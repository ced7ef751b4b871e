// The checksum around every value of the store. LMDB has none of its own: a flipped byte in its
// file is read silently, so each value begins with a CRC32C over its key and its payload. The key
// is covered too: a value that turns up under another key is as wrong as a flipped bit.
import { native } from "../../native/native.js";
import { PandoError } from "../base/errors.js";
import type { Space } from "./store.js";

const CRC_BYTES = 4;

/** Puts the checksum in front of `payload`. */
export function seal(key: Uint8Array, payload: Uint8Array): Uint8Array {
  const value = Buffer.allocUnsafe(CRC_BYTES + payload.length);
  value.set(payload, CRC_BYTES);
  value.writeUInt32LE(native.crc32c(payload, native.crc32c(key)), 0);
  return value;
}

/** The payload of a value, a view into it; ECORRUPT if the checksum does not fit. */
export function unseal(space: Space, key: Uint8Array, value: Uint8Array): Uint8Array {
  if (value.length < CRC_BYTES) throw corrupt(space, key, "the value is shorter than its checksum");
  const payload = value.subarray(CRC_BYTES);
  const view = new DataView(value.buffer, value.byteOffset, CRC_BYTES);
  if (view.getUint32(0, true) !== native.crc32c(payload, native.crc32c(key))) {
    throw corrupt(space, key, "the checksum does not fit");
  }
  return payload;
}

/** The one sentence in which a damaged store value is reported. */
export function corrupt(space: Space, key: Uint8Array, what: string, cause?: unknown): PandoError {
  return new PandoError(
    "ECORRUPT",
    `store: ${space} ${describeKey(space, key)}: ${what}`,
    { field: space },
    { cause },
  );
}

function describeKey(space: Space, key: Uint8Array): string {
  const text = Buffer.from(key.buffer, key.byteOffset, key.length);
  const textual = space === "meta" || space === "volumes" || space === "uuids";
  if (textual || space === "snapshots") return JSON.stringify(text.toString("utf8"));
  return `0x${text.toString("hex")}`;
}
