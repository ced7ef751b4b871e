// The kernel's target from any state to the wanted one, by the rules of its configfs. Everything
// here runs on a model of those rules; test/system has the real kernel.
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { volumeNqn } from "../../engine/base/nqn.js";
import { configFs } from "../../nvmf/nvmet-configfs.js";
import { NvmetReconciler } from "../../nvmf/nvmet-reconcile.js";
import {
  type DesiredState,
  type DesiredVolume,
  modelOf,
  OWN_PORTS,
} from "../../nvmf/nvmet-state.js";
import { type Random, seeded } from "../prng.js";
import { FakeNvmet } from "../support/fake-nvmet.js";
import { rejects } from "../support/refuses.js";

const POOL = "11111111-2222-4333-8444-555555555555";
const OTHER_POOL = "99999999-2222-4333-8444-555555555555";
const HOSTS = ["nqn.2014-08.org.a:1", "nqn.2014-08.org.a:2", "nqn.2014-08.org.a:3"];
const PORT = OWN_PORTS.first;

function uuid(index: number): string {
  return `00000000-0000-4000-8000-${String(index).padStart(12, "0")}`;
}

function volume(index: number, allowedHosts: string[] = []): DesiredVolume {
  const devicePath = `/dev/ublkb${index}`;
  return { nqn: volumeNqn(uuid(index)), uuid: uuid(index), devicePath, allowedHosts };
}

function desired(...volumes: DesiredVolume[]): DesiredState {
  const listen = { address: "10.0.0.5", port: 4420 };
  const untouched = new Set<string>();
  return { model: modelOf(POOL), listen, tls: false, volumes, untouched, secrets: new Map() };
}

function keys(host: string, letter: string, controllerKey: string | null = null) {
  return new Map([[host, { hostKey: `DHHC-1:00:${letter}:`, controllerKey }]]);
}

function kernel(): { fake: FakeNvmet; reconciler: NvmetReconciler } {
  const fake = new FakeNvmet();
  for (let index = 0; index < 10; index++) fake.devices.add(`/dev/ublkb${index}`);
  return { fake, reconciler: new NvmetReconciler(configFs(fake.root, fake)) };
}

test("a volume is served whole, and a second look finds nothing to do", async () => {
  const { fake, reconciler } = kernel();
  const wanted = desired(volume(1, [HOSTS[0] as string]));
  assert.ok((await reconciler.reconcile(wanted)) > 0);
  const state = await reconciler.read();
  const subsystem = state.subsystems.get(volumeNqn(uuid(1)));
  assert.is(subsystem?.model, "Pando 11111111222243338444555555555555");
  assert.is(subsystem?.serial, "00000000000040008000");
  assert.is(subsystem?.allowAnyHost, false);
  assert.equal([...(subsystem?.hosts ?? [])], [HOSTS[0]]);
  assert.equal(subsystem?.namespaces.get(1), {
    devicePath: "/dev/ublkb1",
    uuid: uuid(1),
    nguid: uuid(1),
    anaGroup: 1,
    enabled: true,
  });
  assert.equal(state.ports.get(PORT), {
    trtype: "tcp",
    adrfam: "ipv4",
    traddr: "10.0.0.5",
    trsvcid: "4420",
    security: "none",
    requirement: "not specified",
    anaState: "optimized",
    subsystems: new Set([volumeNqn(uuid(1))]),
  });
  const before = fake.snapshot();
  assert.is(await reconciler.reconcile(wanted), 0);
  assert.equal(fake.snapshot(), before);
});

test("what is not wanted any more leaves nothing behind", async () => {
  const { fake, reconciler } = kernel();
  const empty = fake.snapshot();
  await reconciler.reconcile(desired(volume(1, HOSTS), volume(2, [HOSTS[0] as string])));
  await reconciler.reconcile(desired());
  assert.equal(fake.snapshot(), empty);
});

test("a host off the list is disconnected; those of other volumes are not", async () => {
  const { fake, reconciler } = kernel();
  const [first = "", second = ""] = HOSTS;
  await reconciler.reconcile(desired(volume(1, [first, second]), volume(2, [first])));
  await reconciler.reconcile(desired(volume(1, [second]), volume(2, [first])));
  assert.equal(fake.disconnected, [volumeNqn(uuid(1))]);
  const state = await reconciler.read();
  assert.ok(state.ports.get(PORT)?.subsystems.has(volumeNqn(uuid(1))), "it is back on its port");
  assert.ok(state.hosts.has(first), "a host that another volume has stays");
});

