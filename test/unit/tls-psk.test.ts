// Pre-shared keys of TLS: nvme-cli's form of them, what is derived of them, and which key a
// ClientHello is about. The derivation is written here once more, by the specifications; what hosts
// really do is in system/authentication.
import { createHash, createHmac, hkdfSync } from "node:crypto";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  formatTlsPsk,
  parseTlsPsk,
  type TlsPsk,
  tlsCandidates,
} from "../../engine/base/tls-psk.js";
import { binderIsOf, parseClientHello } from "../../engine/core/auth/client-hello.js";
import { findKey } from "../../engine/core/auth/tls-keys.js";
import { listTlsHosts, putTlsPsk } from "../../engine/store/host-keys.js";
import { ModelStore } from "../sim/model-store.js";
import { offerHello } from "../support/tls-hello.js";

const HOST = "nqn.2014-08.org.example:host";
const SUBSYSTEM = "nqn.2014-08.org.example:volume";
const names = { hostNqn: HOST, subsystemNqn: SUBSYSTEM };
const psk = (bytes: number, transform: TlsPsk["transform"]): TlsPsk => ({
  transform,
  secret: Buffer.alloc(bytes, 7),
});
const SHORT = psk(32, "sha256");
const LONG = psk(48, "sha384");

test("a key is read and written, and every flipped letter is found", () => {
  for (const key of [SHORT, LONG, psk(32, null), psk(48, null)]) {
    const text = formatTlsPsk(key);
    const { transform, secret } = parseTlsPsk(`${text}\n`, "TLS key");
    assert.equal([transform, Buffer.from(secret)], [key.transform, key.secret]);
    for (let at = 0; at < text.length; at++) {
      const letter = text[at] === "Q" ? "R" : "Q";
      const bad = text.slice(0, at) + letter + text.slice(at + 1);
      const error = caught(() => parseTlsPsk(bad, "TLS key"));
      assert.match(error.message, /the TLS key is not a TLS key of NVMe\/TCP/);
      assert.not.match(error.message, text.slice(20, 40));
    }
  }
  // Made by nvme-cli: nvme gen-tls-key --hmac=1 --secret=… of 32 bytes 00 01 02 …
  const known = "NVMeTLSkey-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
  assert.is(formatTlsPsk(parseTlsPsk(known, "TLS key")), known);
  for (const bad of ["", "NVMeTLSkey-1:03:AAAA:", formatTlsPsk(psk(32, "sha384"))]) {
    assert.match(caught(() => parseTlsPsk(bad, "TLS key")).message, /is not a TLS key/);
  }
});

test("TLS keys are derived as the specification says, and as older hosts do", () => {
  for (const [key, hash, number] of [
    [SHORT, "sha256", "01"],
    [LONG, "sha384", "02"],
    [psk(48, null), "sha384", "02"],
  ] as const) {
    const size = key.secret.length;
    const expand = (from: Uint8Array, text: string, context: string, old: boolean) => {
      const lengths = old ? ["", ""] : [text, context].map((of) => String.fromCharCode(of.length));
      const body = `${lengths[0]}${text}${lengths[1]}${context}`;
      const info = Buffer.concat([
        old ? Buffer.of(size, 0) : Buffer.of(0, size),
        Buffer.from(body),
      ]);
      return Buffer.from(hkdfSync(hash, from, Buffer.alloc(0), info, size));
    };
    const expected = [false, true].flatMap((old) => {
      const retained =
        key.transform === null ? key.secret : expand(key.secret, "tls13 HostNQN", HOST, old);
      const digest = createHmac(hash, retained)
        .update(`${HOST} ${SUBSYSTEM} NVMe-over-Fabrics`)
        .digest("base64");
      const plain = `NVMe0R${number} ${HOST} ${SUBSYSTEM}`;
      const second = `NVMe1R${number} ${HOST} ${SUBSYSTEM} ${digest}`;
      return [
        { identity: plain, hash, secret: expand(retained, "tls13 nvme-tls-psk", plain, old) },
        {
          identity: second,
          hash,
          secret: expand(retained, "tls13 nvme-tls-psk", `${number} ${digest}`, old),
        },
      ];
    });
    assert.equal(tlsCandidates(key, names), expected);
  }
});

test("a ClientHello's binder says whether the host has the key", () => {
  for (const candidate of tlsCandidates(LONG, names)) {
    const hello = parseClientHello(offerHello([candidate]));
    assert.is(hello?.offered.length, 1);
    const [offered] = hello?.offered ?? [];
    assert.is(offered?.identity, candidate.identity);
    const { bound = Buffer.alloc(0) } = hello ?? {};
    const { binder = Buffer.alloc(0) } = offered ?? {};
    assert.ok(binderIsOf(candidate, bound, binder));
    const other = { ...candidate, secret: createHash("sha384").update("other").digest() };
    assert.not.ok(binderIsOf(other, bound, binder));
    assert.not.ok(binderIsOf(candidate, bound.subarray(1), binder));
  }
});

test("a ClientHello that is cut or changed is none, or proves nothing", () => {
  const [candidate] = tlsCandidates(SHORT, names);
  if (candidate === undefined) throw new Error("no candidate");
  const whole = offerHello([candidate]);
  for (let size = 0; size < whole.length; size++) {
    assert.is(parseClientHello(whole.subarray(0, size)), null);
  }
  for (let at = 0; at < whole.length; at++) {
    const bad = Buffer.from(whole);
    bad.writeUInt8(bad.readUInt8(at) ^ 0x5a, at);
    const hello = parseClientHello(bad);
    const proven = hello?.offered.some(({ identity, binder }) => {
      return identity === candidate.identity && binderIsOf(candidate, hello.bound, binder);
    });
    assert.not.ok(proven, `changed at ${at}`);
  }
});

test("the key is that of the host and the subsystem in the identity", async () => {
  const store = new ModelStore();
  await store.transact((txn) => putTlsPsk(txn, HOST, LONG));
  assert.equal(listTlsHosts(store), [HOST]);
  const ask = (offered: Parameters<typeof offerHello>[0]) => {
    const hello = parseClientHello(offerHello(offered));
    return hello === null ? null : findKey(store, hello);
  };
  const [first, second, ...old] = tlsCandidates(LONG, names);
  if (first === undefined || second === undefined) throw new Error("no candidates");
  for (const each of [first, second, ...old]) {
    const { identity, secret } = each;
    assert.equal(ask([each]), { identity, secret, sha384: true, ...names });
  }
  // Others may come first.
  const ticket = { identity: "\u0001 a ticket", hash: "sha256", secret: LONG.secret } as const;
  assert.equal((ask([ticket, second]) as { identity: string }).identity, second.identity);

  const wrong = { ...first, secret: Buffer.alloc(48, 9) };
  assert.match(String(ask([wrong])), /^the key of host "nqn\S+ is another$/);
  const crossed = { ...first, identity: second.identity };
  assert.match(String(ask([crossed])), /is another$/);
  const [ofOther] = tlsCandidates(LONG, { ...names, hostNqn: `${HOST}2` });
  assert.match(String(ask([ofOther as typeof first])), /has no TLS key$/);
  const generated = { ...first, identity: first.identity.replace("0R", "0G") };
  assert.is(ask([generated]), "it offers no key of NVMe/TCP");
  assert.is(ask([ticket]), "it offers no key of NVMe/TCP");
  const [shorter] = tlsCandidates(SHORT, names);
  assert.match(String(ask([shorter as typeof first])), /is another$/);
});

function caught(work: () => unknown): Error {
  try {
    work();
  } catch (error) {
    return error as Error;
  }
  throw new Error("it did not fail");
}

test.run();
