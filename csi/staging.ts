// NodeStageVolume: connects this node to a volume, and mounts its file system at the staging path.
// A raw block device is connected, and nothing more.
import { status } from "@grpc/grpc-js";
import type { BlockDevice } from "../nvmf/initiator.js";
import {
  DEFAULT_FILE_SYSTEM,
  type FileSystem,
  isFileSystem,
  type MountUsage,
  readCapability,
} from "./capability.js";
import { CsiError, invalid } from "./errors.js";
import { mountFlags } from "./filesystem.js";
import type { StageRequest, UnstageRequest } from "./messages.js";
import type { Mount } from "./mount-table.js";
import { isOn, mountsOf, type NodeParts, nqnOf, requirePath } from "./node-parts.js";
import { giveToGroup } from "./node-paths.js";
import { prepareTls } from "./node-tls.js";
import { readConnection } from "./parameters.js";

export async function stage(parts: NodeParts, request: StageRequest): Promise<object> {
  const { volumeId, stagingTargetPath, publishContext } = request;
  if (volumeId === "") throw invalid("volume_id", "is missing");
  requirePath("staging_target_path", stagingTargetPath);
  const { mount: usage } = readCapability("volume_capability", request.volumeCapability);
  const settings = readConnection(request.volumeContext);
  const nqn = nqnOf(volumeId);
  const { traddr, trsvcid } = publishContext;
  if (publishContext.nqn !== nqn) throw invalid("publish_context[nqn]", `is not ${nqn}`);
  if (traddr === undefined) throw invalid("publish_context[traddr]", "is missing");
  if (trsvcid === undefined) throw invalid("publish_context[trsvcid]", "is missing");
  const tls = await prepareTls(parts.tls, { nqn, publishContext });
  const device = await parts.initiator.connect({ nqn, traddr, trsvcid, tls }, settings);
  if (usage === null) return {};
  const fileSystem = await mountStaged(parts, { device, path: stagingTargetPath, usage });
  // A clone may be larger than its origin, and nobody else will say so.
  await parts.fileSystems.grow({ device: device.path, path: stagingTargetPath, fileSystem });
  if (usage.group !== "") await giveToGroup(stagingTargetPath, usage.group);
  return {};
}

export async function unstage(parts: NodeParts, request: UnstageRequest): Promise<object> {
  const { volumeId, stagingTargetPath } = request;
  if (volumeId === "") throw invalid("volume_id", "is missing");
  requirePath("staging_target_path", stagingTargetPath);
  await parts.mounts.unmount(stagingTargetPath);
  const nqn = nqnOf(volumeId);
  const device = await parts.initiator.find(nqn);
  const [left] = device === null ? [] : await mountsOf(parts, device);
  if (left !== undefined) {
    const message = `volume ${volumeId} is still mounted at ${left.path}`;
    throw new CsiError(status.FAILED_PRECONDITION, message);
  }
  await parts.initiator.disconnect(nqn);
  await parts.tls?.forget(nqn);
  return {};
}

async function mountStaged(
  parts: NodeParts,
  staged: { device: BlockDevice; path: string; usage: MountUsage },
): Promise<FileSystem> {
  const { device, path, usage } = staged;
  const there = await parts.mounts.at(path);
  if (there !== null) {
    if (isOn(there, device)) return sameFileSystem(there, usage);
    // Of a device that has gone: nothing can be read or written there any more.
    await parts.mounts.unmount(path);
  }
  const found = await parts.fileSystems.probe(device.path);
  const fileSystem = found ?? usage.fileSystem ?? DEFAULT_FILE_SYSTEM;
  if (usage.fileSystem !== null && usage.fileSystem !== fileSystem) {
    const message = `the volume holds ${fileSystem}, and ${usage.fileSystem} is asked for`;
    throw new CsiError(status.FAILED_PRECONDITION, message);
  }
  if (found === null) await parts.fileSystems.make(device.path, fileSystem);
  else await parts.fileSystems.check(device.path, fileSystem);
  const flags = mountFlags(fileSystem, usage.flags);
  await parts.mounts.mount({ source: device.path, target: path, fileSystem, flags });
  return fileSystem;
}

function sameFileSystem(mount: Mount, usage: MountUsage): FileSystem {
  const { fileSystem } = mount;
  const same = usage.fileSystem === null || usage.fileSystem === fileSystem;
  if (same && isFileSystem(fileSystem)) return fileSystem;
  const message = `the volume is staged already, with ${fileSystem}`;
  throw new CsiError(status.ALREADY_EXISTS, message);
}