test("a host that has to prove itself has its keys before it is let in", async () => {
  const { fake, reconciler } = kernel();
  const [host = ""] = HOSTS;
  const volumes = desired(volume(1, [host]), volume(2, [host]));
  const secretOf = async () => (await reconciler.read()).hosts.get(host);
  await reconciler.reconcile({ ...volumes, secrets: keys(host, "a", "DHHC-1:00:c:") });
  assert.equal(await secretOf(), { hostKey: "DHHC-1:00:a:", controllerKey: "DHHC-1:00:c:" });
  assert.equal(fake.lateKeys, []);
  // Other keys: who has proved himself stays.
  await reconciler.reconcile({ ...volumes, secrets: keys(host, "b", "DHHC-1:00:c:") });
  assert.is((await secretOf())?.hostKey, "DHHC-1:00:b:");
  assert.equal(fake.disconnected, []);
  // Without the controller's.
  await reconciler.reconcile({ ...volumes, secrets: keys(host, "b") });
  assert.equal(await secretOf(), { hostKey: "DHHC-1:00:b:", controllerKey: null });
  // None, and then some: who was let in without is put out.
  await reconciler.reconcile(volumes);
  assert.is(await secretOf(), null);
  fake.disconnected.length = 0;
  await reconciler.reconcile({ ...volumes, secrets: keys(host, "d") });
  assert.equal(fake.disconnected.sort(), [volumeNqn(uuid(1)), volumeNqn(uuid(2))]);
  assert.equal(fake.lateKeys, []);
  await expectServed(reconciler, { ...volumes, secrets: keys(host, "d") });
});

test("keys of a host that others have are not changed; one that proves itself there may", async () => {
  const { fake, reconciler } = kernel();
  const [host = ""] = HOSTS;
  await makeForeign(fake);
  const before = fake.snapshot();
  const keyed = { ...desired(volume(1, [host])), secrets: keys(host, "a") };
  await rejects(reconciler.reconcile(keyed), "EBUSY", /for others too/);
  assert.equal(fake.snapshot(), before);
  await fake.write(`${fake.root}/hosts/${host}/dhchap_key`, "DHHC-1:00:theirs:");
  await reconciler.reconcile(desired(volume(1, [host])));
  assert.is((await reconciler.read()).hosts.get(host)?.hostKey, "DHHC-1:00:theirs:");
});

test("a kernel that cannot check keys lets nobody in who has some, and no key is told", async () => {
  const { fake, reconciler } = kernel();
  fake.authenticates = false;
  const [host = ""] = HOSTS;
  const keyed = { ...desired(volume(1, [host])), secrets: keys(host, "secret") };
  const error = await reconciler.reconcile(keyed).catch((caught: Error) => caught);
  assert.match(String(error), /cannot check keys/);
  assert.not.match(String(error), /secret/);
  const { subsystems } = await reconciler.read();
  assert.not.ok([...subsystems.values()].some(({ hosts }) => hosts.has(host)));
});

test("TLS of all or of none: who is connected otherwise is put out before it changes", async () => {
  const { fake, reconciler } = kernel();
  const plain = desired(volume(1, [HOSTS[0] as string]), volume(2));
  const secured = { ...plain, tls: true };
  await reconciler.reconcile(plain);
  for (const wanted of [secured, plain, secured]) {
    fake.disconnected.length = 0;
    await reconciler.reconcile(wanted);
    assert.equal(fake.disconnected.sort(), [volumeNqn(uuid(1)), volumeNqn(uuid(2))]);
    await expectServed(reconciler, wanted);
    assert.is(await reconciler.reconcile(wanted), 0);
  }
  // Somebody lets those in who come in the open.
  const path = `${fake.root}/ports/${PORT}`;
  for (const nqn of await fake.readdir(`${path}/subsystems`)) {
    await fake.unlink(`${path}/subsystems/${nqn}`);
  }
  await fake.write(`${path}/addr_treq`, "not required");
  await reconciler.reconcile(secured);
  await expectServed(reconciler, secured);
});

