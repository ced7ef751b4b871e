// NVMe Qualified Names: the one under which a volume is served, and the check of those that hosts
// have. NVM Express Base Specification 2.0, section 4.5: "nqn.", year and month, a domain, at most
// 223 bytes of UTF-8.
import { PandoError } from "./errors.js";
import { quote } from "./quote.js";

const VOLUME_PREFIX = "nqn.2026-01.io.pando:volume:";
const MAX_NQN_BYTES = 223;
/** Every target's, where hosts ask what there is. */
export const DISCOVERY_NQN = "nqn.2014-08.org.nvmexpress.discovery";
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const PATTERN = /^nqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[^\s:]+(:\S+)?$/;

/**
 * By UUID, not by name: a host that reconnects finds the same volume, never another one of the same
 * name.
 */
export function volumeNqn(uuid: string): string {
  return VOLUME_PREFIX + uuid;
}

/** The UUID of the volume that is served under this name, or null if it is not such a name. */
export function parseVolumeNqn(nqn: string): string | null {
  const uuid = nqn.startsWith(VOLUME_PREFIX) ? nqn.slice(VOLUME_PREFIX.length) : "";
  return UUID.test(uuid) ? uuid : null;
}

/** A new host's name, in the form that the specification gives to hosts with nothing but a UUID. */
export function hostNqn(uuid: string): string {
  return `nqn.2014-08.org.nvmexpress:uuid:${uuid}`;
}

export function checkHostNqn(nqn: string): void {
  const fail = (why: string): never => {
    throw new PandoError("EINVAL", `${quote(nqn)} is not a host NQN: ${why}`, {
      field: "host",
      hint: "the host's own is in its /etc/nvme/hostnqn; nvme gen-hostnqn makes one",
    });
  };
  if (Buffer.byteLength(nqn) > MAX_NQN_BYTES) fail(`it is longer than ${MAX_NQN_BYTES} bytes`);
  if (!/^[\x21-\x7e]*$/.test(nqn)) fail("it has a blank or a character outside ASCII");
  if (!PATTERN.test(nqn)) fail("it does not look like nqn.2014-08.org.example:name");
}
