// For tests of the CSI driver: storage nodes with fake pools behind them, daemons that fail where
// they are told to, and requests with their defaults, as proto-loader makes them.

import { status } from "@grpc/grpc-js";
import * as assert from "uvu/assert";
import { controllerServices } from "../../csi/controller.js";
import { toCsiStatus } from "../../csi/errors.js";
import type { MetadataMessage } from "../../csi/messages.js";
import type { Service } from "../../csi/server.js";
import { type Daemon, StorageNodes } from "../../csi/storage-nodes.js";
import { PandoError } from "../../engine/base/errors.js";
import { viewSnapshot, viewVolume } from "../../engine/serve/view.js";
import { FakePool } from "./fake-pool.js";

export const NODE_1 = "nqn.2014-08.org.example:node-1";
export const NODE_2 = "nqn.2014-08.org.example:node-2";
export const GIB = 1024 ** 3;

export const MOUNT = {
  block: null,
  mount: { fsType: "", mountFlags: [], volumeMountGroup: "" },
  accessMode: { mode: "SINGLE_NODE_WRITER" },
};
export const BLOCK = { block: {}, mount: null, accessMode: { mode: "SINGLE_NODE_WRITER" } };

/** Whether a daemon does what it is asked, and whether the asker hears of it. */
export interface Fault {
  /**
   * Null: it is well. "down": nothing is done. Else the number of the change after which it dies.
   */
  state: null | "down" | { dieAtChange: number; before: boolean };
  changes: number;
}

const CHANGES = [
  ...["createVolume", "deleteVolume", "resizeVolume", "setLimits", "cloneVolume"],
  ...["createSnapshot", "createSnapshots", "deleteSnapshot", "allowHost", "denyHost"],
];

export class FakeNode {
  readonly pool: FakePool;
  readonly fault: Fault = { state: null, changes: 0 };
  readonly daemon: Daemon;
  zone: string | null = null;

  constructor(readonly name: string) {
    this.pool = new FakePool(`/${name}`);
    this.daemon = failing(asDaemon(this.pool), this.fault);
  }
}

export interface World {
  nodes: FakeNode[];
  /** Calls a method of a controller that has just started. */
  call(method: string, request: object): Promise<Record<string, never>>;
  /** All that a stream says. */
  read(method: string, request: object): Promise<MetadataMessage[]>;
}

export async function callUnary(
  service: Service,
  method: string,
  request: object,
): Promise<Record<string, never>> {
  const handler = service[method];
  if (handler === undefined || "stream" in handler) throw new Error(`no ${method}`);
  return (await handler.run(request)) as Record<string, never>;
}

export function makeWorld(names: string[], maxVolumesPerNode: number | null = null): World {
  const nodes = names.map((name) => new FakeNode(name));
  const start = () => controllerServices({ nodes: new StorageNodes(nodes), maxVolumesPerNode });
  return {
    nodes,
    async call(method, request) {
      const { Controller, GroupController } = start();
      const service = { ...Controller, ...GroupController };
      return callUnary(service, method, { ...DEFAULTS[method], ...request });
    },
    async read(method, request) {
      const handler = start().SnapshotMetadata[method];
      if (handler === undefined || "run" in handler) throw new Error(`no ${method}`);
      const messages: unknown[] = [];
      for await (const one of handler.stream({ startingOffset: 0, maxResults: 0, ...request })) {
        messages.push(one);
      }
      return messages as MetadataMessage[];
    },
  };
}

/** That a call is refused, with this code and these words. */
export async function refusesWith(
  work: Promise<unknown>,
  code: status,
  details: RegExp,
): Promise<void> {
  const answer = await work.then(
    () => ({ code: status.OK, details: "done" }),
    (error: unknown) => toCsiStatus(error),
  );
  assert.is(status[answer.code], status[code], answer.details);
  assert.match(answer.details, details);
}

const LISTED = { maxEntries: 0, startingToken: "" };

