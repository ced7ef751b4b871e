// TLS keys in the kernel's key ring for NVMe, `.nvme`. The kernel takes a host's key from there by
// its description, which is the identity of TLS; tlshd, which makes the handshake for both ends,
// takes a target's key from there or from a ring in it.
//
// So a target's keys are in a ring of its own within `.nvme`: what others have put there is left
// alone, and nobody's guess is needed of whose a key is. A host's are in `.nvme` itself, among
// others' that are called otherwise.
//
// Keys come and go by system calls only: never by a program's arguments, never to a file.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { PandoError } from "../engine/base/errors.js";
import type { Addon } from "../native/native.js";

export type KeyCalls = Pick<
  Addon,
  "keyringReach" | "keyDescribe" | "keyringList" | "keyRead" | "keyAdd" | "keyUnlink"
>;

/** What TLS is given, by identity. */
export type TlsKeyring = ReadonlyMap<string, Uint8Array>;

/** Whose key it is, and for what. */
export interface Names {
  hostNqn: string;
  subsystemNqn: string;
}

const NVME_KEYRING = ".nvme";
const KEY_TYPE = "psk";
const RING_TYPE = "keyring";

export class PskKeyring {
  readonly #calls: KeyCalls;
  readonly #root: string;

  /** `root`: of the file system, as far as /proc is concerned. */
  constructor(calls: KeyCalls, root = "/") {
    this.#calls = calls;
    this.#root = root;
  }

  /** The ring of that name has these keys and no others. How many came or went. */
  async keep(name: string, wanted: TlsKeyring): Promise<number> {
    const nvme = await this.#find();
    if (nvme === null && wanted.size === 0) return 0;
    return named(() => this.#keep(this.#reach(nvme), name, wanted));
  }

  /** `.nvme` itself has these keys of a host for a subsystem, and no other of theirs. */
  async insert(of: Names, keys: TlsKeyring): Promise<void> {
    const nvme = await this.#find();
    named(() => this.#change(this.#reach(nvme), keys, (identity) => isOf(identity, of)));
  }

  async forget(of: Names): Promise<void> {
    if ((await this.#find()) !== null) await this.insert(of, new Map());
  }

  #keep(nvme: number, name: string, wanted: TlsKeyring): number {
    const isOurs = (key: { type: string; description: string }) =>
      key.type === RING_TYPE && key.description === name;
    const ring = this.#calls.keyringList(nvme).find(isOurs)?.serial;
    if (wanted.size === 0) {
      return ring !== undefined && this.#calls.keyUnlink(nvme, ring) ? 1 : 0;
    }
    const target = ring ?? this.#calls.keyAdd(nvme, RING_TYPE, name, null);
    return this.#change(target, wanted, () => true);
  }

  /** `mayGo`: of which no other stays than what is wanted. */
  #change(ring: number, wanted: TlsKeyring, mayGo: (identity: string) => boolean): number {
    const calls = this.#calls;
    let changes = 0;
    const right = new Set<string>();
    for (const { serial, type, description } of calls.keyringList(ring)) {
      const secret = type === KEY_TYPE ? wanted.get(description) : undefined;
      if (secret !== undefined && this.#hasSecret(serial, secret)) right.add(description);
      else if (secret === undefined && mayGo(description)) {
        calls.keyUnlink(ring, serial);
        changes += 1;
      }
    }
    for (const [identity, secret] of wanted) {
      if (right.has(identity)) continue;
      calls.keyAdd(ring, KEY_TYPE, identity, secret);
      changes += 1;
    }
    return changes;
  }

  /** One that was revoked, or has expired, cannot be read. */
  #hasSecret(serial: number, secret: Uint8Array): boolean {
    try {
      return Buffer.compare(this.#calls.keyRead(serial), secret) === 0;
    } catch {
      return false;
    }
  }

  #reach(nvme: number | null): number {
    if (nvme === null) {
      throw new PandoError("EINVAL", "this kernel shows no key ring for TLS of NVMe", {
        field: "TLS",
        hint: "modprobe nvme-keyring, on Linux 6.7 or newer, as root; pando doctor says more",
      });
    }
    this.#calls.keyringReach(nvme);
    return nvme;
  }

  /**
   * /proc/keys shows anybody's descriptions, whatever is in them: a line that looks right may be
   * part of one. No user can make a ring whose name begins with a dot.
   */
  async #find(): Promise<number | null> {
    const table = await readFile(join(this.#root, "/proc/keys"), "utf8").catch(() => "");
    for (const serial of parseRings(table)) {
      const key = this.#calls.keyDescribe(serial);
      const isIt = key?.type === RING_TYPE && key.description === NVME_KEYRING && key.userId === 0;
      if (isIt) return serial;
    }
    return null;
  }
}

/** R: a key that was configured; one that was agreed upon by an authentication is the kernel's. */
function isOf(identity: string, { hostNqn, subsystemNqn }: Names): boolean {
  const [kind = "", ...names] = identity.split(" ");
  const [host, subsystem] = names;
  return /^NVMe[01]R0[12]$/.test(kind) && host === hostNqn && subsystem === subsystemNqn;
}

/** Rows of /proc/keys (proc(5)): serial number first, the kind and what it is called last. */
export function parseRings(table: string): number[] {
  return table.split("\n").flatMap((line) => {
    const [, serial] = /^([0-9a-f]{8}) .* keyring +\.nvme(?:: .*)?$/.exec(line) ?? [];
    return serial === undefined ? [] : [Number.parseInt(serial, 16)];
  });
}

/** An error says what for, and never which key. */
function named<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof PandoError) throw cause;
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
    const denied = code === "EACCES" || code === "EPERM";
    const message = `the kernel's key ring for TLS cannot be changed: ${code || cause}`;
    throw new PandoError(
      denied ? "EPERM" : "EIO",
      message,
      denied ? { hint: "it takes root, and a container that may use keyctl" } : {},
      { cause },
    );
  }
}
