// Sizes as people write and read them. Units are binary, with or without "iB": 10G and 10GiB are
// the same; 10GB is refused, because half of those who write it mean another number.
import { PandoError } from "./errors.js";
import { quote } from "./quote.js";

const UNITS = ["", "K", "M", "G", "T", "P"] as const;
const PATTERN = /^([0-9]+)(?:([KMGTP])(?:iB)?)?$/;

/** Bytes. `field` names what the size is for in the error. */
export function parseSize(text: string, field = "size"): number {
  const match = PATTERN.exec(text);
  if (match === null) {
    throw new PandoError("EINVAL", `${quote(text)} is not a valid ${field}`, {
      field,
      hint: "a whole number of bytes, or one with K, M, G or T (binary): 4096, 512MiB, 10G",
    });
  }
  const unit = UNITS.indexOf((match[2] ?? "") as (typeof UNITS)[number]);
  const bytes = Number(match[1]) * 1024 ** unit;
  if (bytes === 0) {
    throw new PandoError("EINVAL", `the ${field} is 0`, { field, hint: "give it room: 10GiB" });
  }
  if (!Number.isSafeInteger(bytes)) {
    throw new PandoError(
      "EINVAL",
      `the ${field} ${quote(text)} is larger than anything here can be`,
      {
        field,
      },
    );
  }
  return bytes;
}

/** A whole number above 0. `field` names what it counts in the error. */
export function parseCount(text: string, field: string): number {
  const value = /^[0-9]+$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new PandoError("EINVAL", `${quote(text)} is not a valid ${field}`, {
    field,
    hint: "a whole number above 0",
  });
}

/**
 * At most one decimal, rounded down so that nothing is shown as more than it is: "1.5 GiB", "512
 * B", "0".
 */
export function formatSize(bytes: number): string {
  if (bytes === 0) return "0";
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${Math.floor(value * 10) / 10} ${UNITS[unit]}${unit === 0 ? "B" : "iB"}`;
}

/** Refuses a size that is not a whole number of blocks, and names the nearest that is. */
export function checkWholeBlocks(options: {
  sizeBytes: number;
  blockSizeBytes: number;
  field: string;
}): void {
  const { sizeBytes, blockSizeBytes, field } = options;
  const over = sizeBytes % blockSizeBytes;
  if (over === 0) return;
  throw new PandoError(
    "EINVAL",
    `the ${field} ${sizeBytes} is not a multiple of the block size, ${blockSizeBytes}`,
    { field, hint: `${sizeBytes - over + blockSizeBytes} is the next that is` },
  );
}
