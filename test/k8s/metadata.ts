// What a snapshot has, and what changed between two, as backup software asks for it. Kubernetes'
// own sidecar stands between it and the driver: it shows the caller's token to Kubernetes, finds
// the driver's ids of the snapshots, and passes the driver's stream on.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type ClientReadableStream,
  credentials,
  makeClientConstructor,
  type ServiceDefinition,
  status,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import * as assert from "uvu/assert";
import { NbdClient } from "../../engine/cli/nbd-client.js";
import { makeAuthority } from "../support/certificates.js";
import { freePort } from "../support/pando.js";
import type { Manifest, Ref, Stored } from "./api.js";
import type { Cluster } from "./cluster.js";
import { claim, DRIVER_NAME, named, namespaced, snapshotContent, snapshotOf } from "./objects.js";
import { startProcess } from "./processes.js";
import type { MetadataSidecar } from "./programs.js";
import type { Step } from "./steps.js";
import { applyManifests, argumentsOf, STORAGE_NODE, type Storage } from "./storage.js";

const AUDIENCE = "backup";
const BLOCK_BYTES = 4096;
const CAPACITY_BYTES = 2 ** 30;
const START_TIMEOUT_MS = 60_000;
const CLAIM = "changing";

interface Range {
  byteOffset: number;
  sizeBytes: number;
}

interface Message {
  blockMetadataType: string;
  volumeCapacityBytes: number;
  blockMetadata: Range[];
}

/** `texts`: the driver's manifests, with this. */
export function metadataSteps(
  cluster: Cluster,
  storage: Storage,
  of: { sidecar: MetadataSidecar; texts: string[]; folder: string },
): Step[] {
  const { api } = cluster;
  const { sidecar, texts, folder } = of;
  const handles: Record<string, string> = {};
  let read: Reader = async () => [];
  let token = "";
  let stop = async () => {};

  const snapshot = async (name: string): Promise<void> => {
    const made = snapshotOf(name, CLAIM);
    await api.create(made);
    const { status } = await api.until(made, (one) => one.status?.readyToUse === true);
    const content = await api.get(snapshotContent(status.boundVolumeSnapshotContentName as string));
    handles[name] = content?.status.snapshotHandle as string;
  };
  const ask = (method: string, request: object) =>
    read(method, { securityToken: token, namespace: "default", ...request });

  return [
    [
      "the sidecar of snapshot metadata serves",
      async () => {
        await applyManifests(cluster, manifestsOf(sidecar));
        for (const one of bindings()) await api.create(one);
        const documents: Stored[] = [];
        for (const text of texts) documents.push(await api.apply(text));
        const port = await freePort();
        const files = makeAuthority(folder, "metadata").issue("metadata");
        const authority = readFileSync(files.authority);
        await api.create({
          ...named("cbt.storage.k8s.io/v1beta1", "SnapshotMetadataService", DRIVER_NAME),
          spec: {
            address: `localhost:${port}`,
            audience: AUDIENCE,
            caCert: authority.toString("base64"),
          },
        });
        const args = argumentsOf(documents, "snapshot-metadata", {
          "--csi-address": storage.socket,
          "--port": `${port}`,
          "--tls-cert": files.certificate,
          "--tls-key": files.key,
        });
        const health = `--http-endpoint=127.0.0.1:${await freePort()}`;
        const kubeconfig = `--kubeconfig=${storage.kubeconfig}`;
        const running = startProcess(sidecar.program, [...args, kubeconfig, health]);
        stop = () => running.stop();
        read = readerOf(join(sidecar.module, "proto/schema.proto"), { port, authority });
        token = await tokenOf(cluster, BACKUP, AUDIENCE);
        const deadline = performance.now() + START_TIMEOUT_MS;
        const isThere = () => ask("GetMetadataAllocated", {}).catch(({ code }) => code);
        while ((await isThere()) === status.UNAVAILABLE) {
          if (performance.now() > deadline) throw new Error("it does not serve in time");
          await sleep(200);
        }
      },
    ],
    [
      "what snapshots have, and what changed between them, is told as it was written",
      async () => {
        const origin = claim(CLAIM);
        await api.create(origin);
        const { spec } = await api.until(origin, (one) => one.status.phase === "Bound");
        const nbd = await NbdClient.open({
          socket: join(dirname(storage.nodes[STORAGE_NODE]?.socket ?? ""), "nbd.sock"),
          name: spec.volumeName as string,
        });
        const write = (block: number, text: string, blocks = 1) =>
          nbd.write(block * BLOCK_BYTES, Buffer.alloc(blocks * BLOCK_BYTES, text));
        await write(0, "first");
        await write(100, "first", 4);
        await write(50_000, "first");
        await nbd.flush();
        await snapshot("first");
        await write(101, "second");
        await write(70_000, "second", 2);
        await nbd.zero(0, BLOCK_BYTES);
        await nbd.flush();
        await snapshot("second");
        await nbd.close();
        const allocated = { method: "GetMetadataAllocated", request: { snapshotName: "second" } };
        const delta = {
          method: "GetMetadataDelta",
          request: { baseSnapshotId: handles.first, targetSnapshotName: "second" },
        };
        for (const [{ method, request }, blocks] of [
          [allocated, [100, 101, 102, 103, 50_000, 70_000, 70_001]],
          [delta, [0, 101, 70_000, 70_001]],
        ] as const) {
          assert.equal(blocksOf(await ask(method, request)), blocks);
          assert.equal(blocksOf(await ask(method, { ...request, maxResults: 1 })), blocks);
          // After a cut.
          const rest = await ask(method, { ...request, startingOffset: 50_000 * BLOCK_BYTES });
          assert.equal(
            blocksOf(rest),
            blocks.filter((block) => block >= 50_000),
          );
        }
      },
    ],
    [
      "who may not read snapshots is told nothing",
      async () => {
        const codeWith = (securityToken: string, snapshotName = "second") =>
          ask("GetMetadataAllocated", { securityToken, snapshotName }).then(
            () => "OK",
            ({ code }: { code: status }) => status[code],
          );
        assert.is(await codeWith("junk"), "UNAUTHENTICATED");
        assert.is(await codeWith(await tokenOf(cluster, BACKUP, "another")), "UNAUTHENTICATED");
        assert.is(await codeWith(await tokenOf(cluster, STRANGER, AUDIENCE)), "PERMISSION_DENIED");
        assert.is(await codeWith(token), "OK");
        assert.is.not(await codeWith(token, "none"), "OK");
        await stop();
      },
    ],
  ];
}

