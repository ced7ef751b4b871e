// Bitmaps of the store: pieces of a layer's span set (512 bytes) and chunks of the free map (1,024
// bytes), and the few operations on bits that both need. Bit i is bit (i mod 8) of byte (i div 8).
import { BLOCKS_PER_CHUNK, SPANS_PER_PIECE } from "../base/constants.js";
import { corrupt, seal, unseal } from "./codec-envelope.js";
import type { Space } from "./store.js";

export const PIECE_BYTES = SPANS_PER_PIECE / 8;
export const CHUNK_BYTES = BLOCKS_PER_CHUNK / 8;

export function encodeBitmap(key: Uint8Array, bits: Uint8Array): Uint8Array {
  return seal(key, bits);
}

/** A piece of `spans`; the caller's own to change. */
export function decodePiece(key: Uint8Array, value: Uint8Array): Uint8Array {
  return decodeBitmap("spans", key, value, PIECE_BYTES);
}

/** A chunk of `free`; the caller's own to change. */
export function decodeChunk(key: Uint8Array, value: Uint8Array): Uint8Array {
  return decodeBitmap("free", key, value, CHUNK_BYTES);
}

export function getBit(bits: Uint8Array, index: number): boolean {
  return (((bits[index >> 3] as number) >> (index & 7)) & 1) === 1;
}

export function setBit(bits: Uint8Array, index: number): void {
  bits[index >> 3] = (bits[index >> 3] as number) | (1 << (index & 7));
}

export function clearBit(bits: Uint8Array, index: number): void {
  bits[index >> 3] = (bits[index >> 3] as number) & ~(1 << (index & 7));
}

export function isEmpty(bits: Uint8Array): boolean {
  return bits.every((byte) => byte === 0);
}

export function countBits(bits: Uint8Array): number {
  let total = 0;
  for (const byte of bits) total += BITS_OF_BYTE[byte] as number;
  return total;
}

const BITS_OF_BYTE = Uint8Array.from(
  { length: 256 },
  (_, byte) => byte.toString(2).replaceAll("0", "").length,
);

function decodeBitmap(space: Space, key: Uint8Array, value: Uint8Array, bytes: number): Uint8Array {
  const payload = unseal(space, key, value);
  if (payload.length !== bytes) {
    throw corrupt(space, key, `the bitmap has ${payload.length} bytes, not ${bytes}`);
  }
  return new Uint8Array(payload);
}