for (const tls of ["not built", "old"] as const) {
  test(`a kernel whose TLS is ${tls} serves nobody where it is wanted`, async () => {
    const { fake, reconciler } = kernel();
    fake.tls = tls;
    await reconciler.reconcile(desired(volume(1)));
    const secured = { ...desired(volume(1)), tls: true };
    await rejects(reconciler.reconcile(secured), "EINVAL", /nvmet of this kernel has no TLS/);
    await rejects(reconciler.reconcile(secured), "EINVAL", /nvmet of this kernel has no TLS/);
    assert.is((await reconciler.read()).ports.get(PORT)?.subsystems.size, 0);
    await reconciler.reconcile(desired(volume(1)));
    await expectServed(reconciler, desired(volume(1)));
  });
}

test("others' ports stay as they are, and what is ours leaves them where TLS is wanted", async () => {
  const { fake, reconciler } = kernel();
  await makePort(fake, 1, { traddr: "10.0.0.5", trsvcid: "4420" });
  await reconciler.reconcile(desired(volume(1)));
  const secured = { ...desired(volume(1)), tls: true };
  await rejects(reconciler.reconcile(secured), "EBUSY", /port 1 does not demand TLS/);
  const { ports } = await reconciler.read();
  assert.equal([ports.get(1)?.security, ports.get(1)?.subsystems.size], ["none", 0]);
  const elsewhere = { ...secured, listen: { address: "10.0.0.5", port: 4421 } };
  await reconciler.reconcile(elsewhere);
  // Somebody links it to a port without.
  const nqn = volumeNqn(uuid(1));
  await fake.symlink(`${fake.root}/subsystems/${nqn}`, `${fake.root}/ports/1/subsystems/${nqn}`);
  await reconciler.reconcile(elsewhere);
  await expectServed(reconciler, elsewhere);
  // His own on ours.
  const theirs = "nqn.2020-01.com.example:disk";
  await fake.mkdir(`${fake.root}/subsystems/${theirs}`);
  const on = `${fake.root}/ports/${PORT}/subsystems/${theirs}`;
  await fake.symlink(`${fake.root}/subsystems/${theirs}`, on);
  const plain = { ...elsewhere, tls: false };
  await rejects(reconciler.reconcile(plain), "EBUSY", /demands TLS, and others have it too/);
  await fake.unlink(on);
  await reconciler.reconcile(plain);
  await expectServed(reconciler, plain);
});

test("a device of another number is a namespace that goes and comes", async () => {
  const { reconciler } = kernel();
  await reconciler.reconcile(desired(volume(1)));
  await reconciler.reconcile(desired({ ...volume(1), devicePath: "/dev/ublkb7" }));
  const state = await reconciler.read();
  const namespace = state.subsystems.get(volumeNqn(uuid(1)))?.namespaces.get(1);
  assert.equal([namespace?.devicePath, namespace?.enabled], ["/dev/ublkb7", true]);
});

test("a namespace that somebody disabled, and a host that he let in, are put right", async () => {
  const { fake, reconciler } = kernel();
  const wanted = desired(volume(1, [HOSTS[0] as string]));
  await reconciler.reconcile(wanted);
  const before = fake.snapshot();
  const path = `${fake.root}/subsystems/${volumeNqn(uuid(1))}`;
  await fake.write(`${path}/namespaces/1/enable`, "0");
  await fake.mkdir(`${fake.root}/hosts/${HOSTS[1]}`);
  await fake.symlink(`${fake.root}/hosts/${HOSTS[1]}`, `${path}/allowed_hosts/${HOSTS[1]}`);
  await fake.mkdir(`${path}/namespaces/2`);
  await reconciler.reconcile(wanted);
  assert.equal(fake.snapshot(), before);
});

test("another address: the old port goes, the volumes listen on the new one", async () => {
  const { reconciler } = kernel();
  await reconciler.reconcile(desired(volume(1), volume(2)));
  const moved = { ...desired(volume(1), volume(2)), listen: { address: "::1", port: 4421 } };
  await reconciler.reconcile(moved);
  const { ports } = await reconciler.read();
  assert.is(ports.size, 1);
  const [port] = ports.values();
  assert.equal([port?.adrfam, port?.traddr, port?.trsvcid], ["ipv6", "::1", "4421"]);
  assert.is(port?.subsystems.size, 2);
});

