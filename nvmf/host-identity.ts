// Who this machine is to NVMe targets. The kernel wants one host id for one host NQN, so the two
// come from one place.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { PandoError } from "../engine/base/errors.js";
import { checkHostNqn, hostNqn } from "../engine/base/nqn.js";

export interface HostIdentity {
  hostNqn: string;
  /** A UUID. */
  hostId: string;
}

/** Where it is looked for, in this order; passed in for tests. */
export interface IdentityFiles {
  readonly hostNqn: string;
  readonly hostId: string;
  /** What `nvme gen-hostnqn` makes a name of. */
  readonly productUuid: string;
}

export const identityFiles: IdentityFiles = {
  hostNqn: "/etc/nvme/hostnqn",
  hostId: "/etc/nvme/hostid",
  productUuid: "/sys/class/dmi/id/product_uuid",
};

const UUID = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** `named`: what the user says that this host is, if anything. */
export async function readHostIdentity(
  files: IdentityFiles,
  named: string | null,
): Promise<HostIdentity> {
  const stored = await read(files.hostNqn);
  const product = await read(files.productUuid);
  const nqn = named ?? stored ?? (product === null ? null : hostNqn(product.toLowerCase()));
  if (nqn === null) {
    throw new PandoError("ENOTFOUND", `this machine has no host NQN: no ${files.hostNqn}`, {
      path: files.hostNqn,
      hint: `nvme gen-hostnqn > ${files.hostNqn}, or name one with --host-nqn`,
    });
  }
  checkHostNqn(nqn);
  const storedId = nqn === stored ? await read(files.hostId) : null;
  return { hostNqn: nqn, hostId: storedId ?? deriveHostId(nqn) };
}

/** The NQN's own UUID if it ends in one. */
function deriveHostId(nqn: string): string {
  const own = UUID.exec(nqn)?.[0];
  if (own !== undefined) return own;
  const hex = createHash("sha256").update(nqn).digest("hex");
  const parts = [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`];
  return [...parts, `8${hex.slice(17, 20)}`, hex.slice(20, 32)].join("-");
}

async function read(path: string): Promise<string | null> {
  try {
    return (await readFile(path, "utf8")).trim() || null;
  } catch {
    return null;
  }
}
