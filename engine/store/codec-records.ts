// The store's JSON records: their types, and a decoder that trusts nothing. A record is accepted
// only if it has exactly the fields of its type, each of the right kind: a field that this version
// does not know means a format that it does not know.
import { corrupt, seal, unseal } from "./codec-envelope.js";
import type { Space } from "./store.js";

export interface PoolRecord {
  version: number;
  uuid: string;
  generation: number;
  /** Bytes. */
  blockSize: number;
  dataBlocks: number;
  journalBlocks: number;
}

/** What the pool is about to become. */
export interface GrowRecord {
  generation: number;
  dataBlocks: number;
}

export interface JournalRecord {
  epoch: number;
  /** The first sequence that is not in the store yet. */
  tail: number;
}

export interface IdsRecord {
  nextLayer: number;
}

export interface SpaceRecord {
  /** Bits set in `free`. */
  allocatedBlocks: number;
}

export interface LineageRecord {
  /** Rises with every transaction after which a remembered span set or parent would be wrong. */
  changes: number;
}

export const LAYER_STATES = ["live", "frozen", "hidden", "dead"] as const;
export type LayerState = (typeof LAYER_STATES)[number];

export interface LayerRecord {
  parent: number | null;
  state: LayerState;
  /** The storage key of its index blocks. */
  key: number;
  indexBlocks: number;
  ownedBlocks: number;
  /**
   * Mapped slots that this layer adds to those it inherits (negative: holes it made); see
   * mappedBlocks() in catalogue.ts.
   */
  mappedDelta: number;
}

export interface OriginRecord {
  volume: string;
  snapshot: string | null;
}

export interface LimitsRecord {
  iops: number | null;
  bytesPerSecond: number | null;
}

export interface ReceivingRecord {
  /** The name under which it will be kept; null for an import, which makes no snapshot. */
  snapshot: string | null;
  /** Identity of what it will contain. */
  contents: string;
  /** Identity of the contents of the snapshot that it begins at. */
  base: string | null;
  /** Everything before is durable. */
  offsetBytes: number;
}

export interface VolumeRecord {
  uuid: string;
  layer: number;
  sizeBytes: number;
  createdAt: string;
  allowedHosts: string[];
  origin: OriginRecord | null;
  /** Absent: none. */
  limits?: LimitsRecord;
  /** Present: it is a partial, and nobody is served it. */
  receiving?: ReceivingRecord;
}

export interface SnapshotRecord {
  uuid: string;
  layer: number;
  sizeBytes: number;
  createdAt: string;
  volumeUuid: string;
  /**
   * Identity of what is in it, the same wherever it was sent to. Absent: its own UUID.
   */
  contents?: string;
}

/** As nvme-cli writes them. */
export interface HostKeysRecord {
  hostKey: string;
  controllerKey: string | null;
}

/** As nvme-cli writes it. */
export interface TlsKeyRecord {
  key: string;
}

export interface UuidRecord {
  name: string;
}

export interface SharesRecord {
  /** UUIDs of the volumes that the kernel's NVMe target serves. */
  nvmet: string[];
}

export interface ReclaimRecord {
  since: string;
}

/** One type of record: how it becomes a value of the store, and how a value becomes it again. */
export interface RecordCodec<T> {
  encode(key: Uint8Array, record: T): Uint8Array;
  /** ECORRUPT, naming space and key, if it is not such a record. */
  decode(space: Space, key: Uint8Array, value: Uint8Array): T;
}

type Check = (value: unknown) => boolean;
type Shape<T> = { [K in keyof Required<T>]: Check };

const MAX_TEXT = 1024;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

const count: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
const positive: Check = (value) => count(value) && (value as number) > 0;
const integer: Check = (value) => Number.isSafeInteger(value);
const text: Check = (value) =>
  typeof value === "string" && value.length > 0 && value.length <= MAX_TEXT;
