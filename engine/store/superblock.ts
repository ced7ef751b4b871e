// The superblock: what the data device says about itself. Two copies, written one after the other
// at format, grow and opening, so that a write that was cut costs one of them. What was read is an
// UncheckedSuperblock until its geometry has been compared with the limits, with itself and with
// the device: no number of it is used in arithmetic before that.
//
//   0x00 magic "PANDOSB1" | 0x08 version u32 | 0x0c block size u32
//   0x10 incompatible, read-only-compatible, compatible u64 | 0x28 pool UUID | 0x38 generation u64
//   0x40 device size | 0x48 journal offset | 0x50 journal blocks
//   0x58 data offset | 0x60 data blocks | 0x68 epoch | 0x70 reclaims | 0x78 zero
//   0xffc CRC32C of all before
import { native } from "../../native/native.js";
import { assert } from "../base/assert.js";
import {
  BLOCK_SIZES,
  FORMAT_VERSION,
  JOURNAL_BLOCK_BYTES,
  JOURNAL_OFFSET,
  MAX_BLOCKS,
  MAX_JOURNAL_BYTES,
  MIN_JOURNAL_BLOCKS,
  SUPERBLOCK_BYTES,
} from "../base/constants.js";
import { PandoError } from "../base/errors.js";
import { uuidFromBytes, uuidToBytes } from "./uuid.js";

export interface Superblock {
  version: number;
  blockSizeBytes: number;
  uuid: string;
  generation: number;
  /** Bytes of the device that the pool uses. */
  deviceSizeBytes: number;
  journalOffsetBytes: number;
  journalBlocks: number;
  dataOffsetBytes: number;
  dataBlocks: number;
  /** Of the store, when the pool was opened last; 0 before the first time. */
  epoch: number;
  /** Raised before blocks are given up or change hands without a record, after a backup. */
  reclaims: number;
}

/** Its checksum fits; nothing else is known of it. */
export interface UncheckedSuperblock {
  version: number;
  blockSize: number;
  incompatible: bigint;
  readOnlyCompatible: bigint;
  compatible: bigint;
  uuid: string;
  generation: bigint;
  deviceSize: bigint;
  journalOffset: bigint;
  journalBlocks: bigint;
  dataOffset: bigint;
  dataBlocks: bigint;
  epoch: bigint;
  reclaims: bigint;
}

const MAGIC = Buffer.from("PANDOSB1");
const CRC_OFFSET = SUPERBLOCK_BYTES - 4;
export const DATA_ALIGNMENT_BYTES = 1024 * 1024;

export function encodeSuperblock(superblock: Superblock): Uint8Array {
  const bytes = Buffer.alloc(SUPERBLOCK_BYTES);
  bytes.set(MAGIC, 0);
  bytes.writeUInt32LE(superblock.version, 0x08);
  bytes.writeUInt32LE(superblock.blockSizeBytes, 0x0c);
  bytes.set(uuidToBytes(superblock.uuid), 0x28);
  bytes.writeBigUInt64LE(BigInt(superblock.generation), 0x38);
  bytes.writeBigUInt64LE(BigInt(superblock.deviceSizeBytes), 0x40);
  bytes.writeBigUInt64LE(BigInt(superblock.journalOffsetBytes), 0x48);
  bytes.writeBigUInt64LE(BigInt(superblock.journalBlocks), 0x50);
  bytes.writeBigUInt64LE(BigInt(superblock.dataOffsetBytes), 0x58);
  bytes.writeBigUInt64LE(BigInt(superblock.dataBlocks), 0x60);
  bytes.writeBigUInt64LE(BigInt(superblock.epoch), 0x68);
  bytes.writeBigUInt64LE(BigInt(superblock.reclaims), 0x70);
  bytes.writeUInt32LE(native.crc32c(bytes.subarray(0, CRC_OFFSET)), CRC_OFFSET);
  return bytes;
}

/** Null if it is not a superblock, or a torn one. */
export function decodeSuperblock(bytes: Uint8Array): UncheckedSuperblock | null {
  assert(bytes.length === SUPERBLOCK_BYTES, "a superblock has 4,096 bytes");
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (!buffer.subarray(0, MAGIC.length).equals(MAGIC)) return null;
  if (buffer.readUInt32LE(CRC_OFFSET) !== native.crc32c(buffer.subarray(0, CRC_OFFSET)))
    return null;
  return {
    version: buffer.readUInt32LE(0x08),
    blockSize: buffer.readUInt32LE(0x0c),
    incompatible: buffer.readBigUInt64LE(0x10),
    readOnlyCompatible: buffer.readBigUInt64LE(0x18),
    compatible: buffer.readBigUInt64LE(0x20),
    uuid: uuidFromBytes(buffer.subarray(0x28, 0x38)),
    generation: buffer.readBigUInt64LE(0x38),
    deviceSize: buffer.readBigUInt64LE(0x40),
    journalOffset: buffer.readBigUInt64LE(0x48),
    journalBlocks: buffer.readBigUInt64LE(0x50),
    dataOffset: buffer.readBigUInt64LE(0x58),
    dataBlocks: buffer.readBigUInt64LE(0x60),
    epoch: buffer.readBigUInt64LE(0x68),
    reclaims: buffer.readBigUInt64LE(0x70),
  };
}

