// Keys of the store as text, a character for each byte: so a Map can hold them, and they sort as
// LMDB sorts them. For stores that live in memory.

/** The first place whose key is not below `key`. */
export function lowerBound(sorted: readonly string[], key: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as string) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function toText(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.length).toString("latin1");
}

export function toBytes(text: string): Uint8Array {
  return Buffer.from(text, "latin1");
}
