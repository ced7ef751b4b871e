// Which storage nodes Kubernetes has: its Node objects with a label, each with a daemon on its
// internal address. Those objects stay when a daemon or a machine is down, which is when it matters
// that its volumes are still known; a pod or an endpoint would be gone.
//
// All that is asked of Kubernetes is one list, with the service account's own token.
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { PandoError } from "../engine/base/errors.js";
import { quote } from "../engine/base/quote.js";
import type { StorageNodeConfig } from "./config.js";
import { isNodeName } from "./ids.js";
import { ZONE } from "./topology.js";

export interface KubernetesConfig {
  /** An https: URL without a path. */
  readonly server: string;
  /** Files: the token is replaced from time to time. */
  readonly token: string;
  readonly authority: string;
  /** Which nodes: a label selector. */
  readonly nodes: string;
  readonly apiPort: number;
}

/** A name for those whose own is too long for a volume's id, or not to be in one. */
export const NAME_ANNOTATION = "pando.io/storage-node-name";

const TIMEOUT_MS = 10_000;
/** Some thousand nodes. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

export interface NodeList {
  nodes: StorageNodeConfig[];
  /** Why others with the label are not among them. */
  refused: string[];
}

export async function listNodes(config: KubernetesConfig): Promise<NodeList> {
  const url = new URL("/api/v1/nodes", config.server);
  url.searchParams.set("labelSelector", config.nodes);
  const text = await get(url, config);
  return readNodeList(text, config.apiPort);
}

interface NodeObject {
  metadata: {
    name: string;
    annotations?: Record<string, string>;
    labels?: Record<string, string>;
  };
  status?: { addresses?: { type: string; address: string }[] };
}

export function readNodeList(text: string, port: number): NodeList {
  const list: NodeList = { nodes: [], refused: [] };
  for (const { metadata, status } of parse(text)) {
    const name = metadata.annotations?.[NAME_ANNOTATION] ?? metadata.name;
    const refuse = (why: string) => list.refused.push(`node ${metadata.name}: ${why}`);
    const address = status?.addresses?.find(({ type }) => type === "InternalIP")?.address;
    if (!isNodeName(name)) {
      const rule = "up to 32 small letters, digits, dots and dashes";
      refuse(`${quote(name)} is no name for a storage node (${rule}): annotate ${NAME_ANNOTATION}`);
    } else if (address === undefined) refuse("it has no internal address");
    else if (list.nodes.some((node) => node.name === name)) refuse(`${name} is another one's name`);
    else {
      const zone = metadata.labels?.[ZONE] ?? null;
      list.nodes.push({ name, address: { host: address, port }, zone });
    }
  }
  return list;
}

function parse(text: string): NodeObject[] {
  let answer: { items?: unknown } | null = null;
  try {
    answer = JSON.parse(text) as { items?: unknown } | null;
  } catch {
    // Said below.
  }
  if (Array.isArray(answer?.items)) return answer.items as NodeObject[];
  throw new PandoError("EIO", "Kubernetes answers with something that is no list of nodes");
}

function get(url: URL, { token, authority }: KubernetesConfig): Promise<string> {
  const headers = {
    accept: "application/json",
    authorization: `Bearer ${readFileSync(token, "utf8").trim()}`,
  };
  return new Promise((resolve, reject) => {
    const fail = (cause: Error) =>
      reject(
        new PandoError("ECLOSED", `no answer from ${url.host}: ${cause.message}`, {}, { cause }),
      );
    const sent = request(url, { ca: readFileSync(authority), headers, timeout: TIMEOUT_MS });
    sent.on("timeout", () => sent.destroy(new Error(`silent for ${TIMEOUT_MS} ms`)));
    sent.on("error", fail);
    sent.on("response", (response) => {
      const parts: Buffer[] = [];
      let bytes = 0;
      response.on("data", (part: Buffer) => {
        bytes += part.length;
        if (bytes > MAX_ANSWER_BYTES) sent.destroy(new Error("its answer is too long"));
        else parts.push(part);
      });
      response.on("error", fail);
      response.on("end", () => {
        if (response.statusCode === 200) resolve(Buffer.concat(parts).toString());
        else fail(new Error(`status ${response.statusCode}`));
      });
    });
    sent.end();
  });
}
