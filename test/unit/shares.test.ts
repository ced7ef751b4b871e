// What the kernel's target serves: durable before anything is done, taken back if it fails, kept
// from those who would pull it away.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PandoError } from "../../engine/base/errors.js";
import { type KernelTarget, type SharedVolume, Shares } from "../../engine/core/shares.js";
import * as catalogue from "../../engine/store/catalogue.js";
import {
  putHostKeys,
  putTlsPsk,
  removeHostKeys,
  removeTlsPsk,
} from "../../engine/store/host-keys.js";
import { hasConnection } from "../../nvmf/kernel-target.js";
import { type UblkCalls, UblkDevices } from "../../nvmf/ublk-devices.js";
import { ModelStore } from "../sim/model-store.js";
import { refuses, rejects } from "../support/refuses.js";

const POOL = "11111111-2222-4333-8444-555555555555";
const UUID = "3f8a1c52-9d0e-4b67-8a21-000000000001";
const HOST = "nqn.2014-08.org.example:a";

class FakeTarget implements KernelTarget {
  tls = false;
  applied: string[][] = [];
  connected = false;
  failure: Error | null = null;
  readonly failures = new Map<string, Error>();
  async apply(volumes: readonly SharedVolume[]): Promise<ReadonlyMap<string, Error>> {
    this.applied.push(volumes.map(({ name }) => name));
    if (this.failure !== null) throw this.failure;
    return this.failures;
  }
  async hostsMayBeConnected(): Promise<boolean> {
    return this.connected;
  }
  growing = false;
  canGrow(): boolean {
    return this.growing;
  }
  fences = 0;
  async fence(): Promise<{ controllers: number; ended: boolean }> {
    this.fences++;
    return { controllers: 0, ended: true };
  }
}

async function scene(open = false) {
  const store = new ModelStore();
  await store.transact((txn) => {
    catalogue.createVolume(txn, "db", {
      uuid: UUID,
      layer: 1,
      sizeBytes: 2 ** 20,
      createdAt: "2026-01-02T03:04:05.000Z",
      allowedHosts: [HOST],
      origin: null,
    });
  });
  const volumes = {
    requireClosed() {
      if (open) throw new PandoError("EBUSY", "volume db is in use by nbd");
    },
  };
  const shares = new Shares({ store, volumes, change: (work) => work() });
  return { store, shares, target: new FakeTarget() };
}

test("a volume is shared, stays so, and is given back", async () => {
  const { store, shares, target } = await scene();
  await rejects(shares.share("db"), "EINVAL", /no address for nvmet/);
  await shares.attach(target);
  await shares.share("db");
  await shares.share("db");
  assert.equal(target.applied, [[], ["db"], ["db"]]);
  assert.equal(catalogue.getShares(store), [UUID]);
  refuses(() => shares.requireNotShared("db"), "EBUSY", /shared via nvmet/);
  const later = new FakeTarget();
  const again = new Shares({ store, volumes: { requireClosed() {} }, change: (work) => work() });
  await again.attach(later);
  assert.equal(later.applied, [["db"]], "after a restart it is served at once");
  await shares.unshare("db", { force: false });
  await shares.unshare("db", { force: false });
  assert.equal(target.applied.at(-1), []);
  assert.equal(catalogue.getShares(store), []);
  shares.requireNotShared("db");
});

test("a shared volume grows where its block device can, and the kernel is told", async () => {
  const { store, shares, target } = await scene();
  shares.requireCanGrow("db");
  await shares.attach(target);
  await shares.share("db");
  refuses(() => shares.requireCanGrow("db"), "EBUSY", /block device there keeps its size/);
  const alone = new Shares({ store, volumes: { requireClosed() {} }, change: (work) => work() });
  refuses(() => alone.requireCanGrow("db"), "EINVAL", /no address for nvmet/);
  target.growing = true;
  shares.requireCanGrow("db");
  target.failures.set(UUID, new PandoError("EIO", "the device keeps its size"));
  await rejects(shares.volumeChanged("db"), "EIO", /keeps its size/);
  assert.ok(shares.uuids().has(UUID), "it is served in its old size");
});

