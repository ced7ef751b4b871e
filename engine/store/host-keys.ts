// The keys with which hosts prove who they are, in the pool's store: they go where the pool goes,
// so that a host that had to prove itself has to on every machine. Nothing reads them but the
// handshakes; lists say that there are keys, never which.
import { type DhchapKey, formatDhchapKey, parseDhchapKey } from "../base/dhchap-key.js";
import { formatTlsPsk, parseTlsPsk, type TlsPsk } from "../base/tls-psk.js";
import { decodeTextKey, META_HOST_KEYS, META_TLS_KEYS, textKey } from "./codec-keys.js";
import { type HostKeysRecord, hostKeysRecord, tlsKeyRecord } from "./codec-records.js";
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
  return entriesUnder(reader, META_HOST_KEYS).map(({ hostNqn, key, value }) => ({
    hostNqn,
    keys: fromRecord(hostKeysRecord.decode("meta", key, value)),
  }));
}

/** Null: the host has none, and need not use TLS. */
export function getTlsPsk(reader: StoreReader, hostNqn: string): TlsPsk | null {
  const key = textKey(META_TLS_KEYS + hostNqn);
  const value = reader.get("meta", key);
  if (value === undefined) return null;
  return parseTlsPsk(tlsKeyRecord.decode("meta", key, value).key, "TLS key");
}

export function putTlsPsk(txn: StoreTransaction, hostNqn: string, psk: TlsPsk): void {
  const key = textKey(META_TLS_KEYS + hostNqn);
  txn.put("meta", key, tlsKeyRecord.encode(key, { key: formatTlsPsk(psk) }));
}

/** True if it had one. */
export function removeTlsPsk(txn: StoreTransaction, hostNqn: string): boolean {
  return txn.remove("meta", textKey(META_TLS_KEYS + hostNqn));
}

/** The hosts that have one, by name. */
export function listTlsHosts(reader: StoreReader): string[] {
  return entriesUnder(reader, META_TLS_KEYS).map(({ hostNqn }) => hostNqn);
}

function entriesUnder(
  reader: StoreReader,
  prefix: string,
): { hostNqn: string; key: Uint8Array; value: Uint8Array }[] {
  const start = Buffer.from(prefix);
  const end = Buffer.from(start);
  end[end.length - 1] = (end.at(-1) ?? 0) + 1;
  return reader.range("meta", { start, end }).map(({ key, value }) => ({
    hostNqn: decodeTextKey(key).slice(prefix.length),
    key,
    value,
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
