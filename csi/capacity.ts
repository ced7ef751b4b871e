// Sizes as CSI asks for them (at least, at most) and as a pool has them (whole blocks).
import { status } from "@grpc/grpc-js";
import { MAX_VOLUME_BYTES } from "../engine/base/constants.js";
import { CsiError, invalid } from "./errors.js";
import type { CapacityRange } from "./messages.js";

const DEFAULT_VOLUME_BYTES = 1024 ** 3;

export interface Range {
  requiredBytes: number;
  /** Infinity: none. */
  limitBytes: number;
}

export function readRange(range: CapacityRange | null): Range {
  const requiredBytes = range?.requiredBytes ?? 0;
  const limitBytes = range?.limitBytes ?? 0;
  if (requiredBytes < 0) throw invalid("capacity_range.required_bytes", "is negative");
  if (limitBytes < 0) throw invalid("capacity_range.limit_bytes", "is negative");
  if (limitBytes > 0 && limitBytes < requiredBytes) {
    throw invalid("capacity_range.limit_bytes", "is less than required_bytes");
  }
  return { requiredBytes, limitBytes: limitBytes === 0 ? Number.POSITIVE_INFINITY : limitBytes };
}

/** The size of a new volume, or of one that grows, and is `leastBytes` at least. */
export function chooseSize(
  range: Range,
  { leastBytes, blockSizeBytes }: { leastBytes: number; blockSizeBytes: number },
): number {
  const whole = Math.floor(range.limitBytes / blockSizeBytes) * blockSizeBytes;
  const asked =
    range.requiredBytes === 0 && leastBytes === 0
      ? Math.min(DEFAULT_VOLUME_BYTES, whole)
      : Math.max(range.requiredBytes, leastBytes);
  const sizeBytes = Math.ceil(asked / blockSizeBytes) * blockSizeBytes;
  if (sizeBytes > 0 && sizeBytes <= Math.min(range.limitBytes, MAX_VOLUME_BYTES)) return sizeBytes;
  const most = Math.min(range.limitBytes, MAX_VOLUME_BYTES);
  throw new CsiError(
    status.OUT_OF_RANGE,
    `capacity_range allows at most ${most} bytes, and the volume needs ${sizeBytes}`,
  );
}

export function fits(sizeBytes: number, range: Range): boolean {
  return sizeBytes >= range.requiredBytes && sizeBytes <= range.limitBytes;
}