test("what a front end has open is not shared", async () => {
  const { store, shares, target } = await scene(true);
  await shares.attach(target);
  await rejects(shares.share("db"), "EBUSY", /in use by nbd/);
  assert.equal(catalogue.getShares(store), []);
});

test("a share that fails is taken back", async () => {
  const { store, shares, target } = await scene();
  await shares.attach(target);
  target.failure = new PandoError("EINVAL", "no ublk");
  await rejects(shares.share("db"), "EINVAL", /no ublk/);
  assert.equal(catalogue.getShares(store), []);
  assert.equal(target.applied.at(-1), []);
});

test("what fails for one volume is not said of another", async () => {
  const { shares, target } = await scene();
  await shares.attach(target);
  target.failures.set("another's", new PandoError("EIO", "no device of another"));
  await shares.share("db");
  assert.ok(shares.uuids().has(UUID));
  await shares.volumeChanged("db");
  await rejects(shares.keysChanged(), "EIO", /of another/);
  await shares.unshare("db", { force: false });
  target.failures.set(UUID, new PandoError("EIO", "no device"));
  await rejects(shares.share("db"), "EIO", /no device/);
  assert.is(shares.uuids().size, 0);
});

test("hosts that may be connected keep it, unless it is forced", async () => {
  const { shares, target } = await scene();
  await shares.attach(target);
  await shares.share("db");
  target.connected = true;
  await rejects(shares.unshare("db", { force: false }), "EBUSY", /hosts are connected/);
  assert.ok(shares.uuids().has(UUID));
  await shares.unshare("db", { force: true });
  assert.is(shares.uuids().size, 0);
});

test("a new host reaches the kernel; a fence is the kernel's for what is shared only", async () => {
  const { shares, target } = await scene();
  await shares.attach(target);
  await shares.volumeChanged("db");
  assert.is(target.applied.length, 1);
  assert.is(shares.fence(UUID), null);
  await shares.share("db");
  await shares.volumeChanged("db");
  assert.equal(target.applied.at(-1), ["db"]);
  assert.equal(await shares.fence(UUID), { controllers: 0, ended: true });
});

test("a host that has to use TLS does not get in by the kernel, which has none", async () => {
  const { store, shares, target } = await scene();
  await shares.attach(target);
  await shares.share("db");
  assert.equal(shares.list()[0]?.allowedHosts, [HOST]);
  const psk = { transform: null, secret: new Uint8Array(32) };
  await store.transact((txn) => putTlsPsk(txn, HOST, psk));
  assert.equal(shares.list()[0]?.allowedHosts, []);
  await shares.putOut(`${HOST}2`);
  assert.is(target.fences, 0);
  await shares.putOut(HOST);
  assert.is(target.fences, 1);
});

test("where the kernel's target demands TLS, hosts with a key get in, and no others", async () => {
  const { store, shares, target } = await scene();
  target.tls = true;
  await shares.attach(target);
  await shares.share("db");
  assert.equal(shares.list()[0]?.allowedHosts, []);
  const psk = { transform: null, secret: new Uint8Array(32) };
  await store.transact((txn) => putTlsPsk(txn, HOST, psk));
  await store.transact((txn) => putTlsPsk(txn, `${HOST}2`, psk));
  assert.equal(shares.list()[0]?.allowedHosts, [HOST]);
  assert.equal([...(shares.list()[0]?.tlsKeys.keys() ?? [])], [HOST]);
  await shares.putOut(HOST);
  assert.is(target.fences, 0, "it has just been let in");
  await store.transact((txn) => removeTlsPsk(txn, HOST));
  await shares.putOut(HOST);
  assert.is(target.fences, 1);
});

