// A ClientHello that offers pre-shared keys, each with its binder (RFC 8446, sections 4.1.2 and
// 4.2.11), from the handshake header on.
import { createHash, createHmac } from "node:crypto";

export interface Offer {
  identity: string;
  hash: "sha256" | "sha384";
  secret: Uint8Array;
}

export function offerHello(offers: readonly Offer[]): Buffer {
  const identities = list(
    2,
    ...offers.map(({ identity }) => Buffer.concat([list(2, Buffer.from(identity)), number(4, 0)])),
  );
  const sizes = offers.map(({ hash }) => createHash(hash).digest().length);
  const bindersSize = 2 + sizes.reduce((sum, size) => sum + 1 + size, 0);
  const preShared = [number(2, 41), number(2, identities.length + bindersSize), identities];
  const extensions = [
    Buffer.concat([number(2, 43), list(2, list(1, number(2, 0x0304)))]), // TLS 1.3
    Buffer.concat([number(2, 45), list(2, list(1, Buffer.of(1)))]), // with an exchange
    ...preShared,
  ];
  const before = [
    number(2, 0x0303),
    Buffer.alloc(32, 5),
    list(1),
    list(2, number(2, 0x1302), number(2, 0x1301)),
    list(1, Buffer.of(0)),
  ];
  const extensionBytes = extensions.reduce((sum, each) => sum + each.length, bindersSize);
  const body = Buffer.concat([...before, number(2, extensionBytes), ...extensions]);
  const bound = Buffer.concat([Buffer.of(1), number(3, body.length + bindersSize), body]);
  return Buffer.concat([bound, list(2, ...offers.map((offer) => list(1, bind(offer, bound))))]);
}

function bind({ hash, secret }: Offer, bound: Uint8Array): Buffer {
  const size = createHash(hash).digest().length;
  const expandLabel = (from: Uint8Array, text: string, context: Uint8Array) => {
    // One block of HKDF-Expand; Node has it only together with HKDF-Extract.
    const name = Buffer.from(`tls13 ${text}`);
    const label = Buffer.concat([number(2, size), list(1, name), list(1, context)]);
    return createHmac(hash, from).update(label).update(Buffer.of(1)).digest();
  };
  const early = createHmac(hash, Buffer.alloc(size)).update(secret).digest();
  const key = expandLabel(early, "ext binder", createHash(hash).digest());
  const finished = expandLabel(key, "finished", Buffer.alloc(0));
  return createHmac(hash, finished).update(createHash(hash).update(bound).digest()).digest();
}

function number(size: number, value: number): Buffer {
  const bytes = Buffer.alloc(size);
  bytes.writeUIntBE(value, 0, size);
  return bytes;
}

function list(lengthBytes: number, ...parts: Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([number(lengthBytes, body.length), body]);
}
