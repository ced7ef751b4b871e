// Pages of lists, without remembering anything between them: a token is the id that the last page
// ended with, and the next one goes on behind it.
import { status } from "@grpc/grpc-js";
import { CsiError, invalid } from "./errors.js";
import type { ListRequest } from "./messages.js";

export interface Page<T> {
  entries: T[];
  nextToken: string;
}

/**
 * Whoever sets no limit gets the rest by tokens, too: the sidecars take no message of more than 4
 * MiB, and an entry has up to some 700 bytes.
 */
const MAX_ENTRIES = 4096;

export function paginate<T>(
  items: T[],
  request: ListRequest,
  id: { of: (item: T) => string; isOne: (text: string) => boolean },
): Page<T> {
  const { maxEntries, startingToken } = request;
  if (maxEntries < 0) throw invalid("max_entries", "is negative");
  if (startingToken !== "" && !id.isOne(startingToken)) {
    throw new CsiError(status.ABORTED, `starting_token is not one of this list: ${startingToken}`);
  }
  const keyed = items.map((item) => ({ key: id.of(item), item }));
  const rest = keyed
    .filter(({ key }) => key > startingToken)
    .sort((a, b) => (a.key < b.key ? -1 : 1));
  const most = maxEntries === 0 ? MAX_ENTRIES : Math.min(maxEntries, MAX_ENTRIES);
  const page = rest.slice(0, most);
  const last = page.at(-1);
  const isEnd = last === undefined || page.length === rest.length;
  return { entries: page.map(({ item }) => item), nextToken: isEnd ? "" : last.key };
}
