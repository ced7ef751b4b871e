// Which key a connection that begins with TLS is about. The identity says whose and for which
// subsystem (NVMe/TCP Transport Specification 1.1, section 3.6.1.3); the binder shows that the host
// has it. The data path gets what it needs for this one handshake, and checks all of it once more.
//
// Somebody without the right key learns nothing from the answer, which is always the same; the log
// says why.
import type { Addon, PoolEvent, TlsKeyAnswer } from "../../../native/native.js";
import type { Log } from "../../base/log.js";
import { quote } from "../../base/quote.js";
import { tlsCandidates } from "../../base/tls-psk.js";
import { getTlsPsk } from "../../store/host-keys.js";
import type { StoreReader } from "../../store/store.js";
import { binderIsOf, type ClientHello, parseClientHello } from "./client-hello.js";

type TlsKeyEvent = Extract<PoolEvent, { type: "tlsKey" }>;

export interface TlsKeysParts {
  addon: Pick<Addon, "exportsAnswerTlsKey">;
  /** The addon's handle. */
  pool: () => number;
  store: StoreReader;
  log: Log;
}

/** R: a key that was configured; G, made by an authentication, is not served. */
const IDENTITY = /^NVMe[01]R0[12] (\S{1,223}) (\S{1,223})(?: \S+)?$/;

export class TlsKeys {
  readonly #parts: TlsKeysParts;

  constructor(parts: TlsKeysParts) {
    this.#parts = parts;
  }

  /** Whether this host has to use TLS. */
  required(hostNqn: string): boolean {
    return getTlsPsk(this.#parts.store, hostNqn) !== null;
  }

  handle({ token, peer, hello }: TlsKeyEvent): void {
    const { addon, pool, store, log } = this.#parts;
    const parsed = parseClientHello(hello);
    const found = parsed === null ? "it offers no pre-shared key" : findKey(store, parsed);
    if (typeof found === "string") log.warn({ peer }, `TLS refused: ${found}`);
    addon.exportsAnswerTlsKey(pool(), token, typeof found === "string" ? null : found);
  }
}

/** Or why there is none. */
export function findKey(store: StoreReader, hello: ClientHello): TlsKeyAnswer | string {
  let why = "it offers no key of NVMe/TCP";
  for (const { identity, binder } of hello.offered) {
    const [, hostNqn, subsystemNqn] = IDENTITY.exec(identity) ?? [];
    if (hostNqn === undefined || subsystemNqn === undefined) continue;
    const psk = getTlsPsk(store, hostNqn);
    if (psk === null) {
      why = `host ${quote(hostNqn)} has no TLS key`;
      continue;
    }
    const names = { hostNqn, subsystemNqn };
    const key = tlsCandidates(psk, names).find(
      (candidate) => candidate.identity === identity && binderIsOf(candidate, hello.bound, binder),
    );
    if (key !== undefined) {
      return { identity, sha384: key.hash === "sha384", secret: key.secret, ...names };
    }
    why = `the key of host ${quote(hostNqn)} is another`;
  }
  return why;
}
