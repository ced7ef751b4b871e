// One queue's authentication by DH-HMAC-CHAP, from the controller's side (NVM Express Base
// Specification 2.0, section 8.13.5):
//
//   host                     controller
//   negotiate  ───────────►             what the host can do
//              ◄───────────  challenge  the hash, the group, C1, g^y
//   reply      ───────────►             R1, and, if we are to prove ourselves too, C2; g^x
//              ◄───────────  success1   R2 if asked for; or failure1
//   success2   ───────────►             only if R2 was asked for
//
// The keys never leave this process; what is compared is compared in constant time. A handshake is
// good for one transaction: a message of another one, or out of its turn, is a failure.
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { assert } from "../../base/assert.js";
import {
  type DhchapHash,
  type DhchapKey,
  type DhchapPolicy,
  type DhGroup,
  transformDhchapKey,
} from "../../base/dhchap-key.js";
import { type DhExchange, startExchange } from "./groups.js";
import {
  challengeMessage,
  FAILURE,
  type Failure,
  failure1Message,
  HASH_BYTES,
  type Negotiation,
  parseMessage,
  type Reply,
  success1Message,
} from "./messages.js";

export interface HandshakeOptions {
  hostNqn: string;
  subsystemNqn: string;
  /** Null: there is none any more, and every answer is wrong. */
  hostKey: DhchapKey | null;
  /** Null: we cannot prove who we are, and refuse a host that asks. */
  controllerKey: DhchapKey | null;
  policy: DhchapPolicy;
  newBytes: (count: number) => Uint8Array;
}

/** Of the queue, once the message at hand has been dealt with. */
export type Verdict = "pending" | "authenticated" | "failed";

type State = "negotiate" | "challenge" | "reply" | "success1" | "success2" | "failure1" | "over";

export class Handshake {
  readonly #options: HandshakeOptions;
  #state: State = "negotiate";
  #transaction = 0;
  #failure: Failure = FAILURE.failed;
  #hash: DhchapHash | null = null;
  #group: DhGroup = "null";
  #exchange: DhExchange | null = null;
  #challenge: Uint8Array = new Uint8Array();
  #sequence = 0;
  #response: Uint8Array | null = null;

  constructor(options: HandshakeOptions) {
    this.#options = options;
  }

