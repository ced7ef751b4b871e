// A pool that nobody serves, looked at without a trace: recovery runs on an overlay of the store,
// so that what is read is the pool as its next daemon would find it.
//
// Nothing is made durable first, as an opening does: nothing is decided here by what is read.
import { OverlayStore } from "../store/overlay-store.js";
import type { StoreReader } from "../store/store.js";
import { type DeviceReader, type Recovered, type RecoveryOptions, recover } from "./recovery.js";

type ReadableDevice = Pick<DeviceReader, "sizeBytes" | "read">;
type Options = Pick<RecoveryOptions, "unflushed" | "freeMap">;

/** What recovery would make of it; `store` and `device` stay as they are. */
export async function recoverInMemory(
  store: StoreReader,
  device: ReadableDevice,
  options: Options = {},
): Promise<OverlayStore> {
  return (await recoverOverlay(store, device, options)).store;
}

/** The same, with what recovery has to say. */
export async function recoverOverlay(
  store: StoreReader,
  device: ReadableDevice,
  options: Options = {},
): Promise<{ store: OverlayStore; recovered: Recovered }> {
  const overlay = new OverlayStore(store);
  const untouched: DeviceReader = {
    sizeBytes: device.sizeBytes,
    read: (offsetBytes, lengthBytes) => device.read(offsetBytes, lengthBytes),
    flush: async () => undefined,
  };
  const recovered = await recover(overlay, untouched, options);
  return { store: overlay, recovered };
}
