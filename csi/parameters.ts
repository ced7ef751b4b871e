// The parameters of a StorageClass. Those about the connection go to the node plugin in the
// volume's context; an unknown one is refused, so that a misspelt one is not silently the default.
import { type ConnectionSettings, DEFAULT_CONNECTION } from "../nvmf/initiator.js";
import { invalid } from "./errors.js";
import type { Strings } from "./messages.js";

export interface VolumeParameters {
  /** Where a new volume goes; null: where there is room. A clone goes where its origin is. */
  storageNode: string | null;
  context: Strings;
}

const CONNECTION_KEYS = [
  "ioQueues",
  "reconnectDelaySeconds",
  "fastIoFailSeconds",
  "ctrlLossSeconds",
] as const satisfies readonly (keyof ConnectionSettings)[];

/** Kubernetes' own: the names of claim and volume, the file system's type. */
const KUBERNETES_PREFIX = "csi.storage.k8s.io/";
const MAX_VALUE = 86_400;

export function readVolumeParameters(parameters: Strings): VolumeParameters {
  const read: VolumeParameters = { storageNode: null, context: {} };
  for (const [key, value] of Object.entries(parameters)) {
    if (key.startsWith(KUBERNETES_PREFIX)) continue;
    if (key === "storageNode") read.storageNode = value;
    else if (isConnectionKey(key)) {
      wholeNumber(`parameters[${key}]`, value);
      read.context[key] = value;
    } else {
      const known = ["storageNode", ...CONNECTION_KEYS].join(", ");
      throw invalid("parameters", `has the unknown key ${key}; there are ${known}`);
    }
  }
  readConnection(read.context);
  return read;
}

/** Snapshots have none. */
export function refuseParameters(parameters: Strings): void {
  const own = Object.keys(parameters).find((key) => !key.startsWith(KUBERNETES_PREFIX));
  if (own !== undefined) throw invalid("parameters", `has the unknown key ${own}; there are none`);
}

/** From a volume's context, in which others may have put what they like. */
export function readConnection(context: Strings): ConnectionSettings {
  const settings = { ...DEFAULT_CONNECTION };
  for (const key of CONNECTION_KEYS) {
    const value = context[key];
    if (value !== undefined) settings[key] = wholeNumber(`volume_context[${key}]`, value);
  }
  if (settings.ctrlLossSeconds > settings.fastIoFailSeconds) return settings;
  throw invalid("ctrlLossSeconds", `is not more than fastIoFailSeconds`);
}

function wholeNumber(field: string, text: string): number {
  const value = Number(text);
  if (/^[0-9]{1,5}$/.test(text) && value >= 1 && value <= MAX_VALUE) return value;
  throw invalid(field, `is ${JSON.stringify(text)}, not a whole number from 1 to ${MAX_VALUE}`);
}

function isConnectionKey(key: string): key is keyof ConnectionSettings {
  return (CONNECTION_KEYS as readonly string[]).includes(key);
}
