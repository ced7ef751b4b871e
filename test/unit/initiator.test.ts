// The initiator against a kernel that is made of files: a folder for /sys, one for /dev, and a loop
// that does what the kernel would do when its files are written.
import { existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { volumeNqn } from "../../engine/base/nqn.js";
import { readHostIdentity } from "../../nvmf/host-identity.js";
import { DEFAULT_CONNECTION, Initiator, type Target } from "../../nvmf/initiator.js";
import { temporaryFolder } from "../support/pando.js";
import { refuses, rejects } from "../support/refuses.js";

const HOST = {
  hostNqn: "nqn.2014-08.org.nvmexpress:uuid:6f1a5a0e-9c4e-4f5e-8b3a-1c2d3e4f5a6b",
  hostId: "6f1a5a0e-9c4e-4f5e-8b3a-1c2d3e4f5a6b",
};
const UUID = "00000000-0000-4000-8000-0000000000aa";
const NQN = volumeNqn(UUID);

/** The kernel's side. `devicesAppear`: whether a connection brings its namespace. */
class FakeKernel {
  readonly folder = temporaryFolder();
  readonly roots = { sysfs: join(this.folder.path, "sys"), dev: join(this.folder.path, "dev") };
  readonly connects: string[] = [];
  devicesAppear = true;
  #next = 0;
  #running = true;
  readonly #loop: Promise<void>;

  constructor() {
    for (const place of ["class/nvme", "block"]) {
      mkdirSync(join(this.roots.sysfs, place), { recursive: true });
    }
    mkdirSync(this.roots.dev);
    writeFileSync(join(this.roots.dev, "nvme-fabrics"), "");
    this.#loop = this.#run();
  }

  add(target: Target, state = "live", uuid = UUID): string {
    const name = `nvme${this.#next++}`;
    const controller = join(this.roots.sysfs, "class/nvme", name);
    mkdirSync(controller);
    const address = `traddr=${target.traddr},trsvcid=${target.trsvcid}`;
    const secured = target.tls ? { tls_key: "1f2e3d4c" } : {};
    const attributes = { subsysnqn: target.nqn, state, address, hostnqn: HOST.hostNqn, ...secured };
    for (const [attribute, value] of Object.entries(attributes)) {
      writeFileSync(join(controller, attribute), `${value}\n`);
    }
    writeFileSync(join(controller, "delete_controller"), "");
    if (!this.devicesAppear) return name;
    const block = join(this.roots.sysfs, "block", `${name}n1`);
    mkdirSync(join(block, "device"), { recursive: true });
    writeFileSync(join(block, "device/subsysnqn"), `${target.nqn}\n`);
    writeFileSync(join(block, "uuid"), `${uuid}\n`);
    writeFileSync(join(block, "dev"), `259:${this.#next}\n`);
    writeFileSync(join(block, "size"), "2048\n");
    return name;
  }

  set(name: string, attribute: string, text: string): void {
    writeFileSync(join(this.roots.sysfs, "class/nvme", name, attribute), text);
  }

  async stop(): Promise<void> {
    this.#running = false;
    await this.#loop;
    this.folder.remove();
  }

  async #run(): Promise<void> {
    const fabrics = join(this.roots.dev, "nvme-fabrics");
    while (this.#running) {
      const line = existsSync(fabrics) ? readFileSync(fabrics, "utf8") : "";
      if (line !== "") {
        truncateSync(fabrics);
        this.connects.push(line);
        const fields = new Map(line.split(",").map((one) => one.split("=") as [string, string]));
        const field = (key: string) => fields.get(key) ?? "";
        const tls = fields.has("tls");
        this.add({ nqn: field("nqn"), traddr: field("traddr"), trsvcid: field("trsvcid"), tls });
      }
      for (let index = 0; index < this.#next; index++) this.#removeIfAsked(`nvme${index}`);
      await sleep(5);
    }
  }

  #removeIfAsked(name: string): void {
    const folder = join(this.roots.sysfs, "class/nvme", name);
    try {
      if (readFileSync(join(folder, "delete_controller"), "utf8") === "") return;
    } catch {
      return;
    }
    rmSync(folder, { recursive: true });
    rmSync(join(this.roots.sysfs, "block", `${name}n1`), { recursive: true, force: true });
  }
}

