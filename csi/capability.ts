// How a volume is to be used, and whether it can be: read-write on one node, as a file system or as
// a raw block device.
import { invalid } from "./errors.js";
import type { VolumeCapability } from "./messages.js";

export const FILE_SYSTEMS = ["ext4", "xfs", "btrfs"] as const;
export type FileSystem = (typeof FILE_SYSTEMS)[number];
export const DEFAULT_FILE_SYSTEM: FileSystem = "ext4";

const ACCESS_MODES = [
  "SINGLE_NODE_WRITER",
  "SINGLE_NODE_READER_ONLY",
  "SINGLE_NODE_SINGLE_WRITER",
  "SINGLE_NODE_MULTI_WRITER",
] as const;
export type AccessMode = (typeof ACCESS_MODES)[number];

export interface MountUsage {
  /** Null: whichever there is. */
  fileSystem: FileSystem | null;
  flags: string[];
  /** The group that files are for, or "". */
  group: string;
}

export interface Usage {
  mode: AccessMode;
  /** Null: a raw block device. */
  mount: MountUsage | null;
}

/** Null if it can be used like that, else the sentence that says why not. */
export function unsupported(capability: VolumeCapability): string | null {
  const { block = null, mount = null, accessMode } = capability;
  if ((block === null) === (mount === null)) return "is neither block nor mount";
  const mode = accessMode?.mode ?? "UNKNOWN";
  if (!isAccessMode(mode))
    return `has the access mode ${mode}; there are ${ACCESS_MODES.join(", ")}`;
  if (mount === null) return null;
  if (mount.fsType !== "" && !isFileSystem(mount.fsType)) {
    return `has the file system ${mount.fsType}; there are ${FILE_SYSTEMS.join(", ")}`;
  }
  return null;
}

/** Refuses what is absent or cannot be. */
export function readCapability(field: string, capability: VolumeCapability | null): Usage {
  if (capability === null) throw invalid(field, "is missing");
  const why = unsupported(capability);
  if (why !== null) throw invalid(field, why);
  const { mount = null, accessMode } = capability;
  const mode = accessMode?.mode ?? "";
  if (!isAccessMode(mode)) throw invalid(field, "has no access mode");
  if (mount === null) return { mode, mount: null };
  const fileSystem = isFileSystem(mount.fsType) ? mount.fsType : null;
  return {
    mode,
    mount: { fileSystem, flags: mount.mountFlags, group: mount.volumeMountGroup },
  };
}

function isAccessMode(mode: string): mode is AccessMode {
  return (ACCESS_MODES as readonly string[]).includes(mode);
}

export function isFileSystem(name: string): name is FileSystem {
  return (FILE_SYSTEMS as readonly string[]).includes(name);
}
