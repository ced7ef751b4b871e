// The messages of DH-HMAC-CHAP as they lie on the wire (NVM Express Base Specification 2.0, section
// 8.13.5). Little-endian. What comes in is judged here, field by field; what it means is the
// handshake's.
//
//   byte 0     1      2..3      4..5    6 …
//   | type | id | reserved | T_ID | what the message is about … |
import { DH_GROUPS, DHCHAP_HASHES, type DhchapHash, type DhGroup } from "../../base/dhchap-key.js";

/** AUTH_TYPE and AUTH_ID. */
const COMMON = 0x00;
const DHCHAP = 0x01;
const NEGOTIATE = 0x00;
const CHALLENGE = 0x01;
const REPLY = 0x02;
const SUCCESS1 = 0x03;
const SUCCESS2 = 0x04;
const FAILURE2 = 0xf0;
const FAILURE1 = 0xf1;

/** Reason code explanations of a failure; the reason code is always 1, authentication failed. */
export const FAILURE = {
  failed: 0x01,
  protocolNotUsable: 0x02,
  secureChannelMismatch: 0x03,
  hashNotUsable: 0x04,
  groupNotUsable: 0x05,
  wrongPayload: 0x06,
  wrongMessage: 0x07,
} as const;
export type Failure = (typeof FAILURE)[keyof typeof FAILURE];

export const HASH_BYTES: Record<DhchapHash, number> = { sha256: 32, sha384: 48, sha512: 64 };

const HEADER_BYTES = 8;
const DESCRIPTOR_BYTES = 64;
/** Of a descriptor's 60 bytes of ids, hashes have the first half and groups the second. */
const ID_BYTES = 30;
const REPLY_BYTES = 16;
const SUCCESS2_BYTES = 16;

export interface Negotiation {
  transaction: number;
  secureChannel: number;
  /** What the host can do, of what we know; in its order. */
  hashes: DhchapHash[];
  groups: DhGroup[];
}

export interface Reply {
  transaction: number;
  response: Uint8Array;
  /** Null: the host does not ask us to prove who we are. */
  challenge: Uint8Array | null;
  sequence: number;
  dhValue: Uint8Array;
}

export type Message =
  | ({ kind: "negotiate" } & Negotiation)
  | ({ kind: "reply" } & Reply)
  | { kind: "success2"; transaction: number }
  | { kind: "failure2"; transaction: number };

/** `hash` is the one that was chosen, null before that. Gives a reason to fail if it is none. */
export function parseMessage(bytes: Uint8Array, hash: DhchapHash | null): Message | Failure {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (data.length < HEADER_BYTES) return FAILURE.wrongPayload;
  const transaction = data.readUInt16LE(4);
  switch (data.readUInt8(0) * 256 + data.readUInt8(1)) {
    case COMMON * 256 + NEGOTIATE:
      return parseNegotiate(data, transaction);
    case DHCHAP * 256 + REPLY:
      return hash === null ? FAILURE.wrongMessage : parseReply(data, transaction, hash);
    case DHCHAP * 256 + SUCCESS2:
      if (data.length !== SUCCESS2_BYTES) return FAILURE.wrongPayload;
      return { kind: "success2", transaction };
    case COMMON * 256 + FAILURE2:
      return { kind: "failure2", transaction };
    default:
      return FAILURE.wrongMessage;
  }
}

function parseNegotiate(data: Buffer, transaction: number): Message | Failure {
  const secureChannel = data.readUInt8(6);
  const protocols = data.readUInt8(7);
  if (protocols === 0 || data.length !== HEADER_BYTES + protocols * DESCRIPTOR_BYTES) {
    return FAILURE.wrongPayload;
  }
  for (let index = 0; index < protocols; index++) {
    const at = HEADER_BYTES + index * DESCRIPTOR_BYTES;
    const descriptor = data.subarray(at, at + DESCRIPTOR_BYTES);
    if (descriptor.readUInt8(0) !== DHCHAP) continue;
    const hashCount = descriptor.readUInt8(2);
    const groupCount = descriptor.readUInt8(3);
    if (hashCount > ID_BYTES || groupCount > ID_BYTES) return FAILURE.wrongPayload;
    const ids = (offset: number, count: number) => [...descriptor.subarray(offset, offset + count)];
    return {
      kind: "negotiate",
      transaction,
      secureChannel,
      hashes: ids(4, hashCount).flatMap((id) => DHCHAP_HASHES[id - 1] ?? []),
      groups: ids(4 + ID_BYTES, groupCount).flatMap((id) => DH_GROUPS[id] ?? []),
    };
  }
  return FAILURE.protocolNotUsable;
}

function parseReply(data: Buffer, transaction: number, hash: DhchapHash): Message | Failure {
  if (data.length < REPLY_BYTES) return FAILURE.wrongPayload;
  const hashBytes = data.readUInt8(6);
  const dhBytes = data.readUInt16LE(10);
  const values = data.subarray(REPLY_BYTES);
  const right = hashBytes === HASH_BYTES[hash] && values.length === 2 * hashBytes + dhBytes;
  const asksUs = data.readUInt8(8);
  if (!right || asksUs > 1) return FAILURE.wrongPayload;
  return {
    kind: "reply",
    transaction,
    response: values.subarray(0, hashBytes),
    challenge: asksUs === 1 ? values.subarray(hashBytes, 2 * hashBytes) : null,
    sequence: data.readUInt32LE(12),
    dhValue: values.subarray(2 * hashBytes),
  };
}

export interface Challenge {
  transaction: number;
  hash: DhchapHash;
  group: DhGroup;
  sequence: number;
  challenge: Uint8Array;
  /** Empty without a group. */
  dhValue: Uint8Array;
}

export function challengeMessage(of: Challenge): Uint8Array {
  const head = header(DHCHAP, CHALLENGE, of.transaction, 16);
  head.writeUInt8(HASH_BYTES[of.hash], 6);
  head.writeUInt8(DHCHAP_HASHES.indexOf(of.hash) + 1, 8);
  head.writeUInt8(DH_GROUPS.indexOf(of.group), 9);
  head.writeUInt16LE(of.dhValue.length, 10);
  head.writeUInt32LE(of.sequence, 12);
  return Buffer.concat([head, of.challenge, of.dhValue]);
}

/** `response`: our proof, null if the host asked for none. */
export function success1Message(
  transaction: number,
  hash: DhchapHash,
  response: Uint8Array | null,
): Uint8Array {
  const head = header(DHCHAP, SUCCESS1, transaction, 16);
  head.writeUInt8(HASH_BYTES[hash], 6);
  head.writeUInt8(response === null ? 0 : 1, 8);
  return Buffer.concat([head, response ?? Buffer.alloc(HASH_BYTES[hash])]);
}

export function failure1Message(transaction: number, failure: Failure): Uint8Array {
  const head = header(COMMON, FAILURE1, transaction, 8);
  head.writeUInt8(1, 6);
  head.writeUInt8(failure, 7);
  return head;
}

function header(type: number, id: number, transaction: number, bytes: number): Buffer {
  const head = Buffer.alloc(bytes);
  head.writeUInt8(type, 0);
  head.writeUInt8(id, 1);
  head.writeUInt16LE(transaction, 4);
  return head;
}
