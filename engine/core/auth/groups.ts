// The Diffie-Hellman groups of DH-HMAC-CHAP: those of RFC 7919, by the formula from which the RFC
// has them, with generator 2:
//
//   p = 2^b - 2^(b-64) + (floor(2^(b-130) * e) + X) * 2^64 - 1
//
// Exponents are short, as the RFC allows (section 5.2): a handshake with the largest group takes
// some milliseconds, not a second.
import { createDiffieHellman } from "node:crypto";
import type { DhGroup } from "../../base/dhchap-key.js";

export type RealGroup = Exclude<DhGroup, "null">;

const OFFSETS: Record<RealGroup, { bits: number; x: bigint }> = {
  ffdhe2048: { bits: 2048, x: 560316n },
  ffdhe3072: { bits: 3072, x: 2625351n },
  ffdhe4096: { bits: 4096, x: 5736041n },
  ffdhe6144: { bits: 6144, x: 15705020n },
  ffdhe8192: { bits: 8192, x: 10965728n },
};
/** More than twice the strength of the largest group. */
const EXPONENT_BYTES = 64;

export interface DhExchange {
  /** What the other side gets. */
  publicValue: Uint8Array;
  /** g^xy mod p, as long as p. Null: the peer's value is none of the group. */
  secret(peerValue: Uint8Array): Uint8Array | null;
}

export function startExchange(
  group: RealGroup,
  newBytes: (count: number) => Uint8Array,
): DhExchange {
  const prime = primeOf(group);
  const dh = createDiffieHellman(prime, 2);
  dh.setPrivateKey(newBytes(EXPONENT_BYTES));
  const publicValue = padded(dh.generateKeys(), prime.length);
  return {
    publicValue,
    secret(peerValue) {
      // 0, 1 and p - 1 would make the secret known to everybody.
      const peer = toBigInt(peerValue);
      if (peerValue.length !== prime.length || peer < 2n || peer > toBigInt(prime) - 2n)
        return null;
      return padded(dh.computeSecret(peerValue), prime.length);
    },
  };
}

const primes = new Map<RealGroup, Uint8Array>();

export function primeOf(group: RealGroup): Uint8Array {
  const known = primes.get(group);
  if (known !== undefined) return known;
  const { bits, x } = OFFSETS[group];
  const b = BigInt(bits);
  const value = (1n << b) - (1n << (b - 64n)) + ((scaledE(b - 130n) + x) << 64n) - 1n;
  const prime = Buffer.from(value.toString(16), "hex");
  primes.set(group, prime);
  return prime;
}

/** floor(2^bits * e), by the series of e with some bits to spare. */
function scaledE(bits: bigint): bigint {
  const spare = 64n;
  let term = 1n << (bits + spare);
  let sum = term;
  for (let n = 1n; term > 0n; n++) {
    term /= n;
    sum += term;
  }
  return sum >> spare;
}

function padded(value: Uint8Array, length: number): Uint8Array {
  return value.length === length
    ? value
    : Buffer.concat([Buffer.alloc(length - value.length), value]);
}

function toBigInt(value: Uint8Array): bigint {
  return value.length === 0 ? 0n : BigInt(`0x${Buffer.from(value).toString("hex")}`);
}
