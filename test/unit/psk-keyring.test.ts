// TLS keys in the kernel's key ring: those that are wanted and no others, in the right ring, and
// nothing that is somebody else's.
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { formatTlsPsk } from "../../engine/base/tls-psk.js";
import { HostTls } from "../../nvmf/host-tls.js";
import { PskKeyring, parseRings } from "../../nvmf/psk-keyring.js";
import { seeded } from "../prng.js";
import { FakeKeys } from "../support/fake-keys.js";
import { rejects } from "../support/refuses.js";

const RING = "pando 1";
const ANY = { hostNqn: "nqn.a", subsystemNqn: "nqn.disk" };
const root = mkdtempSync(join(tmpdir(), "pando-keys-"));
mkdirSync(join(root, "proc"));
test.after(() => rmSync(root, { recursive: true }));

function scene() {
  const keys = new FakeKeys();
  const keyring = new PskKeyring(keys, root);
  const show = () => writeFileSync(join(root, "proc/keys"), `${keys.table()}\n`);
  show();
  return { keys, keyring, show };
}

function secrets(of: Record<string, string>): Map<string, Uint8Array> {
  return new Map(Object.entries(of).map(([identity, text]) => [identity, Buffer.from(text)]));
}

test("a target's ring has what is wanted, and goes with the last key", async () => {
  const { keys, keyring } = scene();
  const theirs = keys.make({ type: "psk", description: "theirs", userId: 0 }, Buffer.from("t"));
  keys.link(keys.nvme, theirs);
  assert.is(await keyring.keep(RING, new Map()), 0);
  assert.is(await keyring.keep(RING, secrets({ a: "1", b: "2" })), 2);
  assert.equal(keys.contents(), { theirs: "t", [RING]: { a: "1", b: "2" } });
  assert.is(await keyring.keep(RING, secrets({ a: "1", b: "2" })), 0);
  // Another key of one host, another host in the other's place.
  await keyring.keep(RING, secrets({ a: "3", c: "2" }));
  assert.equal(keys.contents(), { theirs: "t", [RING]: { a: "3", c: "2" } });
  await keyring.keep("pando 2", secrets({ a: "9" }));
  await keyring.keep(RING, new Map());
  assert.equal(keys.contents(), { theirs: "t", "pando 2": { a: "9" } });
});

test("any order of wishes ends in the last one", async () => {
  const random = seeded(7);
  const { keys, keyring } = scene();
  for (let round = 0; round < 60; round++) {
    const wanted: Record<string, string> = {};
    for (const identity of ["a", "b", "c", "d"]) {
      if (random.oneIn(2)) wanted[identity] = random.pick(["1", "2"]);
    }
    await keyring.keep(RING, secrets(wanted));
    const left = Object.keys(wanted).length === 0 ? {} : { [RING]: wanted };
    assert.equal(keys.contents(), left);
    const { added } = keys;
    await keyring.keep(RING, secrets(wanted));
    assert.is(keys.added, added, "what is right is left as it is");
  }
});

test("a host's keys are in .nvme itself, beside others'", async () => {
  const { keys, keyring } = scene();
  const [host, disk, disk2] = ["nqn.a", "nqn.disk", "nqn.disk2"];
  const of = (subsystemNqn: string) => ({ hostNqn: host, subsystemNqn });
  await keyring.insert(of(disk), secrets({ [`NVMe1R01 ${host} ${disk} x=`]: "1" }));
  await keyring.insert(of(disk2), secrets({ [`NVMe0R01 ${host} ${disk2}`]: "2" }));
  const agreed = `NVMe1G01 ${host} ${disk} y=`;
  keys.link(keys.nvme, keys.make({ type: "psk", description: agreed, userId: 0 }, Buffer.of(51)));
  // Another key has another identity, and the kernel takes any that begins right.
  await keyring.insert(of(disk), secrets({ [`NVMe1R01 ${host} ${disk} z=`]: "4" }));
  assert.equal(keys.contents(), {
    [`NVMe0R01 ${host} ${disk2}`]: "2",
    [agreed]: "3",
    [`NVMe1R01 ${host} ${disk} z=`]: "4",
  });
  await keyring.forget(of(disk));
  await keyring.forget(of(disk));
  assert.equal(keys.contents(), { [`NVMe0R01 ${host} ${disk2}`]: "2", [agreed]: "3" });
  assert.is(keys.added, 3);
});

test("a host's key file, for its owner alone, read each time", async () => {
  const { keys, keyring } = scene();
  const path = join(root, "tls.key");
  const write = (byte: number, mode: number) => {
    const psk = { transform: "sha256" as const, secret: new Uint8Array(32).fill(byte) };
    writeFileSync(path, `${formatTlsPsk(psk)}\n`);
    chmodSync(path, mode);
  };
  const tls = new HostTls({ hostNqn: "nqn.a", keyFile: path, keyring });
  await rejects(tls.prepare("nqn.disk"), "EINVAL", /cannot read the TLS key/);
  write(1, 0o640);
  await rejects(tls.prepare("nqn.disk"), "EPERM", /readable for others/);
  write(1, 0o600);
  await tls.prepare("nqn.disk");
  const first = keys.contents();
  const names = Object.keys(first).map((identity) => identity.slice(0, "NVMe0R01 nqn.a ".length));
  assert.equal(names.sort(), ["NVMe0R01 nqn.a ", "NVMe1R01 nqn.a ", "NVMe1R01 nqn.a "]);
  write(2, 0o600);
  await tls.prepare("nqn.disk");
  assert.not.equal(keys.contents(), first);
  assert.is(Object.keys(keys.contents()).length, 3, "the first one's are gone");
  await tls.forget("nqn.disk");
  assert.equal(keys.contents(), {});
});

test("a key that was revoked is put there anew", async () => {
  const { keys, keyring } = scene();
  keys.link(keys.nvme, keys.make({ type: "psk", description: "a", userId: 0 }));
  await keyring.insert(ANY, secrets({ a: "1" }));
  assert.equal(keys.contents(), { a: "1" });
});

test("no ring that only looks like it is given a key", async () => {
  const { keys, keyring, show } = scene();
  const trap = keys.make({ type: "keyring", description: "trap", userId: 1000 });
  const line = `${trap.toString(16)} I------ 2 perm 1f1f0000 0 0 keyring   .nvme`;
  keys.make({ type: "user", description: `x\n${line}`, userId: 1000 });
  show();
  const lines = `${line}: 1\n${keys.table()}`;
  writeFileSync(join(root, "proc/keys"), lines);
  assert.equal(parseRings(lines), [trap, keys.nvme, trap]);
  await keyring.insert(ANY, secrets({ a: "1" }));
  assert.equal(keys.contents(trap), {});
  assert.equal(keys.contents(), { a: "1" });
});

test("a kernel without such a ring refuses, and a refusal names no key", async () => {
  const { keys, keyring } = scene();
  writeFileSync(join(root, "proc/keys"), "");
  assert.is(await keyring.keep(RING, new Map()), 0);
  const refusal = await rejects(keyring.keep(RING, secrets({ a: "1" })), "EINVAL", /no key ring/);
  assert.match(refusal.context.hint ?? "", /modprobe nvme-keyring/);
  writeFileSync(join(root, "proc/keys"), keys.table());
  keys.keyAdd = () => {
    throw Object.assign(new Error("secret"), { code: "EACCES" });
  };
  const denied = await rejects(
    keyring.insert(ANY, secrets({ a: "1" })),
    "EPERM",
    /cannot be changed/,
  );
  assert.not.match(String(denied), /secret/);
});

test.run();
