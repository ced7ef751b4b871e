// DH-HMAC-CHAP: keys, groups, and the handshake with a host that is written here once more, by the
// specification. Each message that is wrong is refused with the reason that the specification has.
import { createHash, createHmac, randomBytes } from "node:crypto";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  DEFAULT_POLICY,
  DH_GROUPS,
  DHCHAP_HASHES,
  type DhchapHash,
  type DhchapKey,
  type DhGroup,
  formatDhchapKey,
  parseDhchapKey,
  transformDhchapKey,
} from "../../engine/base/dhchap-key.js";
import { primeOf, startExchange } from "../../engine/core/auth/groups.js";
import { Handshake, type HandshakeOptions } from "../../engine/core/auth/handshake.js";
import { FAILURE, HASH_BYTES } from "../../engine/core/auth/messages.js";

const HOST = "nqn.2014-08.org.example:host";
const SUBSYSTEM = "nqn.2014-08.org.example:volume";
const key = (bytes: number, fill: number, hash: DhchapHash | null = null): DhchapKey => ({
  hash,
  secret: Buffer.alloc(bytes, fill),
});
const HOST_KEY = key(32, 1);
const CONTROLLER_KEY = key(48, 2, "sha384");

test("a key is read and written, and every flipped letter is found", () => {
  // Made by nvme-cli: nvme gen-dhchap-key --hmac=1 --secret=… of 32 bytes 00 01 02 …
  const text = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
  const { hash, secret } = parseDhchapKey(text, "host key");
  assert.is(hash, "sha256");
  assert.equal(
    [...secret],
    Array.from({ length: 32 }, (_, index) => index),
  );
  assert.is(formatDhchapKey({ hash, secret }), text);
  for (let at = 0; at < text.length; at++) {
    const letter = text[at] === "Q" ? "R" : "Q";
    const bad = text.slice(0, at) + letter + text.slice(at + 1);
    const error = caught(() => parseDhchapKey(bad, "host key"));
    assert.match(error.message, /host key is not a DH-HMAC-CHAP key/);
    assert.not.match(error.message, text.slice(10, 40));
  }
  for (const bad of ["", "DHHC-1:04:AAAA:", "DHHC-1:02:AAECAw==:", `${text}${text}`]) {
    assert.match(caught(() => parseDhchapKey(bad, "host key")).message, /not a DH-HMAC-CHAP key/);
  }
});

test("a transformed key is bound to a name", () => {
  const expected = createHmac("sha384", CONTROLLER_KEY.secret)
    .update(`${SUBSYSTEM}NVMe-over-Fabrics`)
    .digest();
  assert.equal(Buffer.from(transformDhchapKey(CONTROLLER_KEY, SUBSYSTEM)), expected);
  assert.is(transformDhchapKey(HOST_KEY, HOST), HOST_KEY.secret);
});

test("the groups are RFC 7919's", () => {
  // SHA-256 of the primes as OpenSSL has them.
  const digests: [Exclude<DhGroup, "null">, number, string][] = [
    ["ffdhe2048", 2048, "9cd3b7f336872f46c09428d1bbc19877a4d440512cda8d1c1cf0cd6e33698966"],
    ["ffdhe3072", 3072, "0eaf67db3a839156d5013494a5318a772b5697d270d721f37f092efc69ea5a17"],
    ["ffdhe4096", 4096, "4648414224ac881b3d0dc59b466f96d06a558278776807797ecf1f66ff397b3e"],
    ["ffdhe6144", 6144, "227ac9066b3ddd9e193670cda2388fa884f65ba0cf98b742d1fe77a6687c79c7"],
    ["ffdhe8192", 8192, "770b14efaf6f049929c523113b3fa99a8d11dab1b18af3609590122075d19833"],
  ];
  for (const [group, bits, digest] of digests) {
    const prime = primeOf(group);
    assert.is(prime.length * 8, bits);
    assert.is(createHash("sha256").update(prime).digest("hex"), digest, group);
  }
});

test("two sides of an exchange have one secret, and a value outside the group has none", () => {
  const one = startExchange("ffdhe2048", randomBytes);
  const other = startExchange("ffdhe2048", randomBytes);
  assert.equal(one.secret(other.publicValue), other.secret(one.publicValue));
  const prime = Buffer.from(primeOf("ffdhe2048"));
  const less = Buffer.from(prime);
  less[less.length - 1] = (less.at(-1) ?? 0) - 1;
  const small = (value: number) => Buffer.concat([Buffer.alloc(255), Buffer.of(value)]);
  for (const bad of [small(0), small(1), less, prime, Buffer.alloc(0), Buffer.alloc(255, 2)]) {
    assert.is(one.secret(bad), null);
  }
});

