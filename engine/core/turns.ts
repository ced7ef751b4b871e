// Long walks give others their turns: the thread that walks also answers every host that connects,
// opens or authenticates.
//
// A pool may be closed meanwhile; its store must not be read then.
import { setImmediate as othersTurn } from "node:timers/promises";
import { PandoError } from "../base/errors.js";
import { listVolumes, type VolumeEntry } from "../store/catalogue.js";
import type { StoreReader } from "../store/store.js";

/** What is looked at before others get their turns. */
export const TURN = 500;

/** Rejects if the pool is closed meanwhile. */
export async function rest(closed: () => boolean): Promise<void> {
  await othersTurn();
  requireOpen(closed);
}

export function requireOpen(closed: () => boolean): void {
  if (closed()) throw new PandoError("ECLOSED", "the pool has been closed");
}

/** Every volume, by name, a page at a time. */
export async function* volumePages(
  store: StoreReader,
  closed: () => boolean,
): AsyncGenerator<VolumeEntry[]> {
  for (let after: string | null = null; ; await rest(closed)) {
    const page = listVolumes(store, { after, limit: TURN });
    after = page.at(-1)?.name ?? null;
    if (after === null) return;
    yield page;
  }
}
