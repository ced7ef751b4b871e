// The kernel's NBD devices under its target: one for each volume, found again after a kill, given
// another socket when the kernel drops one, and in ublk's place only where there is no ublk.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PandoError } from "../../engine/base/errors.js";
import type { NbdConnectOptions, NbdReconnectOptions } from "../../native/native.js";
import { UblkOrNbd } from "../../nvmf/block-devices.js";
import { type NbdCalls, type NbdDevice, NbdDevices } from "../../nvmf/nbd-devices.js";
import type { UblkDevices } from "../../nvmf/ublk-devices.js";
import { rejects } from "../support/refuses.js";

const POOL = "11111111-2222-4333-8444-555555555555";
const UUID = "3f8a1c52-9d0e-4b67-8a21-000000000001";
const OWNER = `pando ${POOL} ${UUID}`;
const VOLUME = {
  name: "db",
  uuid: UUID,
  sizeBytes: 2 ** 20,
  allowedHosts: [],
  keys: new Map(),
  tlsKeys: new Map(),
};

/** The driver and the reactor's side, as far as they show. */
class FakeNbd implements NbdCalls {
  readonly devices = new Map<number, string>();
  readonly said: string[] = [];
  loaded = true;
  failing = "";
  #next = 0;
  #sockets = 10;
  readonly #serving = new Map<string, ((lost: boolean) => void)[]>();

