// Kubernetes' API, as far as the tests need it: JSON over HTTPS, with a bearer token.
//
// Objects are taken and given as manifests have them; where a kind's objects are is asked of the
// server.
import { request } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";

export type Json = null | boolean | number | string | Json[] | Fields;
export type Fields = { [key: string]: Json };

/** Names one object; a manifest does too. */
export interface Ref {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string };
}

/** An object to be. */
export interface Manifest extends Ref {
  metadata: Ref["metadata"] & { [more: string]: unknown };
  [more: string]: unknown;
}

/** An object as the server has it. */
export interface Stored extends Ref {
  metadata: Ref["metadata"] & {
    uid: string;
    resourceVersion: string;
    annotations?: Record<string, string>;
    finalizers?: string[];
    deletionTimestamp?: string;
  };
  spec: Fields;
  status: Fields;
}

export interface ApiOptions {
  port: number;
  token: string;
  /** PEM. */
  authority: string;
}

interface Reply {
  code: number;
  body: Fields;
}

export class ApiError extends Error {
  constructor(
    request: string,
    readonly code: number,
    message: unknown,
  ) {
    super(`${request}: ${code} ${message}`);
  }
}

const WAIT_TIMEOUT_MS = 120_000;
const POLL_MS = 50;
const LIST_POLL_MS = 200;

export class KubernetesApi {
  readonly #resources = new Map<string, Promise<Map<string, Resource>>>();

  constructor(private readonly options: ApiOptions) {}

  async create(manifest: Manifest): Promise<Stored> {
    const path = await this.#path(manifest, "");
    return this.#must("POST", path, manifest) as Promise<Stored>;
  }

  /** What a manifest's text, in YAML, makes. */
  async createFrom(text: string): Promise<Stored> {
    const path = await this.#pathOf(text);
    const reply = await this.send("POST", path, text);
    if (reply.code < 300) return reply.body as unknown as Stored;
    throw new ApiError(`POST ${path}`, reply.code, reply.body.message);
  }

  /** As `kubectl apply` on the server's side: what is there becomes what the text says. */
  async apply(text: string): Promise<Stored> {
    const name = /^ {2}name: *(\S+)/m.exec(text)?.[1] ?? "";
    const path = `${await this.#pathOf(text)}/${name}?fieldManager=test&force=true`;
    const reply = await this.send("APPLY", path, text);
    if (reply.code < 300) return reply.body as unknown as Stored;
    throw new ApiError(`apply ${path}`, reply.code, reply.body.message);
  }

  /** All of a kind, in all namespaces; lists of objects do not say their kind. */
  async list({ apiVersion, kind }: Ref): Promise<Stored[]> {
    const everywhere = { apiVersion, kind, metadata: { name: "", namespace: "" } };
    const path = await this.#path(everywhere, "");
    const { items } = (await this.#must("GET", path)) as { items: Stored[] };
    return items.map((one) => ({ ...one, apiVersion, kind }));
  }

  async get(ref: Ref): Promise<Stored | null> {
    const path = await this.#path(ref, ref.metadata.name);
    const { code, body } = await this.send("GET", path);
    if (code === 404) return null;
    if (code !== 200) throw new ApiError(`GET ${path}`, code, body.message);
    return body as unknown as Stored;
  }

  /** JSON merge patch, of the object or of a part of it (`status`). */
  async patch(ref: Ref, change: object, part = ""): Promise<Stored> {
    const path = await this.#path(ref, ref.metadata.name);
    const whole = part === "" ? path : `${path}/${part}`;
    return this.#must("PATCH", whole, change) as Promise<Stored>;
  }

  async delete(ref: Ref, options: object = {}): Promise<void> {
    await this.#must("DELETE", await this.#path(ref, ref.metadata.name), options);
  }

  /** What something below an object answers: a service account's token. */
  async createBelow(ref: Ref, part: string, body: object): Promise<Stored> {
    const path = await this.#path(ref, ref.metadata.name);
    return this.#must("POST", `${path}/${part}`, body) as Promise<Stored>;
  }

  /** Until the object is as it is wanted; what it is like at last is in the error. */
  async until(ref: Ref, isSo: (object: Stored) => boolean): Promise<Stored> {
    const { found, last } = await this.#poll(ref, (object) => object !== null && isSo(object));
    if (found && last !== null) return last;
    throw new Error(`${ref.kind} ${ref.metadata.name} stays ${JSON.stringify(last, null, 1)}`);
  }

  /** Until all objects of a kind together are as they are wanted; its name counts for nothing. */
  async untilListed(ref: Ref, areSo: (objects: Stored[]) => boolean): Promise<void> {
    const deadline = performance.now() + WAIT_TIMEOUT_MS;
    for (;;) {
      const all = await this.list(ref);
      if (areSo(all)) return;
      if (performance.now() > deadline) throw new Error(`${ref.kind}: not so in time`);
      await sleep(LIST_POLL_MS);
    }
  }

  async untilGone(ref: Ref): Promise<void> {
    const { found, last } = await this.#poll(ref, (object) => object === null);
    if (!found) throw new Error(`${ref.kind} ${ref.metadata.name} stays ${JSON.stringify(last)}`);
  }

  async #poll(
    ref: Ref,
    isSo: (object: Stored | null) => boolean,
  ): Promise<{ found: boolean; last: Stored | null }> {
    const deadline = performance.now() + WAIT_TIMEOUT_MS;
    for (;;) {
      const last = await this.get(ref);
      if (isSo(last)) return { found: true, last };
      if (performance.now() > deadline) return { found: false, last };
      await sleep(POLL_MS);
    }
  }

