// A secret of DH-HMAC-CHAP in the form that nvme-cli makes and hosts store (NVM Express Base
// Specification 2.0, section 8.13.5.8):
//
//   DHHC-1:HH:BASE64:     HH 00: used as it is; 01, 02, 03: transformed with SHA-256, -384, -512
//                         BASE64: the secret, 32, 48 or 64 bytes, and its CRC-32, little-endian
//
// An error never repeats what it is about: it may be a secret with one wrong letter.
import { createHmac } from "node:crypto";
import { PandoError } from "./errors.js";

export const DHCHAP_HASHES = ["sha256", "sha384", "sha512"] as const;
export type DhchapHash = (typeof DHCHAP_HASHES)[number];

/** By their numbers in the protocol; "null": without a Diffie-Hellman exchange. */
export const DH_GROUPS = [
  "null",
  "ffdhe2048",
  "ffdhe3072",
  "ffdhe4096",
  "ffdhe6144",
  "ffdhe8192",
] as const;
export type DhGroup = (typeof DH_GROUPS)[number];

/** What is accepted of a host, what is liked best first. */
export interface DhchapPolicy {
  readonly hashes: readonly DhchapHash[];
  readonly groups: readonly DhGroup[];
}

export const DEFAULT_POLICY: DhchapPolicy = {
  hashes: ["sha512", "sha384", "sha256"],
  groups: ["ffdhe3072", "ffdhe2048", "ffdhe4096", "ffdhe6144", "ffdhe8192", "null"],
};

export interface DhchapKey {
  /** Null: the secret is used as it is. */
  hash: DhchapHash | null;
  secret: Uint8Array;
}

const SECRET_BYTES: Record<DhchapHash, number> = { sha256: 32, sha384: 48, sha512: 64 };
const CRC_BYTES = 4;

export function parseDhchapKey(text: string, field: string): DhchapKey {
  const fail = (why: string): never => {
    throw new PandoError("EINVAL", `the ${field} is not a DH-HMAC-CHAP key: ${why}`, {
      field,
      hint: "make one with nvme gen-dhchap-key",
    });
  };
  const match = /^DHHC-1:([0-9a-fA-F]{2}):([A-Za-z0-9+/]+={0,2}):$/.exec(text.trim());
  if (match === null) return fail("it does not look like DHHC-1:00:…:");
  const number = Number.parseInt(match[1] as string, 16);
  if (number > DHCHAP_HASHES.length) return fail(`it has an unknown hash, ${match[1]}`);
  const hash = DHCHAP_HASHES[number - 1] ?? null;
  const bytes = Buffer.from(match[2] as string, "base64");
  const length = bytes.length - CRC_BYTES;
  const expected = hash === null ? Object.values(SECRET_BYTES) : [SECRET_BYTES[hash]];
  if (!expected.includes(length)) {
    return fail(`its secret has ${Math.max(length, 0)} bytes, not ${expected.join(", ")}`);
  }
  const secret = bytes.subarray(0, length);
  if (bytes.readUInt32LE(length) !== crc32(secret)) return fail("its checksum is wrong");
  return { hash, secret };
}

export function formatDhchapKey({ hash, secret }: DhchapKey): string {
  const crc = Buffer.alloc(CRC_BYTES);
  crc.writeUInt32LE(crc32(secret));
  const number = hash === null ? 0 : DHCHAP_HASHES.indexOf(hash) + 1;
  return `DHHC-1:0${number}:${Buffer.concat([secret, crc]).toString("base64")}:`;
}

/** The key as the protocol uses it: bound to the name of whose it is (section 8.13.5.7). */
export function transformDhchapKey({ hash, secret }: DhchapKey, nqn: string): Uint8Array {
  if (hash === null) return secret;
  return createHmac(hash, secret).update(nqn).update("NVMe-over-Fabrics").digest();
}

/** CRC-32 of IEEE 802.3, bit by bit: it is for 64 bytes at a time. */
export function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
