// Keeps the storage nodes what Kubernetes says that they are: asks again every few seconds, and
// connects to what is new or has moved.
//
// One that is not listed any more gets no new volumes, and is otherwise kept as long as this
// process lives: its volumes are there, and a list without them would say that they are gone. What
// cannot be asked changes nothing.
import { setTimeout as sleep } from "node:timers/promises";
import { formatAddress } from "../engine/base/address.js";
import type { Log } from "../engine/base/log.js";
import type { StorageNodeConfig } from "./config.js";
import type { NodeList } from "./kubernetes.js";
import type { Daemon, StorageNodes } from "./storage-nodes.js";

export interface DiscoveryOptions {
  nodes: StorageNodes;
  list(): Promise<NodeList>;
  connect(node: StorageNodeConfig): Daemon;
  log: Log;
  /** How long from one answer to the next question. */
  pauseMs?: number;
  /** How many times the first list is asked for, once a second. */
  attempts?: number;
}

const PAUSE_MS = 10_000;
const ATTEMPTS = 30;
const RETRY_MS = 1000;

export class Discovery {
  readonly #options: DiscoveryOptions;
  /** What is connected, by name: its address and zone. */
  readonly #known = new Map<string, string>();
  readonly #abort = new AbortController();
  #told = "";
  #loop: Promise<void> = Promise.resolve();

  private constructor(options: DiscoveryOptions) {
    this.#options = options;
  }

  /** With the first list: a controller that knows of no node would say that there is no volume. */
  static async start(options: DiscoveryOptions): Promise<Discovery> {
    const discovery = new Discovery(options);
    const { attempts = ATTEMPTS } = options;
    for (let attempt = 1; ; attempt++) {
      try {
        discovery.#apply(await options.list());
        break;
      } catch (error) {
        if (attempt >= attempts) throw error;
        discovery.#tell(error);
        await sleep(RETRY_MS);
      }
    }
    discovery.#loop = discovery.#follow();
    return discovery;
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#loop;
  }

  async #follow(): Promise<void> {
    const { list, pauseMs = PAUSE_MS } = this.#options;
    for (;;) {
      await sleep(pauseMs, null, { signal: this.#abort.signal }).catch(() => undefined);
      if (this.#abort.signal.aborted) return;
      try {
        this.#apply(await list());
      } catch (error) {
        this.#tell(error);
      }
    }
  }

  #apply({ nodes, refused }: NodeList): void {
    const { nodes: known, connect, log } = this.#options;
    const wrong = [...refused];
    for (const node of nodes) {
      const { name, zone } = node;
      const address = formatAddress(node.address);
      const place = `${address} ${zone}`;
      if (!this.#known.has(name) && known.has(name)) {
        wrong.push(`${name} is in the configuration, too, which counts`);
      } else if (this.#known.get(name) === place) known.placeOn(name, true);
      else {
        log.info({ storageNode: name, address }, "storage node");
        known.put({ name, zone, daemon: connect(node) });
        this.#known.set(name, place);
      }
    }
    const listed = new Set(nodes.map(({ name }) => name));
    for (const name of this.#known.keys()) {
      if (!listed.has(name)) known.placeOn(name, false);
    }
    this.#tell(wrong.join("; "));
  }

  /** Once, not every few seconds. */
  #tell(problem: unknown): void {
    const said = problem instanceof Error ? problem.message : String(problem);
    if (said !== "" && said !== this.#told) this.#options.log.warn({}, `storage nodes: ${said}`);
    this.#told = said;
  }
}