  async #must(method: string, path: string, body?: object): Promise<unknown> {
    const reply = await this.send(method, path, body);
    if (reply.code < 300) return reply.body;
    throw new ApiError(`${method} ${path}`, reply.code, reply.body.message);
  }

  /** Rejects only if there is no server. */
  send(method: string, path: string, body?: object | string): Promise<Reply> {
    const { port, token, authority } = this.options;
    const isApply = method === "APPLY";
    const json = method === "PATCH" ? "application/merge-patch+json" : "application/json";
    const yaml = isApply ? "application/apply-patch+yaml" : "application/yaml";
    const type = typeof body === "string" ? yaml : json;
    const content = Buffer.from(typeof body === "object" ? JSON.stringify(body) : (body ?? ""));
    const headers = {
      accept: "application/json",
      authorization: `Bearer ${token}`,
      "content-type": type,
      // DELETE has none of itself.
      "content-length": content.length,
    };
    return new Promise((resolve, reject) => {
      const sent = request(
        {
          ...{ host: "127.0.0.1", port, ca: authority, path, headers },
          method: isApply ? "PATCH" : method,
        },
        (response) => {
          const parts: Buffer[] = [];
          response.on("data", (part: Buffer) => parts.push(part));
          response.on("error", reject);
          response.on("end", () => {
            const text = Buffer.concat(parts).toString();
            const code = response.statusCode ?? 0;
            resolve({ code, body: text.startsWith("{") ? JSON.parse(text) : { message: text } });
          });
        },
      );
      sent.on("error", reject);
      sent.end(content);
    });
  }

  /** Of a manifest's kind, in its namespace. */
  #pathOf(text: string): Promise<string> {
    const apiVersion = /^apiVersion: *(\S+)/m.exec(text)?.[1] ?? "";
    const kind = /^kind: *(\S+)/m.exec(text)?.[1] ?? "";
    const namespace = /^ {2}namespace: *(\S+)/m.exec(text)?.[1] ?? "default";
    return this.#path({ apiVersion, kind, metadata: { name: "", namespace } }, "");
  }

  async #path({ apiVersion, kind, metadata }: Ref, name: string): Promise<string> {
    const root = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
    const resource = (await this.#resourcesOf(root)).get(kind);
    if (resource === undefined) throw new Error(`no ${kind} at ${root}`);
    const { namespace = "default" } = metadata;
    const place = resource.namespaced && namespace !== "" ? `/namespaces/${namespace}` : "";
    return `${root}${place}/${resource.name}${name === "" ? "" : `/${name}`}`;
  }

  #resourcesOf(root: string): Promise<Map<string, Resource>> {
    const known = this.#resources.get(root);
    if (known !== undefined) return known;
    const asked = this.#must("GET", root).then((answer) => {
      const { resources } = answer as { resources: Resource[] };
      const whole = resources.filter(({ name }) => !name.includes("/"));
      return new Map(whole.map((one) => [one.kind, one]));
    });
    this.#resources.set(root, asked);
    asked.catch(() => this.#resources.delete(root));
    return asked;
  }
}

interface Resource {
  name: string;
  kind: string;
  namespaced: boolean;
}