interface Context {
  kernel: FakeKernel;
  listener: Server;
  target: Target;
  initiator: Initiator;
}

const test = suite<Context>("initiator");

test.before.each(async (context) => {
  context.kernel = new FakeKernel();
  context.listener = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => context.listener.listen(0, "127.0.0.1", resolve));
  const bound = context.listener.address();
  const port = typeof bound === "object" && bound !== null ? bound.port : 0;
  context.target = { nqn: NQN, traddr: "127.0.0.1", trsvcid: String(port) };
  context.initiator = new Initiator(HOST, { roots: context.kernel.roots, timeoutMs: 1000 });
});

test.after.each(async ({ kernel, listener }) => {
  listener.close();
  await kernel.stop();
});

test("connects with finite times, and finds the device", async ({ kernel, initiator, target }) => {
  const device = await initiator.connect(target);
  assert.is(device.sizeBytes, 2048 * 512);
  assert.is(device.path, join(kernel.roots.dev, device.name));
  assert.is(
    kernel.connects[0],
    `transport=tcp,traddr=127.0.0.1,trsvcid=${target.trsvcid},nqn=${NQN},hostnqn=${HOST.hostNqn},` +
      `hostid=${HOST.hostId},nr_io_queues=2,keep_alive_tmo=5,reconnect_delay=1,` +
      "fast_io_fail_tmo=300,ctrl_loss_tmo=600",
  );
});

test("is idempotent, one call after another and at once", async ({ kernel, initiator, target }) => {
  const devices = await Promise.all([initiator.connect(target), initiator.connect(target)]);
  assert.equal(devices[0], devices[1]);
  assert.equal(await initiator.connect(target), devices[0]);
  assert.is(kernel.connects.length, 1);
  await initiator.disconnect(NQN);
  assert.is(await initiator.find(NQN), null);
  await initiator.disconnect(NQN);
});

test("TLS where it is asked for, and never in the open then", async (context) => {
  const { kernel, initiator, target } = context;
  await initiator.connect({ ...target, tls: true });
  assert.match(kernel.connects[0] ?? "", /,ctrl_loss_tmo=600,tls$/);
  await initiator.connect({ ...target, tls: true });
  assert.is(kernel.connects.length, 1);
  await initiator.disconnect(NQN);
  await initiator.connect(target);
  assert.not.match(kernel.connects[1] ?? "", /tls/);
  const inTheOpen = () =>
    rejects(initiator.connect({ ...target, tls: true }), "EBUSY", /connected without TLS/);
  await inTheOpen();
  // As Linux 6.7 shows it.
  kernel.set("nvme1", "tls_key", "");
  await inTheOpen();
});

test("a connection over TLS that has no key yet is waited for", async (context) => {
  const { kernel, initiator, target } = context;
  const secured = { ...target, tls: true };
  const name = kernel.add(secured, "connecting");
  kernel.set(name, "tls_key", "");
  const connecting = initiator.connect(secured);
  await sleep(50);
  kernel.set(name, "tls_key", "1f2e3d4c");
  kernel.set(name, "state", "live");
  await connecting;
  assert.equal(kernel.connects, []);
});

test("the device is the one with the UUID, whatever it is called", async (context) => {
  const { kernel, initiator, target } = context;
  const other = "00000000-0000-4000-8000-0000000000bb";
  kernel.add({ ...target, nqn: volumeNqn(other) }, "live", other);
  kernel.add({ ...target, nqn: volumeNqn(other) }, "live", UUID);
  const device = await initiator.connect(target);
  assert.is(device.name, "nvme2n1");
});

