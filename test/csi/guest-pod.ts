// A volume as a pod in a guest has it: the calls that Kubernetes makes for it, in their order.
import { existsSync, mkdirSync } from "node:fs";
import * as assert from "uvu/assert";
import type { CsiClient } from "../support/csi-client.js";

export type Fields = Record<string, unknown>;

const ROOT = "/tmp/csi";

export interface PodOptions {
  name: string;
  volumeId: string;
  capability: object;
  /** Its host NQN. */
  node: string;
  parameters?: object;
}

/** What the steps took. */
export interface StartTimes {
  attachMs: number;
  stageMs: number;
  publishMs: number;
}

/** One volume on one node, with the paths that kubelet would give it. */
export class Pod {
  readonly staging: string;
  readonly target: string;

  constructor(
    readonly csi: CsiClient,
    readonly of: PodOptions,
  ) {
    this.staging = `${ROOT}/${of.name}/staging`;
    this.target = `${ROOT}/${of.name}/target`;
  }

  async start(): Promise<StartTimes> {
    const { staging, target, csi } = this;
    const { name, volumeId, capability, parameters = {} } = this.of;
    mkdirSync(staging, { recursive: true });
    const attached = await timeOf(this.attach());
    const { publishContext } = attached.answer;
    const volume = { volumeId, volumeCapability: capability, volumeContext: parameters };
    const common = { ...volume, publishContext, stagingTargetPath: staging };
    const staged = await timeOf(csi.call("Node", "NodeStageVolume", common));
    const published = await timeOf(
      csi.call("Node", "NodePublishVolume", { ...common, targetPath: target }),
    );
    const [attachMs, stageMs, publishMs] = [attached.ms, staged.ms, published.ms];
    const ms = Math.round(attachMs + stageMs + publishMs);
    console.log(`${name}: from ControllerPublish to NodePublish ${ms} ms`);
    return { attachMs, stageMs, publishMs };
  }

  attach(): Promise<Fields> {
    const { volumeId, capability, node } = this.of;
    const request = { volumeId, nodeId: node, volumeCapability: capability };
    return this.csi.call("Controller", "ControllerPublishVolume", request);
  }

  async stop(): Promise<void> {
    await this.leave();
    await this.detach();
  }

  /** What the node does of it. */
  async leave(): Promise<void> {
    const { staging, target, csi } = this;
    const { volumeId } = this.of;
    await csi.call("Node", "NodeUnpublishVolume", { volumeId, targetPath: target });
    await csi.call("Node", "NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
    assert.is(existsSync(target), false, "the target path is gone");
  }

  detach(): Promise<Fields> {
    const { volumeId, node } = this.of;
    return this.csi.call("Controller", "ControllerUnpublishVolume", { volumeId, nodeId: node });
  }
}

export interface Wanted {
  capability: object;
  sizeBytes: number;
  contentSource?: object;
  parameters?: object;
}

export async function create(csi: CsiClient, name: string, wanted: Wanted): Promise<string> {
  const { volume } = await csi.call("Controller", "CreateVolume", {
    name,
    capacityRange: { requiredBytes: wanted.sizeBytes },
    volumeCapabilities: [wanted.capability],
    volumeContentSource: wanted.contentSource,
    parameters: wanted.parameters,
  });
  return (volume as { volumeId: string }).volumeId;
}

export function remove(csi: CsiClient, volumeId: string): Promise<Fields> {
  return csi.call("Controller", "DeleteVolume", { volumeId });
}

async function timeOf<T>(work: Promise<T>): Promise<{ answer: T; ms: number }> {
  const startedAt = performance.now();
  const answer = await work;
  return { answer, ms: performance.now() - startedAt };
}
