// The controller service: its methods from where they are, and what it says it can do.
import { inventoryMethods } from "./inventory.js";
import { publishMethods } from "./publishing.js";
import type { Service } from "./server.js";
import { SnapshotNames } from "./snapshot-names.js";
import { snapshotMethods } from "./snapshots.js";
import type { StorageNodes } from "./storage-nodes.js";
import { volumeMethods } from "./volumes.js";

const CAPABILITIES = [
  "CREATE_DELETE_VOLUME",
  "PUBLISH_UNPUBLISH_VOLUME",
  "LIST_VOLUMES",
  "LIST_VOLUMES_PUBLISHED_NODES",
  "GET_CAPACITY",
  "CREATE_DELETE_SNAPSHOT",
  "LIST_SNAPSHOTS",
  "GET_SNAPSHOT",
  "CLONE_VOLUME",
  "EXPAND_VOLUME",
  "GET_VOLUME",
  "VOLUME_CONDITION",
  "SINGLE_NODE_MULTI_WRITER",
];

export function controllerService(options: {
  nodes: StorageNodes;
  maxVolumesPerNode: number | null;
}): Service {
  const { nodes } = options;
  return {
    ControllerGetCapabilities: {
      run: async () => ({ capabilities: CAPABILITIES.map((type) => ({ rpc: { type } })) }),
    },
    ...volumeMethods(nodes),
    ...publishMethods(options),
    ...inventoryMethods(nodes),
    ...snapshotMethods({ nodes, names: new SnapshotNames(nodes) }),
  };
}
