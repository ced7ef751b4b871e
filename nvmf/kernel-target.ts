// Serves volumes by the kernel's NVMe target: a block device for each, and the target's
// configuration over them. Both outlive this process; what it finds, it goes on with.
//
// Order: a device is there before the target names it, and stays until the target has let go of it.
// One that has no server any more and will have none is stopped before that: the target waits for
// the requests that it has there.
import { readFile } from "node:fs/promises";
import { formatDhchapKey } from "../engine/base/dhchap-key.js";
import { PandoError } from "../engine/base/errors.js";
import { DISCOVERY_NQN, volumeNqn } from "../engine/base/nqn.js";
import { tlsKeysByIdentity } from "../engine/base/tls-psk.js";
import type { Fence } from "../engine/core/hosts.js";
import { Mutex } from "../engine/core/mutex.js";
import type { KernelTarget, SharedVolume } from "../engine/core/shares.js";
import type { BlockDevices } from "./block-devices.js";
import { type ConfigFs, NVMET_ROOT, readNvmet } from "./nvmet-configfs.js";
import { namespacePath } from "./nvmet-plan.js";
import { NvmetReconciler } from "./nvmet-reconcile.js";
import {
  type DesiredVolume,
  type HostSecrets,
  type ListenAddress,
  modelOf,
  NAMESPACE_ID,
} from "./nvmet-state.js";
import type { PskKeyring, TlsKeyring } from "./psk-keyring.js";

export interface NvmetTargetParts {
  devices: BlockDevices;
  poolUuid: string;
  listen: ListenAddress;
  /** Whether hosts have to use TLS; else they cannot. */
  tls: boolean;
  /** nvmet's folder. */
  files: ConfigFs;
  /** Where the kernel and tlshd look for TLS keys. */
  keyring: Pick<PskKeyring, "keep">;
  sleep(ms: number): Promise<void>;
  /** Of a volume that is shared and cannot be served now. */
  onFailure(volume: string, error: unknown): void;
}

/** How long a fence waits for the last request. */
const FENCE_TRIES = 300;
const FENCE_WAIT_MS = 100;

export class NvmetTarget implements KernelTarget {
  readonly #parts: NvmetTargetParts;
  readonly #reconciler: NvmetReconciler;
  readonly #turn = new Mutex();
  /** That the kernel's target has looked at since this process began, by the volume's UUID. */
  readonly #sizes = new Map<string, number>();

  constructor(parts: NvmetTargetParts) {
    this.#parts = parts;
    this.#reconciler = new NvmetReconciler(parts.files);
  }

  get tls(): boolean {
    return this.#parts.tls;
  }

  apply(volumes: readonly SharedVolume[]): Promise<ReadonlyMap<string, unknown>> {
    return this.#turn.run(() => this.#apply(volumes));
  }

  async hostsMayBeConnected(): Promise<boolean> {
    const { port } = this.#parts.listen;
    const tables = await Promise.all(
      ["/proc/net/tcp", "/proc/net/tcp6"].map((path) => readFile(path, "utf8").catch(() => "")),
    );
    return tables.some((table) => hasConnection(table, port));
  }

  canGrow(uuid: string): boolean {
    return this.#parts.devices.canGrow(uuid);
  }

