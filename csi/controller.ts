// The controller services: their methods from where they are, and what they say they can do.

import { groupMethods } from "./group-snapshots.js";
import { inventoryMethods } from "./inventory.js";
import { publishMethods } from "./publishing.js";
import type { Service } from "./server.js";
import { metadataMethods } from "./snapshot-metadata.js";
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
  "MODIFY_VOLUME",
  "GET_VOLUME",
  "VOLUME_CONDITION",
  "SINGLE_NODE_MULTI_WRITER",
];

export interface ControllerServices {
  Controller: Service;
  GroupController: Service;
  SnapshotMetadata: Service;
}

export function controllerServices(options: {
  nodes: StorageNodes;
  maxVolumesPerNode: number | null;
}): ControllerServices {
  const { nodes } = options;
  const parts = { nodes, names: new SnapshotNames(nodes) };
  const controller: Service = {
    ControllerGetCapabilities: {
      run: async () => ({ capabilities: CAPABILITIES.map((type) => ({ rpc: { type } })) }),
    },
    ...volumeMethods(nodes),
    ...publishMethods(options),
    ...inventoryMethods(nodes),
    ...snapshotMethods(parts),
  };
  const group: Service = {
    GroupControllerGetCapabilities: {
      run: async () => ({
        capabilities: [{ rpc: { type: "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT" } }],
      }),
    },
    ...groupMethods(parts),
  };
  return {
    Controller: controller,
    GroupController: group,
    SnapshotMetadata: metadataMethods(nodes),
  };
}
