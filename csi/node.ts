// The node service: its methods from where they are, and what it says it can do. It keeps no state:
// what is connected and mounted is the kernel's to say.
import type {
  NodeExpandRequest,
  NodePublishRequest,
  StageRequest,
  StatsRequest,
} from "./messages.js";
import type { NodeParts } from "./node-parts.js";
import * as publishing from "./node-publishing.js";
import * as volumes from "./node-volumes.js";
import type { Service } from "./server.js";
import * as staging from "./staging.js";
import { ZONE } from "./topology.js";

const CAPABILITIES = [
  "STAGE_UNSTAGE_VOLUME",
  "GET_VOLUME_STATS",
  "EXPAND_VOLUME",
  "VOLUME_CONDITION",
  "SINGLE_NODE_MULTI_WRITER",
  "VOLUME_MOUNT_GROUP",
];

export interface NodeOptions extends NodeParts {
  /** The host NQN: what a storage node lets in. */
  nodeId: string;
  /** Null: as many as it likes. */
  maxVolumesPerNode: number | null;
  /** Null: nobody says. */
  zone: string | null;
}

export function nodeService(options: NodeOptions): Service {
  const { nodeId, maxVolumesPerNode, zone } = options;
  const accessibleTopology = zone === null ? null : { segments: { [ZONE]: zone } };
  const subject = ({ volumeId }: { volumeId: string }) => `node ${volumeId}`;
  return {
    NodeGetCapabilities: {
      run: async () => ({ capabilities: CAPABILITIES.map((type) => ({ rpc: { type } })) }),
    },
    NodeGetInfo: {
      run: async () => ({
        nodeId,
        maxVolumesPerNode: maxVolumesPerNode ?? 0,
        accessibleTopology,
      }),
    },
    NodeStageVolume: {
      subject,
      run: (request: StageRequest) => staging.stage(options, request),
    },
    NodeUnstageVolume: {
      subject,
      run: (request: StageRequest) => staging.unstage(options, request),
    },
    NodePublishVolume: {
      subject,
      run: (request: NodePublishRequest) => publishing.publish(options, request),
    },
    NodeUnpublishVolume: {
      subject,
      run: (request: NodePublishRequest) => publishing.unpublish(options, request),
    },
    NodeGetVolumeStats: {
      run: (request: StatsRequest) => volumes.stats(options, request),
    },
    NodeExpandVolume: {
      subject,
      run: (request: NodeExpandRequest) => volumes.expand(options, request),
    },
  };
}
