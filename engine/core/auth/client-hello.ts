// What a ClientHello says about pre-shared keys (RFC 8446, section 4.2.11): the identities that the
// host offers, and for each a proof that it has the key, the binder. It is anybody's bytes: nothing
// is believed before it has been compared with the length that is left.
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { TlsHash } from "../../base/tls-psk.js";

export interface OfferedKey {
  identity: string;
  binder: Uint8Array;
}

export interface ClientHello {
  offered: OfferedKey[];
  /** What the binders are about. */
  bound: Uint8Array;
}

const CLIENT_HELLO = 1;
const PRE_SHARED_KEY = 41;
/** A host has one key for a subsystem, and may name it in some ways. */
const MAX_OFFERED = 8;

/** Null: it is none, or offers no key. From the handshake header on. */
export function parseClientHello(bytes: Uint8Array): ClientHello | null {
  try {
    return parse(Buffer.from(bytes));
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

/** Whether who has made `binder` has this key (RFC 8446, sections 4.2.11.2 and 7.1). */
export function binderIsOf(
  key: { hash: TlsHash; secret: Uint8Array },
  bound: Uint8Array,
  binder: Uint8Array,
): boolean {
  const { hash, secret } = key;
  const mac = (by: Uint8Array, about: Uint8Array) => createHmac(hash, by).update(about).digest();
  const digest = (of: Uint8Array) => createHash(hash).update(of).digest();
  const size = digest(Buffer.alloc(0)).length;
  const expand = (from: Uint8Array, text: string, context: Uint8Array) => {
    const name = Buffer.from(`tls13 ${text}`);
    const head = Buffer.of(0, size, name.length);
    const info = [head, name, Buffer.of(context.length), context, Buffer.of(1)];
    return mac(from, Buffer.concat(info));
  };
  const early = mac(Buffer.alloc(size), secret);
  const binderKey = expand(early, "ext binder", digest(Buffer.alloc(0)));
  const finished = expand(binderKey, "finished", Buffer.alloc(0));
  const expected = mac(finished, digest(bound));
  return binder.length === expected.length && timingSafeEqual(binder, expected);
}

function parse(bytes: Buffer): ClientHello | null {
  const message = new Reader(bytes);
  if (message.number(1) !== CLIENT_HELLO || message.number(3) !== bytes.length - 4) return null;
  message.take(2 + 32); // version, random
  message.list(1); // session
  message.list(2); // suites
  message.list(1); // compressions
  const extensions = new Reader(message.list(2));
  while (extensions.left > 0) {
    const type = extensions.number(2);
    const body = extensions.list(2);
    if (type !== PRE_SHARED_KEY) continue;
    // The last one, so that the binders end the message.
    return extensions.left > 0 || message.left > 0 ? null : offeredIn(new Reader(body), bytes);
  }
  return null;
}

function offeredIn(extension: Reader, whole: Buffer): ClientHello | null {
  const identities = new Reader(extension.list(2));
  const bound = whole.subarray(0, whole.length - extension.left);
  const binders = new Reader(extension.list(2));
  if (extension.left > 0) return null;
  const offered: OfferedKey[] = [];
  while (identities.left > 0 && offered.length < MAX_OFFERED) {
    const identity = identities.list(2).toString("utf8");
    identities.take(4); // how old a ticket is
    offered.push({ identity, binder: binders.list(1) });
  }
  return { offered, bound };
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  take(size: number): Buffer {
    if (size > this.left) throw new RangeError("the message is too short");
    this.#at += size;
    return this.#bytes.subarray(this.#at - size, this.#at);
  }

  number(size: number): number {
    return this.take(size).readUIntBE(0, size);
  }

  /** Its length comes first. */
  list(lengthBytes: number): Buffer {
    return this.take(this.number(lengthBytes));
  }
}