test("the kernel is given the keys of the volume's hosts, and told when they change", async () => {
  const { store, shares, target } = await scene();
  await shares.attach(target);
  const keys = { hostKey: { hash: null, secret: new Uint8Array(32) }, controllerKey: null };
  await store.transact((txn) => putHostKeys(txn, HOST, keys));
  await store.transact((txn) => putHostKeys(txn, `${HOST}2`, keys));
  await shares.keysChanged();
  assert.is(target.applied.length, 1, "nothing is shared yet");
  await shares.share("db");
  assert.equal([...(shares.list()[0]?.keys.keys() ?? [])], [HOST]);
  await store.transact((txn) => removeHostKeys(txn, HOST));
  await shares.keysChanged();
  assert.is(shares.list()[0]?.keys.size, 0);
  assert.equal(target.applied, [[], ["db"], ["db"]]);
});

// Block devices.

interface Device {
  owner: string;
  state: "dead" | "live" | "quiesced";
  serverPid: number;
  sizeBytes: number;
}

/** The kernel's ublk driver, as far as its control device shows it. */
class FakeUblk implements UblkCalls {
  readonly devices = new Map<number, Device>();
  readonly said: string[] = [];
  missing = 0;
  busyTimes = 0;
  serveFails = false;
  #next = 0;

  ublkMissing = async () => this.missing;
  async ublkAdd({ owner, sizeBytes }: { owner: string; sizeBytes: number }): Promise<number> {
    const device = this.#next++;
    this.devices.set(device, { owner, state: "dead", serverPid: 0, sizeBytes });
    this.said.push(`add ${device}`);
    return device;
  }
  async ublkInfo(device: number): Promise<Device> {
    return this.#get(device);
  }
  async ublkStart(device: number): Promise<void> {
    this.#get(device).state = "live";
    this.said.push(`start ${device}`);
  }
  async ublkStartRecovery(device: number): Promise<void> {
    if (this.busyTimes-- > 0) throw Object.assign(new Error("busy"), { code: "EBUSY" });
    this.said.push(`recover ${device}`);
  }
  async ublkEndRecovery(device: number): Promise<void> {
    this.#get(device).state = "live";
    this.said.push(`recovered ${device}`);
  }
  async ublkStop(device: number): Promise<void> {
    this.said.push(`stop ${device}`);
  }
  async ublkDelete(device: number): Promise<void> {
    this.devices.delete(device);
    this.said.push(`delete ${device}`);
  }
  async ublkServe(_pool: number, device: number, volume: string): Promise<void> {
    this.said.push(`serve ${device} ${volume}`);
    if (this.serveFails) throw Object.assign(new Error("no"), { code: "EIO" });
  }
  async ublkRelease(_pool: number, device: number): Promise<void> {
    this.said.push(`release ${device}`);
  }
  #get(device: number): Device {
    const found = this.devices.get(device);
    if (found === undefined) throw Object.assign(new Error("gone"), { code: "ENODEV" });
    return found;
  }
}

const VOLUME = {
  name: "db",
  uuid: UUID,
  sizeBytes: 2 ** 20,
  allowedHosts: [],
  keys: new Map(),
  tlsKeys: new Map(),
};
const OWNER = "1111113f8a1c529d";

function devicesOf(ublk: FakeUblk): UblkDevices {
  return new UblkDevices({
    addon: ublk,
    pool: 1,
    poolUuid: POOL,
    blockSizeBytes: 4096,
    atomicUnit: 4096,
    sleep: async () => undefined,
    listDevices: async () => [...ublk.devices.keys()],
  });
}

test("a device is made once, and removed when it is not wanted", async () => {
  const ublk = new FakeUblk();
  const devices = devicesOf(ublk);
  assert.is(await devices.provide(VOLUME), "/dev/ublkb0");
  assert.is(await devices.provide(VOLUME), "/dev/ublkb0");
  assert.is(ublk.devices.get(0)?.owner, OWNER);
  await devices.removeOthers(new Set([UUID]));
  assert.equal(ublk.said, ["add 0", "serve 0 db", "start 0"]);
  await devices.removeOthers(new Set());
  assert.equal(ublk.said.slice(3), ["stop 0", "release 0", "delete 0"]);
});