/** The valid copy that was written last; ECORRUPT if neither is valid. */
export function chooseSuperblock(copyA: Uint8Array, copyB: Uint8Array): UncheckedSuperblock {
  const a = decodeSuperblock(copyA);
  const b = decodeSuperblock(copyB);
  if (a === null && b === null) {
    throw new PandoError("ECORRUPT", "superblock: neither copy A nor copy B is valid", {
      field: "superblock",
      hint: "is this the data device of a pool?",
    });
  }
  if (a === null || b === null) return (a ?? b) as UncheckedSuperblock;
  if (a.uuid !== b.uuid) {
    throw new PandoError(
      "ECORRUPT",
      `superblock: uuid: copy A belongs to pool ${a.uuid}, copy B to pool ${b.uuid}`,
      { field: "uuid" },
    );
  }
  return isLater(b, a) ? b : a;
}

/** `one` was written after `other`: none of these goes back. */
export function isLater(one: UncheckedSuperblock, other: UncheckedSuperblock): boolean {
  for (const field of ["generation", "epoch", "reclaims"] as const) {
    if (one[field] !== other[field]) return one[field] > other[field];
  }
  return false;
}

/**
 * Compares the geometry with the limits, with itself and with the device. The error names the
 * field.
 */
export function checkSuperblock(found: UncheckedSuperblock, deviceBytes: number): Superblock {
  if (found.version !== FORMAT_VERSION) {
    throw new PandoError("EVERSION", `superblock: version ${found.version} is not known`, {
      field: "version",
    });
  }
  if (found.incompatible !== 0n || found.readOnlyCompatible !== 0n) {
    const field = found.incompatible !== 0n ? "incompatible" : "readOnlyCompatible";
    throw new PandoError(
      "EVERSION",
      `superblock: ${field}: the pool uses features ${found[field]} that this version does not know`,
      { field, hint: "open it with a newer version" },
    );
  }
  const blockSizeBytes = found.blockSize;
  if (!(BLOCK_SIZES as readonly number[]).includes(blockSizeBytes))
    refuse("blockSize", found.blockSize);
  const superblock: Superblock = {
    version: found.version,
    blockSizeBytes,
    uuid: found.uuid,
    generation: positive("generation", found.generation),
    deviceSizeBytes: positive("deviceSize", found.deviceSize),
    journalOffsetBytes: positive("journalOffset", found.journalOffset),
    journalBlocks: positive("journalBlocks", found.journalBlocks),
    dataOffsetBytes: positive("dataOffset", found.dataOffset),
    dataBlocks: positive("dataBlocks", found.dataBlocks),
    epoch: count("epoch", found.epoch),
    reclaims: count("reclaims", found.reclaims),
  };
  checkGeometry(superblock);
  if (superblock.deviceSizeBytes > deviceBytes) {
    throw new PandoError(
      "ECORRUPT",
      `superblock: deviceSize: the pool needs ${superblock.deviceSizeBytes} bytes, the device has ${deviceBytes}`,
      { field: "deviceSize", hint: "the device or file is truncated, or it is another one" },
    );
  }
  return superblock;
}

/** Where block `block` (1…N) begins. */
export function blockOffset(superblock: Superblock, block: number): number {
  assert(block >= 1 && block <= superblock.dataBlocks, `block ${block} is outside the pool`);
  return superblock.dataOffsetBytes + (block - 1) * superblock.blockSizeBytes;
}

function checkGeometry(superblock: Superblock): void {
  const { journalOffsetBytes, journalBlocks, dataOffsetBytes, dataBlocks } = superblock;
  if (journalOffsetBytes < JOURNAL_OFFSET || journalOffsetBytes % JOURNAL_BLOCK_BYTES !== 0) {
    refuse("journalOffset", journalOffsetBytes);
  }
  const journalBytes = journalBlocks * JOURNAL_BLOCK_BYTES;
  if (journalBlocks < MIN_JOURNAL_BLOCKS || journalBytes > MAX_JOURNAL_BYTES) {
    refuse("journalBlocks", journalBlocks);
  }
  const aligned = dataOffsetBytes % DATA_ALIGNMENT_BYTES === 0;
  if (!aligned || dataOffsetBytes < journalOffsetBytes + journalBytes) {
    refuse("dataOffset", dataOffsetBytes);
  }
  const dataBytes = dataBlocks * superblock.blockSizeBytes;
  if (dataBlocks > MAX_BLOCKS || dataOffsetBytes + dataBytes > superblock.deviceSizeBytes) {
    refuse("dataBlocks", dataBlocks);
  }
}

function count(field: string, value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) refuse(field, value);
  return Number(value);
}

function positive(field: string, value: bigint): number {
  if (value <= 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) refuse(field, value);
  return Number(value);
}

function refuse(field: string, value: number | bigint): never {
  throw new PandoError("ECORRUPT", `superblock: ${field} is ${value}, which is impossible`, {
    field,
  });
}
