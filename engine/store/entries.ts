// Reading a whole space, or a range of it, a bounded number of entries at a time.
import type { Entry, RangeOptions, Space, StoreReader } from "./store.js";

const ENTRIES_PER_READ = 1024;

export function* entriesOf(
  store: StoreReader,
  space: Space,
  { start, end }: RangeOptions = {},
): Generator<Entry> {
  const range: RangeOptions = { limit: ENTRIES_PER_READ, start: start ?? Uint8Array.of(0) };
  if (end !== undefined) range.end = end;
  for (;;) {
    const entries = store.range(space, range);
    yield* entries;
    const last = entries.at(-1);
    if (last === undefined || entries.length < ENTRIES_PER_READ) return;
    range.start = Buffer.concat([last.key, Uint8Array.of(0)]);
  }
}