/** What is absent in a message. */
const DEFAULTS: Record<string, object> = {
  CreateVolume: {
    name: "",
    capacityRange: { requiredBytes: GIB, limitBytes: 0 },
    volumeCapabilities: [MOUNT],
    parameters: {},
    volumeContentSource: null,
    mutableParameters: {},
  },
  DeleteVolume: { volumeId: "" },
  ControllerPublishVolume: {
    volumeId: "",
    nodeId: "",
    volumeCapability: MOUNT,
    readonly: false,
  },
  ControllerUnpublishVolume: { volumeId: "", nodeId: "" },
  ValidateVolumeCapabilities: {
    volumeId: "",
    volumeContext: {},
    volumeCapabilities: [MOUNT],
    parameters: {},
  },
  ListVolumes: LISTED,
  ListSnapshots: { ...LISTED, sourceVolumeId: "", snapshotId: "" },
  GetCapacity: { volumeCapabilities: [], parameters: {} },
  CreateSnapshot: { sourceVolumeId: "", name: "", parameters: {} },
  CreateVolumeGroupSnapshot: { name: "", sourceVolumeIds: [], parameters: {} },
  DeleteVolumeGroupSnapshot: { groupSnapshotId: "", snapshotIds: [] },
  GetVolumeGroupSnapshot: { groupSnapshotId: "", snapshotIds: [] },
  ControllerModifyVolume: { volumeId: "", mutableParameters: {} },
  ControllerExpandVolume: { volumeId: "", capacityRange: null, volumeCapability: MOUNT },
};

function asDaemon(pool: FakePool): Daemon {
  const places = { advertise: [{ host: "10.0.0.1", port: 4420 }], nvmet: null, nbdSocket: null };
  const view = (volume: Parameters<typeof viewVolume>[0]) => viewVolume(volume, places);
  return {
    info: () => pool.info(),
    createVolume: async (name, sizeBytes) => view(await pool.createVolume(name, sizeBytes)),
    getVolume: async (name) => view(await pool.getVolume(name)),
    listVolumes: async ({ after = "", most = Infinity } = {}) => {
      const all = (await pool.listVolumes()).filter(({ name }) => name > after);
      return all
        .sort((a, b) => (a.name < b.name ? -1 : 1))
        .slice(0, most)
        .map(view);
    },
    deleteVolume: (name) => pool.deleteVolume(name),
    resizeVolume: async (name, sizeBytes) => view(await pool.resizeVolume(name, sizeBytes)),
    setLimits: async (name, change) => view(await pool.setLimits(name, change)),
    cloneVolume: async (source, name) => view(await pool.cloneVolume(source, name)),
    createSnapshot: (volume, snapshot) => pool.createSnapshot(volume, snapshot),
    createSnapshots: (snapshots) => pool.createSnapshots(snapshots),
    getSnapshot: async (volume, snapshot) =>
      viewSnapshot(await pool.getSnapshot(volume, snapshot), places),
    listSnapshots: (volume) => pool.listSnapshots(volume),
    deleteSnapshot: (volume, snapshot) => pool.deleteSnapshot(volume, snapshot),
    allowHost: async (volume, host) => view(await pool.allowHost(volume, host)),
    denyHost: async (volume, host) => view(await pool.denyHost(volume, host)),
    listHostKeys: () => pool.listHostKeys(),
    diff: (request) => pool.diff(request),
    close: () => undefined,
  };
}

function failing(daemon: Daemon, fault: Fault): Daemon {
  return new Proxy(daemon, {
    get(target, name, receiver) {
      const value: unknown = Reflect.get(target, name, receiver);
      if (typeof value !== "function" || name === "close" || name === "diff") return value;
      return async (...args: unknown[]) => {
        if (fault.state === "down") throw silence();
        const isChange = CHANGES.includes(String(name));
        if (isChange) fault.changes += 1;
        const dies =
          isChange && fault.state !== null && fault.changes === fault.state.dieAtChange
            ? fault.state
            : null;
        if (dies?.before) throw silence();
        const answer: unknown = await value.apply(target, args);
        if (dies !== null) throw silence();
        return answer;
      };
    },
  });
}

function silence(): PandoError {
  return new PandoError("ECLOSED", "no daemon answers on 10.0.0.1:9751");
}
