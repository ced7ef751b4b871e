// The driver's composition root: from its configuration to services on a socket.
import { readFileSync } from "node:fs";
import { PandoError } from "../engine/base/errors.js";
import { type Log, makeLog } from "../engine/base/log.js";
import { packagePath } from "../engine/base/package-path.js";
import { PandoClient } from "../engine/serve/client.js";
import { identityFiles, readHostIdentity } from "../nvmf/host-identity.js";
import { openHostTls } from "../nvmf/host-tls.js";
import { Initiator } from "../nvmf/initiator.js";
import { runCommand } from "./command.js";
import type { CsiConfig, StorageNodeConfig } from "./config.js";
import { controllerServices } from "./controller.js";
import { Discovery } from "./discovery.js";
import { FileSystems } from "./filesystem.js";
import { identityService } from "./identity.js";
import { listNodes } from "./kubernetes.js";
import { MountTable } from "./mount-table.js";
import { nodeService } from "./node.js";
import { warnOfKey } from "./node-tls.js";
import type { ServiceName } from "./protocol.js";
import { type Service, startCsiServer } from "./server.js";
import { StorageNodes } from "./storage-nodes.js";

/** Less than the sidecars wait (15 s), so that they hear why. */
const DAEMON_TIMEOUT_MS = 10_000;
/** Kubernetes' limit for the id of a node in CSINode. */
const MAX_NODE_ID_LENGTH = 192;

export interface Driver {
  close(): Promise<void>;
}

export async function startDriver(config: CsiConfig): Promise<Driver> {
  const log = makeLog(config.logLevel);
  const { mode, driverName, endpoint } = config;
  const services: Partial<Record<ServiceName, Service>> = {
    Identity: identityService({
      driverName,
      version: version(),
      zones: config.topology === "zone",
    }),
  };
  const nodes = mode === "node" ? null : connectNodes(config);
  if (nodes !== null) {
    const { maxVolumesPerNode } = config;
    Object.assign(services, controllerServices({ nodes, maxVolumesPerNode }));
  }
  const discovery = nodes === null ? null : await discover(config, nodes, log);
  if (mode !== "controller") services.Node = await makeNode(config, log);
  const server = await startCsiServer({ socket: endpoint, services, log });
  log.info(
    { endpoint, mode, storageNodes: config.storageNodes.map(({ name }) => name) },
    "serving",
  );
  return {
    async close() {
      await server.close();
      await discovery?.close();
      nodes?.close();
      log.info("stopped");
    },
  };
}

function connectNodes(config: CsiConfig): StorageNodes {
  return new StorageNodes(
    config.storageNodes.map((node) => ({ ...node, daemon: connect(config, node) })),
  );
}

function connect({ tls }: CsiConfig, { address, pool }: StorageNodeConfig): PandoClient {
  return new PandoClient({ address, tls, timeoutMs: DAEMON_TIMEOUT_MS }, pool ?? null);
}

async function discover(
  config: CsiConfig,
  nodes: StorageNodes,
  log: Log,
): Promise<Discovery | null> {
  const { kubernetes } = config;
  if (kubernetes === null) return null;
  return Discovery.start({
    nodes,
    log,
    list: () => listNodes(kubernetes),
    connect: (node) => connect(config, node),
  });
}

async function makeNode(config: CsiConfig, log: Log): Promise<Service> {
  const { hostNqn, tlsKeyFile, maxVolumesPerNode, zone } = config;
  const identity = await readHostIdentity(identityFiles, hostNqn);
  if (identity.hostNqn.length > MAX_NODE_ID_LENGTH) {
    const message = `the host NQN is longer than ${MAX_NODE_ID_LENGTH} characters`;
    throw new PandoError("EINVAL", message, { field: "hostNqn" });
  }
  const tls = tlsKeyFile === null ? null : await openHostTls(identity.hostNqn, tlsKeyFile);
  if (tls !== null) warnOfKey(tls, log);
  return nodeService({
    nodeId: identity.hostNqn,
    maxVolumesPerNode,
    zone,
    initiator: new Initiator(identity),
    tls,
    mounts: new MountTable(runCommand),
    fileSystems: new FileSystems(runCommand),
  });
}

function version(): string {
  const content = readFileSync(packagePath("package.json"), "utf8");
  return (JSON.parse(content) as { version: string }).version;
}