test("a device that a killed daemon has left goes on, once the kernel has seen it die", async () => {
  const ublk = new FakeUblk();
  await ublk.ublkAdd({ owner: OWNER, sizeBytes: VOLUME.sizeBytes });
  Object.assign(ublk.devices.get(0) as Device, { state: "quiesced", serverPid: 4 });
  ublk.busyTimes = 3;
  assert.is(await devicesOf(ublk).provide(VOLUME), "/dev/ublkb0");
  assert.equal(ublk.said.slice(1), ["recover 0", "serve 0 db", "recovered 0"]);
  ublk.busyTimes = Number.POSITIVE_INFINITY;
  const stuck = await devicesOf(ublk)
    .provide(VOLUME)
    .catch((error: { code?: string }) => error.code);
  assert.is(stuck, "EBUSY", "it is not waited for without end");
});

test("one that a crash has left half made is made anew; many are found by one look", async () => {
  const ublk = new FakeUblk();
  await ublk.ublkAdd({ owner: OWNER, sizeBytes: VOLUME.sizeBytes });
  let looks = 0;
  const info = ublk.ublkInfo;
  ublk.ublkInfo = (device) => {
    looks += 1;
    return info.call(ublk, device);
  };
  const devices = devicesOf(ublk);
  assert.is(await devices.provide(VOLUME), "/dev/ublkb1");
  assert.equal([...ublk.devices.keys()], [1]);
  const volumes = Array.from({ length: 50 }, (_, index) => ({
    ...VOLUME,
    uuid: UUID.replace("3f8a1c52", `${10_000_000 + index}`),
  }));
  for (const volume of volumes) await devices.provide(volume);
  assert.is(ublk.devices.size, 51);
  assert.is(looks, 1);
});

test("orphans of this pool go; other pools' devices and living servers stay", async () => {
  const ublk = new FakeUblk();
  const left = { state: "quiesced", serverPid: 0 } as const;
  const add = async (owner: string, more: Partial<Device>) => {
    const device = await ublk.ublkAdd({ owner, sizeBytes: 4096 });
    Object.assign(ublk.devices.get(device) as Device, more);
  };
  await add("111111aaaaaaaaaa", left);
  await add("222222aaaaaaaaaa", left);
  await add("111111bbbbbbbbbb", { state: "live", serverPid: process.pid });
  await devicesOf(ublk).stopOrphans(new Set());
  assert.equal(ublk.said.slice(3), ["stop 0"], "it is there until the target has let go of it");
  const devices = devicesOf(ublk);
  await devices.provide(VOLUME);
  await devices.removeOthers(new Set([UUID]));
  assert.equal([...ublk.devices.keys()], [1, 2, 3]);
  const orphan = { ...VOLUME, uuid: "aaaaaaaa-aaaa-4000-8000-000000000001", sizeBytes: 4096 };
  assert.is(await devices.provide(orphan), "/dev/ublkb4", "what is gone is not recovered");
});

test("what fails half-way leaves no device; what the kernel lacks is said", async () => {
  const ublk = new FakeUblk();
  ublk.serveFails = true;
  await devicesOf(ublk)
    .provide(VOLUME)
    .catch(() => undefined);
  assert.is(ublk.devices.size, 0);
  ublk.missing = 0x80;
  await rejects(devicesOf(ublk).provide(VOLUME), "EINVAL", /lacks features 0x80/);
  ublk.ublkMissing = async () => {
    throw Object.assign(new Error("none"), { code: "ENOENT" });
  };
  const refusal = await rejects(
    devicesOf(ublk).provide(VOLUME),
    "EINVAL",
    /no \/dev\/ublk-control/,
  );
  assert.match(refusal.context.hint ?? "", /modprobe ublk_drv/);
});

test("an established connection to the port is seen, a listener is not", () => {
  const row = (state: string, port: string) =>
    `   0: 0100007F:${port} 0200007F:A1B2 ${state} 00000000:00000000 00:00000000 00000000`;
  assert.ok(hasConnection(row("01", "1145"), 4421));
  assert.not.ok(hasConnection(row("0A", "1145"), 4421));
  assert.not.ok(hasConnection(row("01", "1144"), 4421));
});

test.run();