const BACKUP = { name: "backup", namespace: "default" };
const STRANGER = { name: "stranger", namespace: "default" };

/** The custom resource, and what the sidecar's callers have to be allowed. */
function manifestsOf({ module, client }: MetadataSidecar): string[] {
  return [
    join(client, "config/crd/cbt.storage.k8s.io_snapshotmetadataservices.yaml"),
    join(module, "deploy/snapshot-metadata-client-cluster-role.yaml"),
  ].map((path) => readFileSync(path, "utf8"));
}

function bindings(): Manifest[] {
  const group = "rbac.authorization.k8s.io";
  const bind = (role: string, account: { name: string; namespace: string }) => ({
    ...named(`${group}/v1`, "ClusterRoleBinding", role),
    roleRef: { apiGroup: group, kind: "ClusterRole", name: role },
    subjects: [{ kind: "ServiceAccount", ...account }],
  });
  const clients = "external-snapshot-metadata-client-runner";
  return [
    ...[BACKUP, STRANGER].map(({ name }) => ({ ...namespaced("v1", "ServiceAccount", name) })),
    bind(clients, BACKUP),
  ];
}

async function tokenOf(
  { api }: Cluster,
  { name, namespace }: { name: string; namespace: string },
  audience: string,
): Promise<string> {
  const account: Ref = { apiVersion: "v1", kind: "ServiceAccount", metadata: { name, namespace } };
  const wanted = {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    spec: { audiences: [audience] },
  };
  const { status: granted }: Stored = await api.createBelow(account, "token", wanted);
  return granted.token as string;
}

type Reader = (method: string, request: object) => Promise<Message[]>;

/** Of all that a stream says. */
function readerOf(proto: string, at: { port: number; authority: Buffer }): Reader {
  const loaded = loadSync(proto, { longs: Number, enums: String, defaults: true });
  const service = loaded["snapshotmetadata.SnapshotMetadata"] as ServiceDefinition;
  const Client = makeClientConstructor(service, "SnapshotMetadata");
  const client = new Client(`localhost:${at.port}`, credentials.createSsl(at.authority));
  return async (method, request) => {
    const call = client[method] as (request: object) => ClientReadableStream<Message>;
    const messages: Message[] = [];
    for await (const message of call.call(client, request)) messages.push(message as Message);
    return messages;
  };
}

function blocksOf(messages: Message[]): number[] {
  return messages.flatMap(({ blockMetadataType, volumeCapacityBytes, blockMetadata }) => {
    assert.is(blockMetadataType, "VARIABLE_LENGTH");
    assert.is(volumeCapacityBytes, CAPACITY_BYTES);
    return blockMetadata.flatMap(({ byteOffset, sizeBytes }) =>
      Array.from(
        { length: sizeBytes / BLOCK_BYTES },
        (_, index) => byteOffset / BLOCK_BYTES + index,
      ),
    );
  });
}
