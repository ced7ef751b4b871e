// The kernel's key rings, as far as their calls show them (keyrings(7)): what is in a ring is read
// and changed only by who can reach it.
import type { KernelKey } from "../../native/native.js";
import type { KeyCalls } from "../../nvmf/psk-keyring.js";

interface Key extends KernelKey {
  secret: Uint8Array | null;
  /** Serial numbers of what is in a ring. */
  inside: Set<number>;
}

export class FakeKeys implements KeyCalls {
  readonly #keys = new Map<number, Key>();
  readonly #reached = new Set<number>();
  #next = 0x1e82_4d89;
  /** Of the ring `.nvme`. */
  readonly nvme: number;
  /** How many keys have been added. */
  added = 0;

  constructor() {
    this.nvme = this.make({ type: "keyring", description: ".nvme", userId: 0 });
  }

  /** What somebody else makes, in no ring. */
  make(key: { type: string; description: string; userId: number }, secret?: Uint8Array): number {
    const serial = this.#next++;
    this.#keys.set(serial, { ...key, serial, secret: secret ?? null, inside: new Set() });
    return serial;
  }

  link(ring: number, key: number): void {
    this.#get(ring).inside.add(key);
  }

  /** As /proc/keys has them. */
  table(): string {
    return [...this.#keys.values()]
      .map(({ serial, type, description, userId }) => {
        const number = serial.toString(16).padStart(8, "0");
        const end = type === "keyring" ? ": 2" : ": 32";
        const kind = type.padEnd(9).slice(0, 9);
        return `${number} I------     2 perm 1f1f0000 ${userId}     0 ${kind} ${description}${end}`;
      })
      .join("\n");
  }

  /** What a ring has: secrets by description, rings by their names with what is in them. */
  contents(ring = this.nvme): Record<string, unknown> {
    const inside = [...this.#get(ring).inside].map((serial) => this.#get(serial));
    return Object.fromEntries(
      inside.map(({ serial, type, description, secret }) => [
        description,
        type === "keyring" ? this.contents(serial) : Buffer.from(secret ?? []).toString(),
      ]),
    );
  }

  keyringReach = (keyring: number): void => {
    this.#reached.add(this.#get(keyring).serial);
  };

  keyDescribe = (serial: number): KernelKey | null => {
    const key = this.#keys.get(serial);
    if (key === undefined) return null;
    const { type, description, userId } = key;
    return { serial, type, description, userId };
  };

  keyringList = (keyring: number): KernelKey[] =>
    [...this.#get(keyring).inside].flatMap((serial) => this.keyDescribe(serial) ?? []);

  keyRead = (serial: number): Uint8Array => {
    const { secret } = this.#reach(serial);
    if (secret === null) throw errno("EKEYREVOKED");
    return secret;
  };

  keyAdd = (
    keyring: number,
    type: string,
    description: string,
    secret: Uint8Array | null,
  ): number => {
    const { inside } = this.#reach(keyring);
    for (const other of this.keyringList(keyring)) {
      if (other.type === type && other.description === description) inside.delete(other.serial);
    }
    const serial = this.make({ type, description, userId: 0 }, secret ?? undefined);
    inside.add(serial);
    this.added += 1;
    return serial;
  };

  keyUnlink = (keyring: number, key: number): boolean => this.#reach(keyring).inside.delete(key);

  #get(serial: number): Key {
    const key = this.#keys.get(serial);
    if (key === undefined) throw errno("ENOKEY");
    return key;
  }

  #reach(serial: number): Key {
    const seen = new Set<number>();
    const look = (at: number): boolean => {
      if (at === serial) return true;
      if (seen.has(at)) return false;
      seen.add(at);
      return [...this.#get(at).inside].some(look);
    };
    if (![...this.#reached].some(look)) throw errno("EACCES");
    return this.#get(serial);
  }
}

function errno(code: string): Error {
  return Object.assign(new Error(code), { code });
}
