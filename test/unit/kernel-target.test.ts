// Block devices and configfs together: in an order that no host notices, one volume's trouble its
// own, connections ended for good.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { volumeNqn } from "../../engine/base/nqn.js";
import type { SharedVolume } from "../../engine/core/shares.js";
import { NvmetTarget } from "../../nvmf/kernel-target.js";
import { configFs } from "../../nvmf/nvmet-configfs.js";
import { FakeNvmet } from "../support/fake-nvmet.js";
import { rejects } from "../support/refuses.js";

const POOL = "11111111-2222-4333-8444-555555555555";
const HOST = "nqn.2014-08.org.example:a";

function volume(index: number): SharedVolume {
  const uuid = `00000000-0000-4000-8000-00000000000${index}`;
  const sizeBytes = 2 ** 20;
  const keys = { keys: new Map(), tlsKeys: new Map() };
  return { name: `db${index}`, uuid, sizeBytes, allowedHosts: [HOST], ...keys };
}

function scene({ growing = false, tls = false } = {}) {
  const kernel = new FakeNvmet();
  const failed: string[] = [];
  const broken = new Set<string>();
  /** What happened to devices, with the subsystems that there were then. */
  const said: string[] = [];
  const entries = (path: RegExp) => kernel.snapshot(/^$/).filter((line) => path.test(line));
  /** What the ring was to have, and how many subsystems were on a port then. */
  const rings: { name: string; identities: string[]; served: number }[] = [];
  const served = () => entries(/^ports\/[0-9]+\/subsystems\/nqn/).length;
  const subsystems = () => entries(/^subsystems\/[^/]+ folder/).map((line) => nameIn(line));
  const target = new NvmetTarget({
    devices: {
      async provide({ name }) {
        if (broken.has(name)) throw new Error(`no device for ${name}`);
        kernel.devices.add(`/dev/${name}`);
        return `/dev/${name}`;
      },
      async stopOrphans() {
        said.push(`orphans, ${subsystems().length} subsystems`);
      },
      async removeOthers() {
        said.push(`others, ${subsystems().length} subsystems`);
      },
      canGrow: () => growing,
      nameOf: () => undefined,
    },
    poolUuid: POOL,
    listen: { address: "127.0.0.1", port: 4421 },
    tls,
    keyring: {
      async keep(name, wanted) {
        if (!tls) throw new Error("no keyctl here");
        rings.push({ name, identities: [...wanted.keys()], served: served() });
        return 0;
      },
    },
    files: configFs(kernel.root, kernel),
    sleep: async () => undefined,
    onFailure: (name) => void failed.push(name),
  });
  return { kernel, target, broken, failed, said, entries, subsystems, rings, served };
}

function nameIn(line: string): string {
  return line.split(/[/ ]/)[1] ?? "";
}

test("devices go after the target has let go of them, orphans are stopped before", async () => {
  const { target, said } = scene();
  await target.apply([volume(1), volume(2)]);
  said.length = 0;
  await target.apply([volume(1)]);
  assert.equal(said, ["orphans, 2 subsystems", "others, 1 subsystems"]);
});

test("one volume's device fails: its hosts keep what they have, the others are served", async () => {
  const { target, broken, failed, subsystems } = scene();
  await target.apply([volume(1)]);
  broken.add("db1");
  const failures = await target.apply([volume(1), volume(2)]);
  assert.equal([...failures.keys()], [volume(1).uuid]);
  assert.equal(failed, ["db1"]);
  assert.equal(subsystems(), [volumeNqn(volume(1).uuid), volumeNqn(volume(2).uuid)]);
});

test("the kernel's target looks at a device's size when that has changed, and after a start", async () => {
  const { target, kernel } = scene({ growing: true });
  const nqn = volumeNqn(volume(1).uuid);
  await target.apply([volume(1)]);
  await target.apply([volume(1)]);
  assert.equal(kernel.looked, [nqn]);
  await target.apply([{ ...volume(1), sizeBytes: 2 ** 21 }]);
  assert.equal(kernel.looked, [nqn, nqn]);
});

test("a size that cannot be told is that volume's trouble", async () => {
  const { target, kernel, failed } = scene({ growing: true });
  kernel.looks = false;
  const failures = await target.apply([volume(1)]);
  assert.equal([...failures.keys()], [volume(1).uuid]);
  assert.equal(failed, ["db1"]);
});

test("a fence ends the connections of all, and lets those come back that may", async () => {
  const { kernel, target, entries } = scene();
  const { uuid } = volume(1);
  await target.apply([volume(1)]);
  assert.equal(kernel.disconnected, []);
  assert.ok((await target.fence(uuid, [volume(1)])).ended);
  assert.equal(kernel.disconnected, [volumeNqn(uuid)]);
  assert.is(entries(/^ports\/[0-9]+\/subsystems\/nqn/).length, 1);
});

test("TLS keys are there before their hosts are let in, for the volume and for discovery", async () => {
  const { kernel, target, rings, served } = scene({ tls: true });
  const psk = { transform: "sha256" as const, secret: new Uint8Array(32) };
  const shared = { ...volume(1), tlsKeys: new Map([[HOST, psk]]) };
  await target.apply([shared]);
  await target.apply([]);
  assert.equal(
    rings.map(({ served }) => served),
    [0, 1],
  );
  assert.is(rings[0]?.name, `pando ${POOL}`);
  const named = (of: string) => rings[0]?.identities.filter((one) => one.includes(` ${of}`)).length;
  // Identity 0, and 1 as either libnvme derives it.
  assert.is(named(`${HOST} ${volumeNqn(volume(1).uuid)}`), 3);
  assert.is(named(`${HOST} nqn.2014-08.org.nvmexpress.discovery`), 3);
  assert.equal(rings[1]?.identities, []);
  kernel.tls = "old";
  await rejects(target.apply([shared]), "EINVAL", /has no TLS/);
  assert.is(served(), 0);
});

test("a kernel without nvmet refuses, but has nothing to take away", async () => {
  const { target, kernel } = scene();
  kernel.readdir = async () => {
    throw Object.assign(new Error("gone"), { code: "ENOENT" });
  };
  await rejects(target.apply([volume(1)]), "EINVAL", /nvmet is not available/);
  assert.is((await target.apply([])).size, 0);
});

test.run();
