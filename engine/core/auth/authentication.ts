// Authentication of the queues that hosts make: one handshake for each connection that asks, until
// it says that it is over or the connection has gone. The data path asks in the order of the
// messages and answers the host with what it gets; it asks for a connection one thing at a time.
import { type Addon, AUTH_VERDICT, type PoolEvent } from "../../../native/native.js";
import type { DhchapPolicy } from "../../base/dhchap-key.js";
import type { Log } from "../../base/log.js";
import { getHostKeys } from "../../store/host-keys.js";
import type { StoreReader } from "../../store/store.js";
import { Handshake } from "./handshake.js";

type AuthEvent = Extract<PoolEvent, { type: "auth" }>;

export interface AuthenticationOptions {
  policy: DhchapPolicy;
  newBytes: (count: number) => Uint8Array;
}

export interface AuthenticationParts extends AuthenticationOptions {
  addon: Addon;
  /** The addon's handle. */
  pool: () => number;
  store: StoreReader;
  log: Log;
}

export class Authentication {
  readonly #parts: AuthenticationParts;
  readonly #handshakes = new Map<number, Handshake>();

  constructor(parts: AuthenticationParts) {
    this.#parts = parts;
  }

  /** Whether this host has to prove who it is. */
  required(hostNqn: string): boolean {
    return getHostKeys(this.#parts.store, hostNqn) !== null;
  }

  /** A message of a host's, or its wish for ours. */
  handle(event: AuthEvent): void {
    const { addon, pool, log } = this.#parts;
    const { token, connection, hostNqn, subsystemNqn, peer } = event;
    let handshake = this.#handshakes.get(connection);
    if (handshake === undefined) {
      handshake = this.#begin(hostNqn, subsystemNqn);
      this.#handshakes.set(connection, handshake);
    }
    const { message, verdict } =
      event.message === null
        ? handshake.give()
        : { message: null, verdict: handshake.take(event.message) };
    if (verdict !== "pending") this.#handshakes.delete(connection);
    if (verdict === "failed") log.warn({ hostNqn, subsystemNqn, peer }, "authentication failed");
    addon.exportsAnswerAuth(pool(), token, AUTH_VERDICT[verdict], message);
  }

  /** The connection has gone. */
  forget(connection: number): void {
    this.#handshakes.delete(connection);
  }

  get underWay(): number {
    return this.#handshakes.size;
  }

  #begin(hostNqn: string, subsystemNqn: string): Handshake {
    const { store, policy, newBytes } = this.#parts;
    const keys = getHostKeys(store, hostNqn);
    return new Handshake({
      hostNqn,
      subsystemNqn,
      hostKey: keys?.hostKey ?? null,
      controllerKey: keys?.controllerKey ?? null,
      policy,
      newBytes,
    });
  }
}