  fence(uuid: string, volumes: readonly SharedVolume[]): Promise<Fence> {
    return this.#turn.run(async () => {
      const nqn = volumeNqn(uuid);
      const { files } = this.#parts;
      const { ports } = await readNvmet(files);
      for (const [number, port] of ports) {
        if (!port.subsystems.has(nqn)) continue;
        await files.take({ verb: "unlink", path: `ports/${number}/subsystems/${nqn}` });
      }
      const ended = await this.#requestsEnd(uuid);
      await this.#apply(volumes);
      // The kernel does not say how many it had.
      return { controllers: 0, ended };
    });
  }

  async #apply(volumes: readonly SharedVolume[]): Promise<ReadonlyMap<string, unknown>> {
    const { devices, files, poolUuid, listen, tls, onFailure } = this.#parts;
    const configured = (await files.list("")).length > 0;
    if (!configured && volumes.length > 0) {
      throw new PandoError("EINVAL", `nvmet is not available on this machine: no ${NVMET_ROOT}`, {
        field: "via",
        hint: "modprobe nvmet-tcp, as root; pando doctor says more",
      });
    }
    const served: DesiredVolume[] = [];
    const secrets = new Map<string, HostSecrets>();
    const untouched = new Set<string>();
    const failures = new Map<string, unknown>();
    for (const volume of volumes) {
      const { uuid, allowedHosts, keys } = volume;
      for (const [host, { hostKey, controllerKey }] of keys) {
        secrets.set(host, {
          hostKey: formatDhchapKey(hostKey),
          controllerKey: controllerKey === null ? null : formatDhchapKey(controllerKey),
        });
      }
      const nqn = volumeNqn(uuid);
      try {
        const devicePath = await devices.provide(volume);
        served.push({ nqn, uuid, allowedHosts, devicePath });
      } catch (error) {
        // Its hosts, if it has any, wait: it is not taken from them because its device fails now.
        untouched.add(nqn);
        failures.set(uuid, error);
        onFailure(volume.name, error);
      }
    }
    const model = modelOf(poolUuid);
    const wanted = new Set(volumes.map(({ uuid }) => uuid));
    await devices.stopOrphans(wanted);
    // Before anybody is let in; and who is not any more cannot come back.
    await this.#keepKeys(volumes);
    if (configured) {
      await this.#reconciler.reconcile({ model, listen, tls, volumes: served, untouched, secrets });
    }
    await devices.removeOthers(wanted);
    for (const volume of volumes) {
      if (failures.has(volume.uuid) || !devices.canGrow(volume.uuid)) continue;
      await this.#tellSize(volume).catch((error: unknown) => {
        failures.set(volume.uuid, error);
        onFailure(volume.name, error);
      });
    }
    return failures;
  }

  /** A host's key for each of its volumes, and for asking which there are. */
  async #keepKeys(volumes: readonly SharedVolume[]): Promise<void> {
    const { keyring, poolUuid, tls } = this.#parts;
    const name = `pando ${poolUuid}`;
    // Without TLS there is nothing to open with what is left of them.
    if (!tls) return void (await keyring.keep(name, new Map()).catch(() => undefined));
    await keyring.keep(name, keysOf(volumes));
  }

  /** The target looks at a device's size when a namespace is enabled, and when it is told to. */
  async #tellSize({ uuid, sizeBytes }: SharedVolume): Promise<void> {
    if (this.#sizes.get(uuid) === sizeBytes) return;
    const path = `${namespacePath(volumeNqn(uuid), NAMESPACE_ID)}/revalidate_size`;
    await this.#parts.files.take({ verb: "write", path, value: "1" });
    this.#sizes.set(uuid, sizeBytes);
  }

  async #requestsEnd(uuid: string): Promise<boolean> {
    const name = this.#parts.devices.nameOf(uuid);
    if (name === undefined) return true;
    for (let tries = 0; tries < FENCE_TRIES; tries++) {
      const text = await readFile(`/sys/block/${name}/inflight`, "utf8").catch(() => "0");
      if (/^[0\s]*$/.test(text)) return true;
      await this.#parts.sleep(FENCE_WAIT_MS);
    }
    return false;
  }
}

function keysOf(volumes: readonly SharedVolume[]): TlsKeyring {
  const keys = new Map<string, Uint8Array>();
  for (const { uuid, tlsKeys } of volumes) {
    for (const [hostNqn, psk] of tlsKeys) {
      for (const subsystemNqn of [volumeNqn(uuid), DISCOVERY_NQN]) {
        for (const [identity, secret] of tlsKeysByIdentity(psk, { hostNqn, subsystemNqn })) {
          keys.set(identity, secret);
        }
      }
    }
  }
  return keys;
}

/**
 * Rows of /proc/net/tcp (proc(5)): a number, the local address and port in hexadecimal, the
 * remote's, the state; 01 is established.
 */
export function hasConnection(table: string, localPort: number): boolean {
  const port = localPort.toString(16).toUpperCase().padStart(4, "0");
  return table.split("\n").some((line) => {
    const [, local, , state] = line.trim().split(/\s+/);
    return state === "01" && local?.endsWith(`:${port}`) === true;
  });
}
