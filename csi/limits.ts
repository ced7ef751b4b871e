// What may be changed of a volume that is there: its limits, from a VolumeAttributesClass. Checked
// whole before anything is done, because an invalid one must change nothing.
import { MAX_LIMIT_IOPS, MIN_LIMIT_BYTES_PER_SECOND } from "../engine/base/constants.js";
import { parseCount, parseSize } from "../engine/base/size.js";
import type { Limits, VolumeView } from "../engine/serve/client.js";
import { invalid } from "./errors.js";
import type { Strings } from "./messages.js";
import type { Found } from "./storage-nodes.js";

/** A key that is not there stays as it is. */
export function readMutableParameters(parameters: Strings): Partial<Limits> {
  const change: Partial<Limits> = {};
  for (const [key, value] of Object.entries(parameters)) {
    if (key === "iops") change.iops = readLimit(key, value, { most: MAX_LIMIT_IOPS });
    else if (key === "bandwidth") {
      change.bytesPerSecond = readLimit(key, value, { least: MIN_LIMIT_BYTES_PER_SECOND });
    } else {
      throw invalid("mutable_parameters", `has the unknown key ${key}; there are iops, bandwidth`);
    }
  }
  return change;
}

/** Nothing if it is so already. */
export async function applyLimits(
  { node, item }: Found<VolumeView>,
  change: Partial<Limits>,
): Promise<void> {
  const differs = (Object.keys(change) as (keyof Limits)[]).some(
    (key) => change[key] !== item.limits[key],
  );
  if (differs) await node.daemon.setLimits(item.name, change);
}

function readLimit(
  key: string,
  text: string,
  { least = 1, most = Number.MAX_SAFE_INTEGER }: { least?: number; most?: number },
): number | null {
  if (text === "none") return null;
  const value = key === "iops" ? parseCount(text, key) : parseSize(text, key);
  if (value >= least && value <= most) return value;
  throw invalid(`mutable_parameters[${key}]`, `is ${text}, not from ${least} to ${most}`);
}
