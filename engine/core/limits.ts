// A volume's limits: how many requests and how many bytes a second its users get. What they mean is
// the data path's (native/src/rate_limit.h); here is what may be asked for, and what a change makes
// of what there was.
import { MAX_LIMIT_IOPS, MIN_LIMIT_BYTES_PER_SECOND } from "../base/constants.js";
import { PandoError } from "../base/errors.js";
import type { SnapshotRecord, VolumeRecord } from "../store/codec-records.js";
import type { Limits } from "./api.js";

const NONE: Limits = { iops: null, bytesPerSecond: null };

/** A field that is not there stays as it is. */
export type LimitsChange = Partial<Limits>;

export function requireLimits({ iops, bytesPerSecond }: LimitsChange, volume: string): void {
  const whole = (value: number) => Number.isSafeInteger(value);
  if (typeof iops === "number" && !(whole(iops) && iops > 0 && iops <= MAX_LIMIT_IOPS)) {
    throw new PandoError("EINVAL", `a limit of ${iops} IOPS is not from 1 to ${MAX_LIMIT_IOPS}`, {
      volume,
      field: "iops",
      hint: "none takes the limit away",
    });
  }
  if (typeof bytesPerSecond !== "number") return;
  if (whole(bytesPerSecond) && bytesPerSecond >= MIN_LIMIT_BYTES_PER_SECOND) return;
  throw new PandoError(
    "EINVAL",
    `a limit of ${bytesPerSecond} bytes a second is below ${MIN_LIMIT_BYTES_PER_SECOND}`,
    { volume, field: "bandwidth", hint: "none takes the limit away" },
  );
}

/** What is only read has none. */
export function limitsOf(record: VolumeRecord | SnapshotRecord): Limits {
  return ("limits" in record ? record.limits : undefined) ?? NONE;
}

/** As the data path has it: 0 is none. */
export function nativeLimits(limits: Limits): {
  requestsPerSecond: number;
  bytesPerSecond: number;
} {
  return { requestsPerSecond: limits.iops ?? 0, bytesPerSecond: limits.bytesPerSecond ?? 0 };
}

/** The record with these limits; without any it is as if there had never been one. */
export function withLimits(record: VolumeRecord, limits: Limits): VolumeRecord {
  const { limits: _before, ...rest } = record;
  const none = limits.iops === null && limits.bytesPerSecond === null;
  return none ? rest : { ...rest, limits };
}
