// Who the driver is, and what it can do beyond CSI's least.
import type { Service } from "./server.js";

/** In CSIDriver, in every StorageClass and in every id of Kubernetes': never another one. */
export const DEFAULT_DRIVER_NAME = "csi.pando.io";

export interface IdentityOptions {
  driverName: string;
  version: string;
  /** Whether Kubernetes is to say where a new volume's pod is. */
  zones: boolean;
}

export function identityService({ driverName, version, zones }: IdentityOptions): Service {
  return {
    GetPluginInfo: { run: async () => ({ name: driverName, vendorVersion: version }) },
    GetPluginCapabilities: {
      run: async () => ({
        capabilities: [
          { service: { type: "CONTROLLER_SERVICE" } },
          { service: { type: "GROUP_CONTROLLER_SERVICE" } },
          { service: { type: "SNAPSHOT_METADATA_SERVICE" } },
          ...(zones ? [{ service: { type: "VOLUME_ACCESSIBILITY_CONSTRAINTS" } }] : []),
          { volumeExpansion: { type: "ONLINE" } },
        ],
      }),
    },
    // That it answers is all that this says: a storage node that is down is not mended by a restart
    // of the driver.
    Probe: { run: async () => ({ ready: { value: true } }) },
  };
}
