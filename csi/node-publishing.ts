// NodePublishVolume: puts a staged volume where a pod wants it, a file system as a second mount of
// the staging path, a block device as its node bound onto a file.
import { status } from "@grpc/grpc-js";
import { readCapability, type Usage } from "./capability.js";
import { CsiError, invalid } from "./errors.js";
import type { NodePublishRequest, NodeUnpublishRequest } from "./messages.js";
import { isOn, mountsOf, type NodeParts, needDevice, requirePath } from "./node-parts.js";
import { blockDeviceAt, makeFile, makeFolder, removePlace } from "./node-paths.js";

export async function publish(parts: NodeParts, request: NodePublishRequest): Promise<object> {
  const { volumeId, stagingTargetPath, targetPath } = request;
  if (volumeId === "") throw invalid("volume_id", "is missing");
  requirePath("target_path", targetPath);
  const usage = readCapability("volume_capability", request.volumeCapability);
  if (stagingTargetPath === "") {
    throw new CsiError(status.FAILED_PRECONDITION, "staging_target_path is missing");
  }
  requirePath("staging_target_path", stagingTargetPath);
  const readonly = request.readonly || usage.mode === "SINGLE_NODE_READER_ONLY";
  if (usage.mount === null) await publishBlock(parts, request);
  else await publishMount(parts, { request, usage, readonly });
  return {};
}

export async function unpublish(parts: NodeParts, request: NodeUnpublishRequest): Promise<object> {
  const { volumeId, targetPath } = request;
  if (volumeId === "") throw invalid("volume_id", "is missing");
  requirePath("target_path", targetPath);
  await parts.mounts.unmount(targetPath);
  await removePlace(targetPath);
  return {};
}

async function publishMount(
  parts: NodeParts,
  publishing: { request: NodePublishRequest; usage: Usage; readonly: boolean },
): Promise<void> {
  const { request, usage, readonly } = publishing;
  const { volumeId, stagingTargetPath, targetPath } = request;
  const device = await needDevice(parts, volumeId);
  const staged = await parts.mounts.at(stagingTargetPath);
  if (staged === null || !isOn(staged, device)) {
    const message = `volume ${volumeId} is not staged at ${stagingTargetPath}`;
    throw new CsiError(status.FAILED_PRECONDITION, message);
  }
  const there = await parts.mounts.at(targetPath);
  if (there !== null && isOn(there, device)) {
    if (there.readonly === readonly) return;
    const how = there.readonly ? "read-only" : "read-write";
    const message = `volume ${volumeId} is published at ${targetPath} already, ${how}`;
    throw new CsiError(status.ALREADY_EXISTS, message);
  }
  if (usage.mode === "SINGLE_NODE_SINGLE_WRITER") {
    const other = (await mountsOf(parts, device)).find(({ path }) => path !== staged.path);
    if (other !== undefined) {
      const message = `volume ${volumeId} is for one pod, and published at ${other.path}`;
      throw new CsiError(status.FAILED_PRECONDITION, message);
    }
  }
  // Of a device that has gone.
  if (there !== null) await parts.mounts.unmount(targetPath);
  await makeFolder(targetPath);
  await parts.mounts.bind(stagingTargetPath, targetPath, { readonly });
}

/** Who may write to a raw device is decided where the pod is given it: a bind mount cannot. */
async function publishBlock(parts: NodeParts, request: NodePublishRequest): Promise<void> {
  const { volumeId, targetPath } = request;
  const device = await needDevice(parts, volumeId);
  if ((await parts.mounts.at(targetPath)) !== null) {
    if ((await blockDeviceAt(targetPath)) === device.number) return;
    await parts.mounts.unmount(targetPath);
  }
  const usage = readCapability("volume_capability", request.volumeCapability);
  if (usage.mode === "SINGLE_NODE_SINGLE_WRITER")
    await refuseSecondBlock(parts, device.name, request);
  await makeFile(targetPath);
  await parts.mounts.bind(device.path, targetPath, { readonly: false });
}

/** The node of a device is a file of devtmpfs, and its mounts name it as their root. */
async function refuseSecondBlock(
  parts: NodeParts,
  deviceName: string,
  { volumeId }: NodePublishRequest,
): Promise<void> {
  const others = (await parts.mounts.list()).filter(({ root }) => root === `/${deviceName}`);
  const [other] = others;
  if (other === undefined) return;
  const message = `volume ${volumeId} is for one pod, and published at ${other.path}`;
  throw new CsiError(status.FAILED_PRECONDITION, message);
}