const uuid: Check = (value) => typeof value === "string" && UUID.test(value);
const time: Check = (value) => text(value) && !Number.isNaN(Date.parse(value as string));
const state: Check = (value) => LAYER_STATES.includes(value as LayerState);
const texts: Check = (value) => Array.isArray(value) && value.every(text);
const optionals = new Set<Check>();
/** The field may be absent. */
const optional = (check: Check): Check => {
  const marked: Check = (value) => check(value);
  optionals.add(marked);
  return marked;
};
const orNull =
  (check: Check): Check =>
  (value) =>
    value === null || check(value);

export const poolRecord = codec<PoolRecord>({
  version: positive,
  uuid,
  generation: positive,
  blockSize: positive,
  dataBlocks: positive,
  journalBlocks: positive,
});
export const growRecord = codec<GrowRecord>({ generation: positive, dataBlocks: positive });
export const journalRecord = codec<JournalRecord>({ epoch: count, tail: count });
export const idsRecord = codec<IdsRecord>({ nextLayer: positive });
export const spaceRecord = codec<SpaceRecord>({ allocatedBlocks: count });
export const lineageRecord = codec<LineageRecord>({ changes: count });
export const layerRecord = codec<LayerRecord>({
  parent: orNull(positive),
  state,
  key: positive,
  indexBlocks: count,
  ownedBlocks: count,
  mappedDelta: integer,
});
const LIMITS: Shape<LimitsRecord> = {
  iops: orNull(positive),
  bytesPerSecond: orNull(positive),
};
const RECEIVING: Shape<ReceivingRecord> = {
  snapshot: orNull(text),
  contents: uuid,
  base: orNull(uuid),
  offsetBytes: count,
};
export const volumeRecord = codec<VolumeRecord>({
  uuid,
  layer: positive,
  sizeBytes: positive,
  createdAt: time,
  allowedHosts: texts,
  origin: orNull((value) => hasShape(value, { volume: text, snapshot: orNull(text) }) === null),
  limits: optional((value) => hasShape(value, LIMITS) === null),
  receiving: optional((value) => hasShape(value, RECEIVING) === null),
});
export const snapshotRecord = codec<SnapshotRecord>({
  uuid,
  layer: positive,
  sizeBytes: positive,
  createdAt: time,
  volumeUuid: uuid,
  contents: optional(uuid),
});
export const sharesRecord = codec<SharesRecord>({
  nvmet: (value) => Array.isArray(value) && value.every(uuid),
});
export const hostKeysRecord = codec<HostKeysRecord>({ hostKey: text, controllerKey: orNull(text) });
export const tlsKeyRecord = codec<TlsKeyRecord>({ key: text });
export const uuidRecord = codec<UuidRecord>({ name: text });
export const reclaimRecord = codec<ReclaimRecord>({ since: time });

function codec<T extends object>(shape: Shape<T>): RecordCodec<T> {
  return {
    encode(key, record) {
      const problem = hasShape(record, shape);
      if (problem !== null) throw new TypeError(`record: ${problem}`);
      return seal(key, Buffer.from(JSON.stringify(record), "utf8"));
    },
    decode(space, key, value) {
      const payload = unseal(space, key, value);
      const json = Buffer.from(payload.buffer, payload.byteOffset, payload.length).toString("utf8");
      let record: unknown;
      try {
        record = JSON.parse(json);
      } catch (cause) {
        throw corrupt(space, key, "the record is not JSON", cause);
      }
      const problem = hasShape(record, shape);
      if (problem !== null) throw corrupt(space, key, problem);
      return record as T;
    },
  };
}

/** Null, or what is wrong with it. */
function hasShape(value: unknown, shape: Record<string, Check>): string | null {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return "not an object";
  for (const field of Object.keys(value)) {
    if (!Object.hasOwn(shape, field)) return `field ${field} is unknown`;
  }
  for (const [field, check] of Object.entries(shape)) {
    if (!Object.hasOwn(value, field)) {
      if (optionals.has(check)) continue;
      return `field ${field} is missing`;
    }
    if (!check((value as Record<string, unknown>)[field])) return `field ${field} is not valid`;
  }
  return null;
}
