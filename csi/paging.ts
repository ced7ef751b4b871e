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

/** How many entries are wanted, and behind which one; null: from the first on. */
export function readPage<Id>(
  request: ListRequest,
  parse: (text: string) => Id | null,
): { most: number; after: Id | null } {
  const { maxEntries, startingToken } = request;
  if (maxEntries < 0) throw invalid("max_entries", "is negative");
  const after = startingToken === "" ? null : parse(startingToken);
  if (startingToken !== "" && after === null) {
    throw new CsiError(status.ABORTED, `starting_token is not one of this list: ${startingToken}`);
  }
  const most = maxEntries === 0 ? MAX_ENTRIES : Math.min(maxEntries, MAX_ENTRIES);
  return { most, after };
}

/** Of a list that is there as a whole. */
export function paginate<T>(
  items: T[],
  request: ListRequest,
  id: { of: (item: T) => string; parse: (text: string) => unknown },
): Page<T> {
  const { most } = readPage(request, id.parse);
  const { startingToken } = request;
  const keyed = items.map((item) => ({ key: id.of(item), item }));
  const rest = keyed
    .filter(({ key }) => key > startingToken)
    .sort((a, b) => (a.key < b.key ? -1 : 1));
  const page = rest.slice(0, most);
  const last = page.at(-1);
  const isEnd = last === undefined || page.length === rest.length;
  return { entries: page.map(({ item }) => item), nextToken: isEnd ? "" : last.key };
}
