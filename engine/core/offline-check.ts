// A pool that nobody serves, looked at without a trace: recovery runs on an overlay of the store,
// so that what is read is the pool as its next daemon would find it.
//
// Nothing is made durable first, as an opening does: nothing is decided here by what is read.
import { OverlayStore } from "../store/overlay-store.js";
import type { StoreReader } from "../store/store.js";
import { type DeviceReader, type RecoveryOptions, recover } from "./recovery.js";

/** What recovery would make of it; `store` and `device` stay as they are. */
export async function recoverInMemory(
  store: StoreReader,
  device: Pick<DeviceReader, "sizeBytes" | "read">,
  options: Pick<RecoveryOptions, "unflushed"> = {},
): Promise<OverlayStore> {
  const overlay = new OverlayStore(store);
  const untouched: DeviceReader = {
    sizeBytes: device.sizeBytes,
    read: (offsetBytes, lengthBytes) => device.read(offsetBytes, lengthBytes),
    flush: async () => undefined,
  };
  await recover(overlay, untouched, options);
  return overlay;
}