/** A host of our own. */
class Host {
  transaction = 0x1234;
  hashes: number[] = [1, 2, 3];
  groups: number[] = [0, 1, 2, 3, 4, 5];
  hostKey = HOST_KEY;
  controllerKey: DhchapKey | null = null;
  hostNqn = HOST;
  sequence = 77;
  challenge: Buffer = randomBytes(64);
  session: Uint8Array | null = null;
  hash: DhchapHash = "sha256";

  negotiate(): Buffer {
    const message = Buffer.alloc(8 + 64);
    message.writeUInt16LE(this.transaction, 4);
    message[7] = 1;
    message[8] = 1;
    message[10] = this.hashes.length;
    message[11] = this.groups.length;
    Buffer.from(this.hashes).copy(message, 12);
    Buffer.from(this.groups).copy(message, 42);
    return message;
  }

  reply(bytes: Uint8Array): Buffer {
    const message = Buffer.from(bytes);
    assert.equal([message[0], message[1], message.readUInt16LE(4)], [1, 1, this.transaction]);
    this.hash = DHCHAP_HASHES[(message[8] ?? 0) - 1] as DhchapHash;
    const size = HASH_BYTES[this.hash];
    assert.is(message[6], size);
    const group = DH_GROUPS[message[9] ?? 0] as DhGroup;
    const dhBytes = message.readUInt16LE(10);
    assert.is(message.length, 16 + size + dhBytes);
    const challenge = message.subarray(16, 16 + size);
    let value: Uint8Array = Buffer.alloc(0);
    if (group !== "null") {
      const exchange = startExchange(group, randomBytes);
      this.session = exchange.secret(message.subarray(16 + size));
      value = exchange.publicValue;
    }
    this.challenge = this.challenge.subarray(0, size);
    const sequence = message.readUInt32LE(12);
    const proof = this.proof(this.hostKey, this.hostNqn, challenge, sequence, "HostHost");
    const head = Buffer.alloc(16);
    head[0] = 1;
    head[1] = 2;
    head.writeUInt16LE(this.transaction, 4);
    head[6] = size;
    head[8] = this.controllerKey === null ? 0 : 1;
    head.writeUInt16LE(value.length, 10);
    head.writeUInt32LE(this.sequence, 12);
    return Buffer.concat([head, proof, this.challenge, value]);
  }

  proof(from: DhchapKey, own: string, challenge: Buffer, sequence: number, role: string): Buffer {
    const other = own === SUBSYSTEM ? this.hostNqn : SUBSYSTEM;
    const secret =
      from.hash === null
        ? from.secret
        : createHmac(from.hash, from.secret).update(`${own}NVMe-over-Fabrics`).digest();
    const numbers = Buffer.alloc(7);
    numbers.writeUInt32LE(sequence, 0);
    numbers.writeUInt16LE(this.transaction, 4);
    const augmented =
      this.session === null
        ? challenge
        : createHmac(this.hash, createHash(this.hash).update(this.session).digest())
            .update(challenge)
            .digest();
    return createHmac(this.hash, secret)
      .update(Buffer.concat([augmented, numbers, Buffer.from(`${role}${own}\0${other}`)]))
      .digest();
  }

  success2(): Buffer {
    const message = Buffer.alloc(16);
    message[0] = 1;
    message[1] = 4;
    message.writeUInt16LE(this.transaction, 4);
    return message;
  }
}

function handshake(changes: Partial<HandshakeOptions> = {}): Handshake {
  return new Handshake({
    hostNqn: HOST,
    subsystemNqn: SUBSYSTEM,
    hostKey: HOST_KEY,
    controllerKey: null,
    policy: DEFAULT_POLICY,
    newBytes: randomBytes,
    ...changes,
  });
}

/** The reason that the next message gives. */
function refused(controller: Handshake): number {
  const { message, verdict } = controller.give();
  assert.is(verdict, "failed");
  assert.equal([message[0], message[1], message[6]], [0, 0xf1, 1]);
  return message[7] as number;
}

test("every hash with every group, one way and both ways", () => {
  for (const hash of DHCHAP_HASHES) {
    for (const group of DH_GROUPS) {
      for (const both of [false, true]) {
        const host = new Host();
        if (both) host.controllerKey = CONTROLLER_KEY;
        const controller = handshake({
          policy: { hashes: [hash], groups: [group] },
          controllerKey: both ? CONTROLLER_KEY : null,
        });
        assert.is(controller.take(host.negotiate()), "pending");
        assert.is(controller.take(host.reply(controller.give().message)), "pending");
        const success = controller.give();
        assert.equal([success.message[0], success.message[1]], [1, 3], `${hash} ${group}`);
        assert.is(success.verdict, both ? "pending" : "authenticated");
        if (!both) continue;
        assert.is(success.message[8], 1);
        const expected = host.proof(
          CONTROLLER_KEY,
          SUBSYSTEM,
          host.challenge,
          host.sequence,
          "Controller",
        );
        assert.equal(Buffer.from(success.message.subarray(16)), expected);
        assert.is(controller.take(host.success2()), "authenticated");
      }
    }
  }
});

