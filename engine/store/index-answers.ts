// Answers the data path's questions for index blocks: the nearest one, from a layer towards the
// root. Runs in the index worker, over a store that another thread writes.
//
// All questions of a batch are answered from one state of the store, which is not older than the
// batch: a layer's index block leaves the data path's memory only when it is in the store, and an
// answer from before would be an ancestor's data. What Lineage remembers must be true of that same
// state: it is forgotten when the store's count of such changes has risen.
import type { IndexRequest } from "../../native/native.js";
import { findLayer, lineageChanges } from "./layers.js";
import { Lineage, lookupNearest } from "./lineage.js";
import type { StoreReader } from "./store.js";

/** A store that is written elsewhere. */
export interface FollowingReader extends StoreReader {
  /**
   * From now on, and until this function's caller waits for anything, reads see one state: what is
   * visible now.
   */
  refresh(): void;
}

export interface IndexReplies {
  /** Owner 0 and null: nobody up to the root has an index block for the span. */
  answer(token: number, owner: number, block: Uint8Array | null): void;
  fail(token: number, error: unknown): void;
  /**
   * There is no such layer any more: it was folded into its child, and the look-up has to begin
   * again at the volume's live layer.
   */
  gone(token: number): void;
}

export class IndexAnswers {
  readonly #reader: FollowingReader;
  readonly #lineage = new Lineage();
  #changes = -1;

  constructor(reader: FollowingReader) {
    this.#reader = reader;
  }

  answerAll(requests: readonly IndexRequest[], replies: IndexReplies): void {
    this.#follow();
    for (const { token, layer, span } of requests) {
      try {
        const found = lookupNearest(this.#reader, this.#lineage, layer, span);
        replies.answer(token, found?.owner ?? 0, found?.block.raw ?? null);
      } catch (error) {
        if (findLayer(this.#reader, layer) === undefined) replies.gone(token);
        else replies.fail(token, error);
      }
    }
  }

  /**
   * LMDB's own transaction numbers do not serve here: the newest is known a moment before a reader
   * gets it.
   */
  #follow(): void {
    this.#reader.refresh();
    const changes = lineageChanges(this.#reader);
    if (changes === this.#changes) return;
    this.#lineage.clear();
    this.#changes = changes;
  }
}
