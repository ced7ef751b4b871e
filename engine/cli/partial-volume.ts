// A volume that is being received, from the side that writes it: data and zeroes over NBD, a
// bounded number of requests at a time, and the steps that make what has come durable, whole, or
// forgotten.
import { setTimeout as delay } from "node:timers/promises";
import { isPandoError, PandoError } from "../base/errors.js";
import { isPartialName } from "../base/name.js";
import type { PandoClient, ReceiveRequest, ReceiveView, VolumeView } from "../serve/client.js";
import { NbdClient } from "./nbd-client.js";
import { Window } from "./window.js";

/** Of at most 1 MiB each. */
const REQUESTS_AT_A_TIME = 16;
/** The daemon hears of a closed connection a moment after the client. */
const CLOSE_TRIES = 100;
const CLOSE_PAUSE_MS = 50;

export class PartialVolume {
  readonly #client: PandoClient;
  readonly #nbd: NbdClient;
  readonly #window = new Window(REQUESTS_AT_A_TIME);
  readonly info: ReceiveView;

  private constructor(client: PandoClient, nbd: NbdClient, info: ReceiveView) {
    this.#client = client;
    this.#nbd = nbd;
    this.info = info;
  }

  static async open(client: PandoClient, request: ReceiveRequest): Promise<PartialVolume> {
    const info = await client.beginReceive(request);
    try {
      return new PartialVolume(client, await NbdClient.openUri(needNbd(info)), info);
    } catch (error) {
      if (!request.resume) await client.abortReceive(info.name);
      throw error;
    }
  }

  write(offsetBytes: number, data: Uint8Array): Promise<void> {
    return this.#window.add(this.#nbd.write(offsetBytes, data));
  }

  zero(offsetBytes: number, lengthBytes: number): Promise<void> {
    return this.#window.add(this.#nbd.zero(offsetBytes, lengthBytes));
  }

  /** Everything before the offset was written: it becomes durable. */
  async advance(offsetBytes: number): Promise<void> {
    await this.#window.settled();
    await this.#client.advanceReceive(this.info.name, offsetBytes);
  }

  /** It is whole. */
  async finish(): Promise<VolumeView> {
    await this.#window.settled();
    await this.#nbd.close();
    return whenClosed(() => this.#client.finishReceive(this.info.name));
  }

  /** What has come is kept, to go on from. */
  async keep(): Promise<void> {
    await this.#nbd.close();
  }

  /** What has come is forgotten. */
  async abort(): Promise<void> {
    await this.#nbd.close();
    await whenClosed(() => this.#client.abortReceive(this.info.name));
  }
}

export function needNbd({ nbdUri }: { nbdUri: string | null }): string {
  if (nbdUri !== null) return nbdUri;
  throw new PandoError("EINVAL", "the daemon serves no NBD, over which the data would go", {
    field: "nbdSocket",
    hint: "give the daemon an NBD socket: --nbd-socket PATH",
  });
}

async function whenClosed<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work();
    } catch (error) {
      // Somebody else's volume may be busy too: that is no matter of time.
      const ours = isPandoError(error, "EBUSY") && isPartialName(error.context.volume ?? "");
      if (tries === CLOSE_TRIES || !ours) throw error;
      await delay(CLOSE_PAUSE_MS);
    }
  }
}