test("what others configured is left as it is", async () => {
  const { fake, reconciler } = kernel();
  await makeForeign(fake);
  const before = fake.snapshot();
  await reconciler.reconcile(desired(volume(1, HOSTS), volume(2)));
  await reconciler.reconcile(desired());
  assert.equal(fake.snapshot(), before);
});

test("a port of somebody else's that has the address is used, and stays his", async () => {
  const { fake, reconciler } = kernel();
  await makePort(fake, 1, { traddr: "10.0.0.5", trsvcid: "4420" });
  await reconciler.reconcile(desired(volume(1)));
  const { ports } = await reconciler.read();
  assert.equal([...ports.keys()], [1]);
  assert.ok(ports.get(1)?.subsystems.has(volumeNqn(uuid(1))));
  await reconciler.reconcile(desired());
  assert.ok((await reconciler.read()).ports.has(1));
});

test("a volume that cannot be served now stays as it is, while the others change", async () => {
  const { fake, reconciler } = kernel();
  const [stuck, other] = [volume(1, HOSTS.slice(0, 1)), volume(2, HOSTS.slice(1))];
  await reconciler.reconcile(desired(stuck, other));
  const entries = () => fake.snapshot(/^$/);
  const ofStuck = () => entries().filter((line) => line.includes(stuck.nqn));
  const before = ofStuck();
  const untouched = new Set([stuck.nqn]);
  await reconciler.reconcile({ ...desired(volume(3)), untouched });
  await reconciler.reconcile({ ...desired(), untouched });
  await reconciler.reconcile({ ...desired(), untouched, listen: { address: "::1", port: 1 } });
  assert.equal(ofStuck(), before, "its hosts can come back to it");
  const others = entries().filter((line) => /^subsystems\/nqn/.test(line));
  assert.is(others.length, before.filter((line) => line.startsWith("subsystems")).length);
  await reconciler.reconcile(desired());
  assert.not.ok(entries().some((line) => /^(subsystems|ports|hosts)\//.test(line)));
});

test("two pools on one machine do not take each other's volumes", async () => {
  const { fake, reconciler } = kernel();
  const other = new NvmetReconciler(configFs(fake.root, fake));
  const otherWants = {
    model: modelOf(OTHER_POOL),
    listen: { address: "10.0.0.5", port: 4444 },
    tls: false,
    volumes: [volume(5)],
    untouched: new Set<string>(),
    secrets: new Map(),
  };
  await reconciler.reconcile(desired(volume(1)));
  await other.reconcile(otherWants);
  assert.is(await reconciler.reconcile(desired(volume(1))), 0);
  await reconciler.reconcile(desired());
  assert.is(await other.reconcile(otherWants), 0);
  const copied = reconciler.reconcile(desired(volume(5)));
  await rejects(copied, "EBUSY", /another pool's/);
});

test("a crash at every call leaves what the next start mends", async () => {
  const from = desired(volume(1, [HOSTS[0] as string]), volume(2, HOSTS));
  const to = desired(volume(2, [HOSTS[2] as string]), volume(3, [HOSTS[0] as string]));
  for (let failAt = 1; ; failAt++) {
    const { fake, reconciler } = kernel();
    await reconciler.reconcile(from);
    fake.calls = 0;
    fake.failAt = failAt;
    const crashed = await reconciler.reconcile(to).then(
      () => false,
      () => true,
    );
    fake.failAt = 0;
    await reconciler.reconcile(to);
    assert.is(await reconciler.reconcile(to), 0);
    await expectServed(reconciler, to);
    if (!crashed) break;
    assert.ok(failAt < 1_000, "it ends");
  }
});

for (let seed = 1; seed <= 12; seed++) {
  test(`any order of events ends in what is wanted, seed ${seed}`, () => randomEvents(seed));
}

test("a device that is not there is named", async () => {
  const { fake, reconciler } = kernel();
  fake.devices.clear();
  await rejects(reconciler.reconcile(desired(volume(1))), "EIO", /does not find the device/);
});

test("a step that the kernel does not end is not waited for without end", async () => {
  const { fake } = kernel();
  fake.mkdir = () => new Promise(() => undefined);
  const stuck = new NvmetReconciler(configFs(fake.root, fake, 5));
  await rejects(stuck.reconcile(desired(volume(1))), "EBUSY", /does not come to an end: mkdir/);
});

test("somebody who changes it back all the time is not fought for ever", async () => {
  const { fake } = kernel();
  const files = configFs(fake.root, fake);
  const stubborn = new NvmetReconciler({ ...files, take: async () => undefined });
  await rejects(stubborn.reconcile(desired(volume(1))), "EBUSY", /does not stay/);
});

test("steps on a real file system", async () => {
  const root = mkdtempSync(join(tmpdir(), "pando-nvmet-"));
  try {
    const files = configFs(root);
    assert.equal(await files.list("hosts"), []);
    assert.is(await files.read("attr"), null);
    mkdirSync(join(root, "hosts"));
    writeFileSync(join(root, "attr"), "old\n");
    await files.take({ verb: "mkdir", path: "hosts/a" });
    await files.take({ verb: "mkdir", path: "hosts/a" });
    await files.take({ verb: "link", path: "link", target: "hosts/a" });
    await files.take({ verb: "link", path: "link", target: "hosts/a" });
    assert.is(readlinkSync(join(root, "link")), join(root, "hosts/a"));
    assert.is(await files.read("attr"), "old");
    await files.take({ verb: "write", path: "attr", value: "new" });
    assert.is(readFileSync(join(root, "attr"), "utf8").slice(0, 3), "new");
    const absent = files.take({ verb: "write", path: "none", value: "1" });
    await rejects(absent, "EIO", /writing 1 to none: ENOENT/);
    await files.take({ verb: "unlink", path: "link" });
    await files.take({ verb: "unlink", path: "link" });
    await files.take({ verb: "rmdir", path: "hosts/a", shared: false });
    await files.take({ verb: "rmdir", path: "hosts/a", shared: false });
    assert.equal(readdirSync(root).sort(), ["attr", "hosts"]);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test.run();

/** Volumes, hosts and addresses come and go, the caller crashes, others meddle with ours. */
async function randomEvents(seed: number): Promise<void> {
  const random = seeded(seed);
  const { fake, reconciler } = kernel();
  await makeForeign(fake);
  const foreign = fake.snapshot();
  for (let round = 0; round < 12; round++) {
    const wanted = randomDesired(random);
    if (random.oneIn(3)) await meddle(fake, random);
    fake.calls = 0;
    fake.failAt = random.oneIn(2) ? 1 + random.below(150) : 0;
    await reconciler.reconcile(wanted).catch((error: Error) => {
      assert.is(error.message.includes("crash"), true, `seed ${seed}: ${error.stack}`);
    });
    fake.failAt = 0;
    await reconciler.reconcile(wanted);
    assert.is(await reconciler.reconcile(wanted), 0, `seed ${seed}, round ${round}`);
    await expectServed(reconciler, wanted);
  }
  // What somebody began under a volume's name is ours once the volume is wanted.
  await reconciler.reconcile(desired(...[1, 2, 3, 4].map((index) => volume(index))));
  await reconciler.reconcile(desired());
  // A host's folder has no sign of who made it: one that lost its last link in a crash stays.
  const left = fake.snapshot(/^hosts\/nqn\.2014-08\.org\.a:/);
  const before = foreign.filter((line) => !line.startsWith("hosts/nqn.2014-08.org.a:"));
  assert.equal(left, before, `seed ${seed}`);
}

function randomDesired(random: Random): DesiredState {
  const indexes = [1, 2, 3, 4].filter(() => random.below(3) > 0);
  const volumes = indexes.map((index) => {
    const hosts = HOSTS.filter(() => random.oneIn(2));
    const devicePath = `/dev/ublkb${random.oneIn(4) ? 9 - index : index}`;
    return { ...volume(index, hosts), devicePath };
  });
  const port = random.oneIn(4) ? 4421 : 4420;
  // Not of the first, whom others have too.
  const secrets = new Map(
    HOSTS.slice(1).flatMap((host) =>
      random.oneIn(3) ? [...keys(host, random.pick(["a", "b"]))] : [],
    ),
  );
  const listen = { address: "10.0.0.5", port };
  return { ...desired(...volumes), listen, secrets, tls: random.oneIn(3) };
}

async function meddle(fake: FakeNvmet, random: Random): Promise<void> {
  const path = `${fake.root}/subsystems/${volumeNqn(uuid(1 + random.below(4)))}`;
  const tries: (() => Promise<void>)[] = [
    () => fake.write(`${path}/namespaces/1/enable`, "0"),
    () => fake.unlink(`${path}/allowed_hosts/${random.pick(HOSTS)}`),
    () => fake.mkdir(`${path}/namespaces/3`),
    () => fake.unlink(`${fake.root}/ports/${PORT}/subsystems/${path.split("/").at(-1)}`),
    () => fake.mkdir(path),
    () => fake.mkdir(`${fake.root}/ports/${PORT + 1}`),
    () => fake.write(`${path}/attr_allow_any_host`, "1"),
    () => fake.write(`${fake.root}/ports/${PORT}/addr_treq`, "not required"),
    () => fake.write(`${fake.root}/ports/${PORT}/addr_tsas`, random.pick(["tls1.3", "none"])),
  ];
  await random
    .pick(tries)()
    .catch(() => undefined);
}

async function expectServed(reconciler: NvmetReconciler, wanted: DesiredState): Promise<void> {
  const { subsystems, ports, hosts } = await reconciler.read();
  for (const host of new Set(wanted.volumes.flatMap(({ allowedHosts }) => allowedHosts))) {
    assert.equal(hosts.get(host), wanted.secrets.get(host) ?? null);
  }
  const ours = [...subsystems].filter(([, { model }]) => model === wanted.model);
  assert.equal(ours.map(([nqn]) => nqn).sort(), wanted.volumes.map(({ nqn }) => nqn).sort());
  for (const { nqn, allowedHosts, devicePath } of wanted.volumes) {
    const subsystem = subsystems.get(nqn);
    const namespace = subsystem?.namespaces.get(1);
    assert.equal([...(subsystem?.hosts ?? [])].sort(), [...allowedHosts].sort());
    assert.equal([namespace?.devicePath, namespace?.enabled], [devicePath, true]);
    const on = [...ports.values()].filter((port) => port.subsystems.has(nqn));
    assert.equal(
      on.map(({ trsvcid }) => trsvcid),
      [String(wanted.listen.port)],
    );
    const tls = on.map(({ security, requirement }) =>
      security === "tls1.3" ? requirement : "none",
    );
    assert.equal(tls, [wanted.tls ? "required" : "none"]);
  }
}

async function makeForeign(fake: FakeNvmet): Promise<void> {
  const { root } = fake;
  fake.devices.add("/dev/sda");
  const subsystem = `${root}/subsystems/nqn.2020-01.com.example:disk`;
  await fake.mkdir(subsystem);
  await fake.mkdir(`${subsystem}/namespaces/1`);
  await fake.write(`${subsystem}/namespaces/1/device_path`, "/dev/sda");
  await fake.write(`${subsystem}/namespaces/1/enable`, "1");
  await fake.mkdir(`${root}/hosts/${HOSTS[0]}`);
  await fake.symlink(`${root}/hosts/${HOSTS[0]}`, `${subsystem}/allowed_hosts/${HOSTS[0]}`);
  await makePort(fake, 1, { traddr: "10.0.0.5", trsvcid: "5000" });
  await fake.symlink(subsystem, `${root}/ports/1/subsystems/nqn.2020-01.com.example:disk`);
}

async function makePort(
  fake: FakeNvmet,
  number: number,
  address: { traddr: string; trsvcid: string; trtype?: string },
): Promise<void> {
  const path = `${fake.root}/ports/${number}`;
  await fake.mkdir(path);
  await fake.write(`${path}/addr_trtype`, address.trtype ?? "tcp");
  await fake.write(`${path}/addr_adrfam`, "ipv4");
  await fake.write(`${path}/addr_traddr`, address.traddr);
  await fake.write(`${path}/addr_trsvcid`, address.trsvcid);
}
