// A pre-shared key of a host, in the form that nvme-cli makes and hosts store (NVMe/TCP Transport
// Specification 1.1, section 3.6.1.5), and what TLS is given of it:
//
//   NVMeTLSkey-1:HH:BASE64:   HH 00: used as it is; 01, 02: bound to the host, with SHA-256, -384
//                             BASE64: the key, 32 or 48 bytes, and its CRC-32, little-endian
//
//   configured key ──► retained key ──► TLS key     each by HKDF; the last one is also bound to the
//                      (host)           (identity)  identity, which names host and subsystem
//
// libnvme before 2.0 leaves the lengths out of HKDF's labels and has the one that is left in the
// machine's order. Hosts that have it cannot do otherwise, so both ways are offered: each is as
// good.
//
// An error never repeats what it is about: it may be a key with one wrong letter.
import { createHmac, hkdfSync } from "node:crypto";
import { crc32 } from "./dhchap-key.js";
import { PandoError } from "./errors.js";

export type TlsHash = "sha256" | "sha384";

export interface TlsPsk {
  /** With what the key is bound to the host; null: it is used as it is. */
  transform: TlsHash | null;
  secret: Uint8Array;
}

/** What a host may show, and the key that goes with it. */
export interface TlsCandidate {
  identity: string;
  hash: TlsHash;
  secret: Uint8Array;
}

const HASHES: readonly TlsHash[] = ["sha256", "sha384"];
export const TLS_SECRET_BYTES: Record<TlsHash, number> = { sha256: 32, sha384: 48 };
const CRC_BYTES = 4;

export function parseTlsPsk(text: string, field: string): TlsPsk {
  const fail = (why: string): never => {
    throw new PandoError("EINVAL", `the ${field} is not a TLS key of NVMe/TCP: ${why}`, {
      field,
      hint: "make one with nvme gen-tls-key",
    });
  };
  const match = /^NVMeTLSkey-1:([0-9a-fA-F]{2}):([A-Za-z0-9+/]+={0,2}):$/.exec(text.trim());
  if (match === null) return fail("it does not look like NVMeTLSkey-1:01:…:");
  const number = Number.parseInt(match[1] as string, 16);
  if (number > HASHES.length) return fail(`it has an unknown hash, ${match[1]}`);
  const transform = HASHES[number - 1] ?? null;
  const bytes = Buffer.from(match[2] as string, "base64");
  const length = bytes.length - CRC_BYTES;
  const expected =
    transform === null ? Object.values(TLS_SECRET_BYTES) : [TLS_SECRET_BYTES[transform]];
  if (!expected.includes(length)) {
    return fail(`it has ${Math.max(length, 0)} bytes, not ${expected.join(" or ")}`);
  }
  const secret = bytes.subarray(0, length);
  if (bytes.readUInt32LE(length) !== crc32(secret)) return fail("its checksum is wrong");
  return { transform, secret };
}

export function formatTlsPsk({ transform, secret }: TlsPsk): string {
  const crc = Buffer.alloc(CRC_BYTES);
  crc.writeUInt32LE(crc32(secret));
  const number = transform === null ? 0 : HASHES.indexOf(transform) + 1;
  return `NVMeTLSkey-1:0${number}:${Buffer.concat([secret, crc]).toString("base64")}:`;
}

/** Everything that a host with this key may show for this subsystem. */
export function tlsCandidates(
  { transform, secret }: TlsPsk,
  names: { hostNqn: string; subsystemNqn: string },
): TlsCandidate[] {
  const { hostNqn, subsystemNqn } = names;
  // The hash is that of the cipher suite: of a key that is used as it is, its length tells.
  const hash = secret.length === TLS_SECRET_BYTES.sha256 ? "sha256" : "sha384";
  const bytes = secret.length;
  const number = `0${HASHES.indexOf(hash) + 1}`;
  return [label, oldLabel].flatMap((labelOf) => {
    const derive = (key: Uint8Array, text: string, context: string) =>
      Buffer.from(hkdfSync(hash, key, "", labelOf(bytes, text, context), bytes));
    const retained = transform === null ? secret : derive(secret, "HostNQN", hostNqn);
    const digest = createHmac(hash, retained)
      .update(`${hostNqn} ${subsystemNqn} NVMe-over-Fabrics`)
      .digest("base64");
    const names = `R${number} ${hostNqn} ${subsystemNqn}`;
    const made = (identity: string, context: string): TlsCandidate => ({
      identity,
      hash,
      secret: derive(retained, "nvme-tls-psk", context),
    });
    const first = `NVMe0${names}`;
    return [made(first, first), made(`NVMe1${names} ${digest}`, `${number} ${digest}`)];
  });
}

/**
 * For a place that has one key for an identity, as the kernel's key ring does. Where both ways of
 * deriving have the same identity it is libnvme's before 2.0, which every host can use.
 */
export function tlsKeysByIdentity(
  psk: TlsPsk,
  names: { hostNqn: string; subsystemNqn: string },
): Map<string, Uint8Array> {
  return new Map(tlsCandidates(psk, names).map(({ identity, secret }) => [identity, secret]));
}

/** RFC 8446, section 7.1: HkdfLabel. */
function label(bytes: number, text: string, context: string): Uint8Array {
  const [name, about] = [Buffer.from(`tls13 ${text}`), Buffer.from(context)];
  const length = Buffer.alloc(2);
  length.writeUInt16BE(bytes);
  return Buffer.concat([length, Buffer.of(name.length), name, Buffer.of(about.length), about]);
}

function oldLabel(bytes: number, text: string, context: string): Uint8Array {
  const length = Buffer.alloc(2);
  length.writeUInt16LE(bytes);
  return Buffer.concat([length, Buffer.from(`tls13 ${text}${context}`)]);
}