  /** A message of the host's. */
  take(bytes: Uint8Array): Verdict {
    const message = parseMessage(bytes, this.#hash);
    if (typeof message === "number") return this.#fail(message);
    if (message.kind === "failure2") {
      this.#state = "over";
      return "failed";
    }
    if (message.kind !== this.#state) return this.#fail(FAILURE.wrongMessage);
    if (message.kind === "negotiate") return this.#negotiate(message);
    if (message.transaction !== this.#transaction) return this.#fail(FAILURE.wrongPayload);
    if (message.kind === "reply") return this.#check(message);
    this.#state = "over";
    return "authenticated";
  }

  /** Our next message. */
  give(): { message: Uint8Array; verdict: Verdict } {
    switch (this.#state) {
      case "challenge":
        this.#state = "reply";
        return { message: this.#challengeMessage(), verdict: "pending" };
      case "success1": {
        assert(this.#hash !== null, "a hash was chosen");
        const message = success1Message(this.#transaction, this.#hash, this.#response);
        this.#state = this.#response === null ? "over" : "success2";
        return { message, verdict: this.#response === null ? "authenticated" : "pending" };
      }
      case "failure1":
        break;
      default:
        this.#failure = FAILURE.wrongMessage;
    }
    this.#state = "over";
    return { message: failure1Message(this.#transaction, this.#failure), verdict: "failed" };
  }

  /** The host learns of it by our next message. */
  #fail(failure: Failure): Verdict {
    this.#failure = failure;
    this.#state = "failure1";
    return "pending";
  }

  #negotiate({ transaction, secureChannel, hashes, groups }: Negotiation): Verdict {
    this.#transaction = transaction;
    if (secureChannel !== 0) return this.#fail(FAILURE.secureChannelMismatch);
    const hash = this.#options.policy.hashes.find((ours) => hashes.includes(ours));
    if (hash === undefined) return this.#fail(FAILURE.hashNotUsable);
    const group = this.#options.policy.groups.find((ours) => groups.includes(ours));
    if (group === undefined) return this.#fail(FAILURE.groupNotUsable);
    const { newBytes } = this.#options;
    this.#hash = hash;
    this.#group = group;
    this.#exchange = group === "null" ? null : startExchange(group, newBytes);
    this.#challenge = newBytes(HASH_BYTES[hash]);
    // Never 0: that would say that nobody may ask us to prove ourselves.
    this.#sequence = Buffer.from(newBytes(4)).readUInt32LE() || 1;
    this.#state = "challenge";
    return "pending";
  }

  #challengeMessage(): Uint8Array {
    assert(this.#hash !== null, "a hash was chosen");
    return challengeMessage({
      transaction: this.#transaction,
      hash: this.#hash,
      group: this.#group,
      sequence: this.#sequence,
      challenge: this.#challenge,
      dhValue: this.#exchange?.publicValue ?? new Uint8Array(),
    });
  }

  #check(reply: Reply): Verdict {
    const { hostNqn, subsystemNqn, hostKey, controllerKey } = this.#options;
    const hash = this.#hash;
    assert(hash !== null, "a hash was chosen");
    let session: Uint8Array | null = null;
    if (this.#exchange === null) {
      if (reply.dhValue.length > 0) return this.#fail(FAILURE.wrongPayload);
    } else {
      session = this.#exchange.secret(reply.dhValue);
      if (session === null) return this.#fail(FAILURE.wrongPayload);
    }
    if (hostKey === null) return this.#fail(FAILURE.failed);
    const base = { hash, session, transaction: this.#transaction };
    const expected = respond({
      ...base,
      key: transformDhchapKey(hostKey, hostNqn),
      challenge: this.#challenge,
      sequence: this.#sequence,
      names: ["HostHost", hostNqn, subsystemNqn],
    });
    if (!timingSafeEqual(expected, reply.response)) return this.#fail(FAILURE.failed);
    if (reply.challenge !== null) {
      if (controllerKey === null) return this.#fail(FAILURE.failed);
      // A host that sends our own challenge back wants its answer from us.
      if (timingSafeEqual(reply.challenge, this.#challenge)) return this.#fail(FAILURE.failed);
      this.#response = respond({
        ...base,
        key: transformDhchapKey(controllerKey, subsystemNqn),
        challenge: reply.challenge,
        sequence: reply.sequence,
        names: ["Controller", subsystemNqn, hostNqn],
      });
    }
    this.#state = "success1";
    return "pending";
  }
}

interface Proof {
  hash: DhchapHash;
  key: Uint8Array;
  challenge: Uint8Array;
  sequence: number;
  transaction: number;
  /** Of the exchange; null without a group. */
  session: Uint8Array | null;
  /** Who proves, as the protocol calls it; its name; the name of the other. */
  names: [role: string, own: string, other: string];
}

/** Section 8.13.5.4 and 8.13.5.5: R1 and R2 differ in their names only. */
export function respond(proof: Proof): Uint8Array {
  const { hash, key, challenge, sequence, transaction, session } = proof;
  const augmented =
    session === null
      ? challenge
      : createHmac(hash, createHash(hash).update(session).digest()).update(challenge).digest();
  const numbers = Buffer.alloc(7); // S, T_ID, SC_C, which is 0
  numbers.writeUInt32LE(sequence, 0);
  numbers.writeUInt16LE(transaction, 4);
  const [role, own, other] = proof.names;
  return createHmac(hash, key)
    .update(augmented)
    .update(numbers)
    .update(role)
    .update(own)
    .update(Buffer.alloc(1))
    .update(other)
    .digest();
}
