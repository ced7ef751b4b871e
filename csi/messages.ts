// CSI's messages, as far as this driver reads or writes them, as proto-loader makes them of
// csi.proto: numbers for int64, names for enums, null for a message that is absent, and nothing at
// all for the absent ones of a oneof.

export interface MountVolume {
  fsType: string;
  mountFlags: string[];
  volumeMountGroup: string;
}

export interface VolumeCapability {
  block?: Record<string, never> | null;
  mount?: MountVolume | null;
  accessMode: { mode: string } | null;
}

export interface CapacityRange {
  requiredBytes: number;
  limitBytes: number;
}

export interface ContentSource {
  snapshot?: { snapshotId: string } | null;
  volume?: { volumeId: string } | null;
}

export type Strings = Record<string, string>;

export interface CreateVolumeRequest {
  name: string;
  capacityRange: CapacityRange | null;
  volumeCapabilities: VolumeCapability[];
  parameters: Strings;
  volumeContentSource: ContentSource | null;
  mutableParameters: Strings;
  accessibilityRequirements: TopologyRequirement | null;
}

export interface Topology {
  segments: Strings;
}

export interface TopologyRequirement {
  requisite: Topology[];
  preferred: Topology[];
}

export interface VolumeMessage {
  capacityBytes: number;
  volumeId: string;
  volumeContext: Strings;
  contentSource: ContentSource | null;
}

export interface VolumeCondition {
  abnormal: boolean;
  message: string;
}

export interface VolumeStatusMessage {
  publishedNodeIds: string[];
  volumeCondition: VolumeCondition;
}

export interface VolumeEntry {
  volume: VolumeMessage;
  status: VolumeStatusMessage;
}

export interface ById {
  volumeId: string;
}

export interface PublishRequest {
  volumeId: string;
  nodeId: string;
  volumeCapability: VolumeCapability | null;
  readonly: boolean;
}

export interface ValidateRequest {
  volumeId: string;
  volumeContext: Strings;
  volumeCapabilities: VolumeCapability[];
  parameters: Strings;
}

export interface ListRequest {
  maxEntries: number;
  startingToken: string;
}

export interface CapacityRequest {
  volumeCapabilities: VolumeCapability[];
  parameters: Strings;
}

export interface ExpandRequest {
  volumeId: string;
  capacityRange: CapacityRange | null;
  volumeCapability: VolumeCapability | null;
}

export interface ModifyRequest {
  volumeId: string;
  mutableParameters: Strings;
}

export interface CreateSnapshotRequest {
  sourceVolumeId: string;
  name: string;
  parameters: Strings;
}

export interface ListSnapshotsRequest extends ListRequest {
  sourceVolumeId: string;
  snapshotId: string;
}

export interface SnapshotMessage {
  sizeBytes: number;
  snapshotId: string;
  sourceVolumeId: string;
  creationTime: { seconds: number; nanos: number };
  readyToUse: boolean;
  /** Empty: it is of no group. */
  groupSnapshotId: string;
}

export interface CreateGroupRequest {
  name: string;
  sourceVolumeIds: string[];
  parameters: Strings;
}

export interface GroupRequest {
  groupSnapshotId: string;
  snapshotIds: string[];
}

interface MetadataRequest {
  startingOffset: number;
  /** In one message; 0: as many as is right. */
  maxResults: number;
}

export interface AllocatedRequest extends MetadataRequest {
  snapshotId: string;
}

export interface DeltaRequest extends MetadataRequest {
  baseSnapshotId: string;
  targetSnapshotId: string;
}

export interface MetadataMessage {
  blockMetadataType: "VARIABLE_LENGTH";
  volumeCapacityBytes: number;
  blockMetadata: { byteOffset: number; sizeBytes: number }[];
}

export interface StageRequest {
  volumeId: string;
  publishContext: Strings;
  stagingTargetPath: string;
  volumeCapability: VolumeCapability | null;
  volumeContext: Strings;
}

export interface UnstageRequest {
  volumeId: string;
  stagingTargetPath: string;
}

export interface NodePublishRequest extends StageRequest {
  targetPath: string;
  readonly: boolean;
}

export interface NodeUnpublishRequest {
  volumeId: string;
  targetPath: string;
}

export interface StatsRequest {
  volumeId: string;
  volumePath: string;
  stagingTargetPath: string;
}

export interface NodeExpandRequest {
  volumeId: string;
  volumePath: string;
  capacityRange: CapacityRange | null;
  stagingTargetPath: string;
  volumeCapability: VolumeCapability | null;
}