test("waits for a connection that is coming back", async ({ kernel, initiator, target }) => {
  const name = kernel.add(target, "connecting");
  const connecting = initiator.connect(target);
  await sleep(50);
  kernel.set(name, "state", "live");
  assert.is((await connecting).name, `${name}n1`);
  assert.is(kernel.connects.length, 0);
  kernel.set(name, "state", "connecting");
  await rejects(initiator.connect(target), "EIO", /could not reconnect to nqn\S+ in time/);
});

test("a connection that cannot come back is replaced", async ({ kernel, initiator, target }) => {
  kernel.add(target, "dead");
  assert.is((await initiator.connect(target)).name, "nvme1n1");
  await initiator.disconnect(NQN);
  kernel.add({ ...target, traddr: "10.9.9.9" }, "connecting");
  assert.is((await initiator.connect(target)).name, "nvme3n1");
});

test("a device that does not appear leaves no connection", async (context) => {
  const { kernel, initiator, target } = context;
  kernel.devicesAppear = false;
  await rejects(initiator.connect(target), "EIO", /its device did not appear/);
  assert.is(await initiator.isLive(NQN), false);
});

test("a target that is not there is said to be", async ({
  kernel,
  initiator,
  target,
  listener,
}) => {
  await new Promise((resolve) => listener.close(resolve));
  await rejects(initiator.connect(target), "ECLOSED", /no target answers at 127\S+: ECONNREFUSED/);
  assert.is(kernel.connects.length, 0);
  rmSync(join(kernel.roots.dev, "nvme-fabrics"));
  listener.listen(Number(target.trsvcid), "127.0.0.1");
  await rejects(initiator.connect(target), "EIO", /this machine is no NVMe\/TCP host/);
});

test("what is not a volume's name, or not a setting, is refused", async ({ initiator, target }) => {
  const wrong = { ...target, nqn: "nqn.2014-08.org.example:x" };
  await rejects(initiator.connect(wrong), "EINVAL", /is not the NQN of a volume/);
  const smuggled = { ...target, trsvcid: "1,host_traddr=1.2.3.4" };
  await rejects(initiator.connect(smuggled), "EINVAL", /trsvcid cannot be/);
  const settings = (changed: object) => ({ ...DEFAULT_CONNECTION, ...changed });
  refuses(() => initiator.connect(target, settings({ ioQueues: 0 })), "EINVAL", /ioQueues/);
  const loss = settings({ ctrlLossSeconds: 300 });
  refuses(() => initiator.connect(target, loss), "EINVAL", /ctrlLossSeconds is not more/);
});

test("who this machine is", async ({ kernel }) => {
  const file = (name: string, text: string | null) => {
    const path = join(kernel.folder.path, name);
    if (text !== null) writeFileSync(path, `${text}\n`);
    return path;
  };
  const files = {
    hostNqn: file("hostnqn", "nqn.2014-08.org.example:a"),
    hostId: file("hostid", "11111111-1111-4111-8111-111111111111"),
    productUuid: file("product", HOST.hostId.toUpperCase()),
  };
  const stored = await readHostIdentity(files, null);
  assert.equal(stored, { hostNqn: "nqn.2014-08.org.example:a", hostId: readId(files.hostId) });
  assert.equal(await readHostIdentity(files, HOST.hostNqn), HOST);
  const nowhere = join(kernel.folder.path, "nowhere");
  assert.equal(await readHostIdentity({ ...files, hostNqn: nowhere }, null), HOST);
  const derived = await readHostIdentity(files, "nqn.2014-08.org.example:b");
  assert.match(derived.hostId, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/);
  const none = { hostNqn: nowhere, hostId: nowhere, productUuid: nowhere };
  await rejects(readHostIdentity(none, null), "ENOTFOUND", /this machine has no host NQN/);
});

test.run();

function readId(path: string): string {
  return readFileSync(path, "utf8").trim();
}
