// The keys with which hosts prove who they are, in the pool's store: they go where the pool goes,
// so that a host that had to prove itself has to on every machine. Nothing reads them but the
// handshake; lists say that there are keys, never which.
import { type DhchapKey, formatDhchapKey, parseDhchapKey } from "../base/dhchap-key.js";
import { decodeTextKey, META_HOST_KEYS, textKey } from "./codec-keys.js";
import { type HostKeysRecord, hostKeysRecord } from "./codec-records.js";
import type { StoreReader, StoreTransaction } from "./store.js";

export interface HostKeys {
  hostKey: DhchapKey;
  /** With which we prove ourselves to the host; null: we cannot. */
  controllerKey: DhchapKey | null;
}

export function getHostKeys(reader: StoreReader, hostNqn: string): HostKeys | null {
  const key = keyOf(hostNqn);
  const value = reader.get("meta", key);
  return value === undefined ? null : fromRecord(hostKeysRecord.decode("meta", key, value));
}

export function putHostKeys(txn: StoreTransaction, hostNqn: string, keys: HostKeys): void {
  const key = keyOf(hostNqn);
  const record: HostKeysRecord = {
    hostKey: formatDhchapKey(keys.hostKey),
    controllerKey: keys.controllerKey === null ? null : formatDhchapKey(keys.controllerKey),
  };
  txn.put("meta", key, hostKeysRecord.encode(key, record));
}

/** True if it had some. */
export function removeHostKeys(txn: StoreTransaction, hostNqn: string): boolean {
  return txn.remove("meta", keyOf(hostNqn));
}

/** The hosts that have keys, by name. */
export function listHostKeys(reader: StoreReader): { hostNqn: string; keys: HostKeys }[] {
  const start = Buffer.from(META_HOST_KEYS);
  const end = Buffer.from(start);
  end[end.length - 1] = (end.at(-1) ?? 0) + 1;
  return reader.range("meta", { start, end }).map(({ key, value }) => ({
    hostNqn: decodeTextKey(key).slice(META_HOST_KEYS.length),
    keys: fromRecord(hostKeysRecord.decode("meta", key, value)),
  }));
}

function keyOf(hostNqn: string): Uint8Array {
  return textKey(META_HOST_KEYS + hostNqn);
}

function fromRecord({ hostKey, controllerKey }: HostKeysRecord): HostKeys {
  return {
    hostKey: parseDhchapKey(hostKey, "host key"),
    controllerKey: controllerKey === null ? null : parseDhchapKey(controllerKey, "controller key"),
  };
}