  nbdIsLoaded = async () => this.loaded;
  async nbdConnect({ owner, socket, sizeBytes, blockBytes }: NbdConnectOptions): Promise<number> {
    this.#say(`connect ${socket} ${sizeBytes}/${blockBytes}`);
    const device = this.#next++;
    this.devices.set(device, owner);
    return device;
  }
  /** Of reconnecting: the kernel takes no socket until it has noticed the end of the last. */
  slow: Promise<void> = Promise.resolve();
  async nbdReconnect(device: number, to: NbdReconnectOptions): Promise<void> {
    await this.slow;
    this.#say(`reconnect ${device} ${to.socket} ${to.sizeBytes}`);
    assert.is(this.devices.get(device), to.owner);
  }
  async nbdResize(device: number, to: { owner: string; sizeBytes: number }): Promise<void> {
    this.#say(`resize ${device} ${to.sizeBytes}`);
    assert.is(this.devices.get(device), to.owner);
  }
  async nbdDisconnect(device: number): Promise<void> {
    this.#say(`disconnect ${device}`);
    this.devices.delete(device);
  }
  async nbdServe(_pool: number, volume: string): Promise<{ socket: number; flags: number }> {
    this.#say(`serve ${volume}`);
    assert.not.ok(this.#serving.has(volume), "one at a time");
    this.#serving.set(volume, []);
    return { socket: this.#sockets++, flags: 1 };
  }
  async nbdEnded(_pool: number, volume: string): Promise<boolean> {
    const waiting = this.#serving.get(volume);
    if (waiting === undefined) return false;
    return new Promise((resolve) => waiting.push(resolve));
  }
  async nbdRelease(_pool: number, volume: string): Promise<void> {
    this.#say(`release ${volume}`);
    this.end(volume, false);
  }
  readonly kernel = {
    list: async (): Promise<NbdDevice[]> =>
      [...this.devices].map(([device, owner]) => ({ device, owner })),
    limitRequests: async (device: number, kib: number) => this.#say(`limit ${device} ${kib}`),
  };

  end(volume: string, lost: boolean): void {
    const waiting = this.#serving.get(volume) ?? [];
    this.#serving.delete(volume);
    for (const ended of waiting) ended(lost);
  }
  #say(text: string): void {
    this.said.push(text);
    if (this.failing !== "" && text.startsWith(this.failing)) throw new Error(`no: ${text}`);
  }
}

function scene() {
  const nbd = new FakeNbd();
  const failures: string[] = [];
  const begin = () =>
    new NbdDevices({
      addon: nbd,
      pool: 1,
      poolUuid: POOL,
      blockBytes: 4096,
      kernel: nbd.kernel,
      onFailure: (volume, error) => failures.push(`${volume}: ${(error as Error).message}`),
    });
  return { nbd, failures, begin, devices: begin() };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

test("a device is made once, and removed when it is not wanted", async () => {
  const { nbd, devices } = scene();
  assert.is(await devices.provide(VOLUME), "/dev/nbd0");
  assert.is(await devices.provide(VOLUME), "/dev/nbd0");
  assert.is(devices.nameOf(UUID), "nbd0");
  assert.equal(nbd.said, ["serve db", "connect 10 1048576/4096", "limit 0 1024"]);
  assert.is(nbd.devices.get(0), OWNER);
  await devices.removeOthers(new Set([UUID]));
  assert.is(nbd.said.length, 3);
  await devices.removeOthers(new Set());
  assert.equal(nbd.said.slice(3), ["disconnect 0", "release db"]);
  assert.is(devices.nameOf(UUID), undefined);
});

test("a device that a killed daemon has left goes on with another socket", async () => {
  const { nbd, devices, begin } = scene();
  await devices.provide(VOLUME);
  nbd.end("db", false);
  nbd.said.length = 0;
  const next = begin();
  assert.ok(await next.has(UUID));
  assert.is(await next.provide(VOLUME), "/dev/nbd0");
  assert.equal(nbd.said, ["serve db", "reconnect 0 11 1048576", "limit 0 1024"]);
});

test("a connection that the kernel gives up is followed by another, each time", async () => {
  const { nbd, devices, failures } = scene();
  await devices.provide(VOLUME);
  for (const socket of [11, 12]) {
    nbd.said.length = 0;
    nbd.end("db", true);
    await settle();
    assert.equal(nbd.said, ["serve db", `reconnect 0 ${socket} 1048576`]);
  }
  nbd.failing = "reconnect";
  nbd.end("db", true);
  await settle();
  assert.equal(failures, ["db: no: reconnect 0 13 1048576"]);
  assert.is(devices.nameOf(UUID), undefined, "the next apply tries again");
});

test("a device grows with its volume, at once or after a kill", async () => {
  const { nbd, devices, begin } = scene();
  await devices.provide(VOLUME);
  assert.ok(devices.canGrow(UUID));
  const larger = { ...VOLUME, sizeBytes: 2 ** 21 };
  nbd.said.length = 0;
  await devices.provide(larger);
  await devices.provide(larger);
  assert.equal(nbd.said, ["resize 0 2097152"]);
  nbd.end("db", true);
  await settle();
  assert.is(nbd.said.at(-1), "reconnect 0 11 2097152");
  nbd.end("db", false);
  const next = begin();
  await next.provide({ ...VOLUME, sizeBytes: 2 ** 22 });
  assert.ok(nbd.said.includes("reconnect 0 12 4194304"));
  nbd.failing = "resize";
  await next.provide(VOLUME).then(assert.unreachable, () => undefined);
  nbd.failing = "";
  nbd.said.length = 0;
  await next.provide(VOLUME);
  assert.equal(nbd.said, ["resize 0 1048576"], "what failed is tried again");
});

test("a device that grows while it waits for a socket keeps its new size", async () => {
  const { nbd, devices } = scene();
  await devices.provide(VOLUME);
  let notice: () => void = () => undefined;
  nbd.slow = new Promise((resolve) => {
    notice = resolve;
  });
  nbd.end("db", true);
  await settle();
  const growing = devices.provide({ ...VOLUME, sizeBytes: 2 ** 21 });
  await settle();
  notice();
  await growing;
  await settle();
  assert.equal(nbd.said.slice(-2), ["reconnect 0 11 1048576", "resize 0 2097152"]);
});

test("orphans of this pool go, devices of others stay", async () => {
  const { nbd, devices } = scene();
  nbd.devices.set(7, `pando ${POOL} 3f8a1c52-9d0e-4b67-8a21-000000000009`);
  nbd.devices.set(8, `pando 99999999${POOL.slice(8)} ${UUID}`);
  nbd.devices.set(9, "qemu");
  await devices.provide(VOLUME);
  await devices.stopOrphans(new Set([UUID]));
  assert.equal([...nbd.devices.keys()].sort(), [0, 8, 9]);
});

test("an orphan that has been removed is not taken for one that waits", async () => {
  const { nbd, devices } = scene();
  nbd.devices.set(7, OWNER);
  assert.ok(await devices.has(UUID));
  await devices.removeOthers(new Set());
  assert.not.ok(await devices.has(UUID));
  assert.is(await devices.provide(VOLUME), "/dev/nbd0");
  assert.ok(nbd.said.some((text) => text.startsWith("connect")));
});

test("what fails half-way leaves no device, and the volume closed", async () => {
  for (const failing of ["connect", "limit"]) {
    const { nbd, devices } = scene();
    nbd.failing = failing;
    await devices.provide(VOLUME).then(
      () => assert.unreachable(),
      (error: Error) => assert.match(error.message, `no: ${failing}`),
    );
    assert.is(nbd.devices.size, 0);
    assert.ok(nbd.said.includes("release db"));
    nbd.failing = "";
    assert.match(await devices.provide(VOLUME), /^\/dev\/nbd/);
  }
});

test("ublk where it is, NBD where it is not, and what was begun goes on as it was", async () => {
  const { nbd, devices } = scene();
  let whyNot: PandoError | null = null;
  const ublk = {
    nameOf: () => undefined,
    whyNot: async () => whyNot,
    provide: async () => "/dev/ublkb0",
  } as unknown as UblkDevices;
  const both = new UblkOrNbd(ublk, devices);
  assert.is(await both.provide(VOLUME), "/dev/ublkb0");
  whyNot = new PandoError("EINVAL", "no ublk");
  nbd.loaded = false;
  await rejects(both.provide(VOLUME), "EINVAL", /no ublk/);
  nbd.loaded = true;
  assert.is(await both.provide(VOLUME), "/dev/nbd0");
  whyNot = null;
  assert.is(await both.provide(VOLUME), "/dev/nbd0");
});

test.run();
