// This machine's TLS key as a host: in the kernel's key ring for each subsystem that it connects
// to, under the identities that go with it, for as long as that lasts. The kernel takes it from
// there again whenever it connects anew. The file is read each time, so that another key in it
// counts from the next connection on.
import { readKeyFile } from "../engine/base/key-file.js";
import { parseTlsPsk, tlsKeysByIdentity } from "../engine/base/tls-psk.js";
import { PskKeyring } from "./psk-keyring.js";

export interface HostTlsParts {
  hostNqn: string;
  /** As nvme gen-tls-key writes it; for its owner alone. */
  keyFile: string;
  keyring: Pick<PskKeyring, "insert" | "forget">;
}

export class HostTls {
  readonly #parts: HostTlsParts;

  constructor(parts: HostTlsParts) {
    this.#parts = parts;
  }

  /** Before a connection to the subsystem. */
  async prepare(subsystemNqn: string): Promise<void> {
    const { hostNqn, keyring } = this.#parts;
    const names = { hostNqn, subsystemNqn };
    await keyring.insert(names, tlsKeysByIdentity(this.#readKey(), names));
  }

  /** After it. */
  async forget(subsystemNqn: string): Promise<void> {
    const { hostNqn, keyring } = this.#parts;
    await keyring.forget({ hostNqn, subsystemNqn });
  }

  /** Throws what a connection would be told of the key file now. */
  check(): void {
    this.#readKey();
  }

  #readKey() {
    return parseTlsPsk(readKeyFile(this.#parts.keyFile, "TLS key", parseTlsPsk), "TLS key");
  }
}

/** The real one. */
export async function openHostTls(hostNqn: string, keyFile: string): Promise<HostTls> {
  const { native } = await import("../native/native.js");
  return new HostTls({ hostNqn, keyFile, keyring: new PskKeyring(native) });
}
