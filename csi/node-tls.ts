// TLS of this compute node: with a key file, every volume is connected over TLS or not at all.
//
// Whether a storage node demands it of this one, the controller has asked when it published the
// volume. That may be older than the key, so it is no reason against TLS; but without a key there
// is nothing to try.
import { status } from "@grpc/grpc-js";
import { isPandoError } from "../engine/base/errors.js";
import type { Log } from "../engine/base/log.js";
import type { HostTls } from "../nvmf/host-tls.js";
import { CsiError, toCsiStatus } from "./errors.js";
import type { Strings } from "./messages.js";

/** What the publish context says where TLS is demanded. */
export const TLS_REQUIRED = { tls: "required" } as const;

export type NodeTls = Pick<HostTls, "prepare" | "forget">;

/** Whether to connect over TLS; the key is where the kernel looks for it then. */
export async function prepareTls(
  tls: NodeTls | null,
  of: { nqn: string; publishContext: Strings },
): Promise<boolean> {
  const { nqn, publishContext } = of;
  if (tls !== null) {
    await tls.prepare(nqn).catch(refuse);
    return true;
  }
  if (publishContext.tls === undefined) return false;
  const why = "the volume's storage node demands TLS of this node, whose plugin has no tlsKeyFile";
  throw new CsiError(status.FAILED_PRECONDITION, why);
}

/**
 * At start. The node plugin serves without its key: volumes that are there have to be unmounted,
 * and the key may come later.
 */
export function warnOfKey(tls: Pick<HostTls, "check">, log: Log): void {
  try {
    tls.check();
  } catch (err) {
    log.warn({ err }, "no volume can be staged with this node's tlsKeyFile");
  }
}

/** Key file and key ring are this node's: nothing that the request could say better. */
function refuse(cause: unknown): never {
  if (!isPandoError(cause)) throw cause;
  const message = `this node's plugin cannot use TLS: ${toCsiStatus(cause).details}`;
  throw new CsiError(status.FAILED_PRECONDITION, message, { cause });
}