test("what is liked best is chosen of what both can", () => {
  const host = new Host();
  host.groups = [0, 1, 9, 3];
  const controller = handshake();
  controller.take(host.negotiate());
  const { message } = controller.give();
  assert.equal([message[8], message[9]], [3, 1], "SHA-512, ffdhe2048");
});

test("a wrong key, a wrong name, and no key at all are refused alike", () => {
  const cases: [Partial<Host>, Partial<HandshakeOptions>][] = [
    [{ hostKey: key(32, 9) }, {}],
    [{ hostKey: key(32, 1, "sha256") }, {}],
    [{ hostNqn: `${HOST}x` }, {}],
    [{}, { hostKey: null }],
    [{ controllerKey: CONTROLLER_KEY }, { controllerKey: null }],
  ];
  for (const [of, options] of cases) {
    const host = Object.assign(new Host(), of);
    const controller = handshake(options);
    controller.take(host.negotiate());
    assert.is(controller.take(host.reply(controller.give().message)), "pending");
    assert.is(refused(controller), FAILURE.failed);
  }
});

test("a reply of another handshake is worth nothing", () => {
  const host = new Host();
  const first = handshake({ policy: { hashes: ["sha256"], groups: ["null"] } });
  first.take(host.negotiate());
  const recorded = host.reply(first.give().message);
  const second = handshake({ policy: { hashes: ["sha256"], groups: ["null"] } });
  second.take(host.negotiate());
  second.give();
  second.take(recorded);
  assert.is(refused(second), FAILURE.failed);
  // Nor is our own challenge, sent back to have it answered by us.
  const mirror = new Host();
  mirror.controllerKey = CONTROLLER_KEY;
  const third = handshake({
    policy: { hashes: ["sha256"], groups: ["null"] },
    controllerKey: CONTROLLER_KEY,
  });
  third.take(mirror.negotiate());
  const { message } = third.give();
  mirror.challenge = Buffer.from(message.subarray(16, 48));
  third.take(mirror.reply(message));
  assert.is(refused(third), FAILURE.failed);
});

test("each wrong message has its reason", () => {
  const change = (message: Buffer, at: number, value: number) => {
    message[at] = value;
    return message;
  };
  const none = new Host();
  none.hashes = [9];
  const strange = new Host();
  strange.groups = [];
  const first: [Buffer, number][] = [
    [change(new Host().negotiate(), 6, 1), FAILURE.secureChannelMismatch],
    [none.negotiate(), FAILURE.hashNotUsable],
    [strange.negotiate(), FAILURE.groupNotUsable],
    [change(new Host().negotiate(), 8, 7), FAILURE.protocolNotUsable],
    [change(new Host().negotiate(), 7, 0), FAILURE.wrongPayload],
    [change(new Host().negotiate(), 7, 2), FAILURE.wrongPayload],
    [change(new Host().negotiate(), 10, 31), FAILURE.wrongPayload],
    [new Host().negotiate().subarray(0, 40), FAILURE.wrongPayload],
    [Buffer.alloc(3), FAILURE.wrongPayload],
    [change(new Host().negotiate(), 1, 5), FAILURE.wrongMessage],
    [new Host().success2(), FAILURE.wrongMessage],
  ];
  for (const [message, reason] of first) {
    const controller = handshake();
    assert.is(controller.take(message), "pending");
    assert.is(refused(controller), reason);
  }
  const second: [(reply: Buffer) => Buffer, number][] = [
    [(reply) => reply.subarray(0, reply.length - 1), FAILURE.wrongPayload],
    [(reply) => Buffer.concat([reply, Buffer.alloc(1)]), FAILURE.wrongPayload],
    [(reply) => reply.subarray(0, 12), FAILURE.wrongPayload],
    [(reply) => change(reply, 6, 31), FAILURE.wrongPayload],
    [(reply) => change(reply, 8, 2), FAILURE.wrongPayload],
    [(reply) => change(reply, 4, 0), FAILURE.wrongPayload],
    [() => new Host().negotiate(), FAILURE.wrongMessage],
    [() => new Host().success2(), FAILURE.wrongMessage],
  ];
  for (const [wrong, reason] of second) {
    const host = new Host();
    const controller = handshake();
    controller.take(host.negotiate());
    assert.is(controller.take(wrong(host.reply(controller.give().message))), "pending");
    assert.is(refused(controller), reason, String(wrong));
  }
  assert.is(refused(handshake()), FAILURE.wrongMessage, "nothing was negotiated");
  const failure2 = Buffer.from([0, 0xf0, 0, 0, 0, 0, 1, 1]);
  assert.is(handshake().take(failure2), "failed", "the host has given up");
});

test.run();

function caught(run: () => unknown): Error {
  try {
    run();
  } catch (error) {
    return error as Error;
  }
  throw new Error("nothing was thrown");
}
