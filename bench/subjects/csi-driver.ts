// The CSI controller as Kubernetes' sidecars have it: a process with a socket, and behind it a
// daemon that it reaches over TCP.
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Client, credentials, type ServiceError } from "@grpc/grpc-js";
import { serviceDefinition } from "../../csi/protocol.js";
import { servePando } from "./pando.js";
import { ServerProcess } from "./server-process.js";

const DRIVER = fileURLToPath(new URL("../../csi/main.js", import.meta.url));

export interface CsiDriver {
  createVolume(name: string, from: { snapshotId: string } | { sizeBytes: number }): Promise<string>;
  createSnapshot(volumeId: string, name: string): Promise<string>;
  deleteVolume(volumeId: string): Promise<void>;
  stop(): Promise<void>;
}

export async function startCsiDriver(folder: string, poolBytes: number): Promise<CsiDriver> {
  const port = await freePort();
  const api = ["--api", `127.0.0.1:${port}`];
  const daemon = await servePando(join(folder, "pool"), { poolBytes, sparse: true }, api);
  const config = join(folder, "csi.json");
  const storageNodes = [{ name: "bench", address: `127.0.0.1:${port}` }];
  writeFileSync(config, JSON.stringify({ storageNodes }));
  // Not below `folder`: a socket's path is short.
  const socket = join(tmpdir(), `pando-bench-${process.pid}.csi`);
  const args = [DRIVER, "--config", config, "--mode", "controller", "--endpoint", socket];
  const driver = await ServerProcess.start({
    name: "pando-csi",
    command: process.execPath,
    args: [...args, "--log-level", "warn"],
    sockets: [socket],
  });
  const client = new Client(`unix:${socket}`, credentials.createInsecure());
  const call = (method: string, request: object) => callController(client, method, request);
  const mount = { fsType: "ext4", mountFlags: [], volumeMountGroup: "" };
  const volumeCapabilities = [{ mount, accessMode: { mode: "SINGLE_NODE_WRITER" } }];
  return {
    async createVolume(name, from) {
      const source =
        "sizeBytes" in from
          ? { capacityRange: { requiredBytes: from.sizeBytes } }
          : { volumeContentSource: { snapshot: from } };
      const answer = await call("CreateVolume", { name, volumeCapabilities, ...source });
      return (answer.volume as { volumeId: string }).volumeId;
    },
    async createSnapshot(sourceVolumeId, name) {
      const answer = await call("CreateSnapshot", { sourceVolumeId, name });
      return (answer.snapshot as { snapshotId: string }).snapshotId;
    },
    async deleteVolume(volumeId) {
      await call("DeleteVolume", { volumeId });
    },
    async stop() {
      client.close();
      await driver.stop();
      await daemon.stop();
    },
  };
}

function callController(
  client: Client,
  method: string,
  request: object,
): Promise<Record<string, unknown>> {
  const definition = serviceDefinition("Controller")[method];
  if (definition === undefined) throw new Error(`no ${method}`);
  const { path, requestSerialize, responseDeserialize } = definition;
  return new Promise((resolve, reject) => {
    const done = (error: ServiceError | null, response?: unknown) => {
      if (error !== null) reject(error);
      else resolve(response as Record<string, unknown>);
    };
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, done);
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (typeof address !== "object" || address === null) throw new Error("no port");
  return address.port;
}
