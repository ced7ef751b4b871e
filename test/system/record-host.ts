// Records what a real Linux host sends: the start of the protocol fuzzer's mutations. Run by hand,
// when a new kernel is to be covered:
//
//   npm run --silent record-host >test/fixtures/nvme-host-linux-6.12.hex
//
// One line for each PDU, "CONNECTION HEX", in the order of their arrival on their connection; the
// connections in the order in which they were made.
import { createServer, connect as dial, type Socket } from "node:net";
import { connect, disconnect, discover, guestHost, type Target } from "./guest-nvme.js";
import { startNode, targetOf } from "./pando-node.js";
import { bootVm, hostAddress } from "./vm/vm.js";

const streams: Buffer[][] = [];

function relay(host: Socket, port: number): void {
  const stream: Buffer[] = [];
  streams.push(stream);
  const target = dial(port, "127.0.0.1");
  host.on("data", (bytes: Buffer) => {
    stream.push(bytes);
    target.write(bytes);
  });
  target.pipe(host);
  for (const [one, other] of [
    [host, target],
    [target, host],
  ] as const) {
    one.on("error", () => other.destroy());
    one.on("close", () => other.destroy());
  }
}

function* pdusOf(stream: Buffer): Iterable<Buffer> {
  for (let at = 0; at + 8 <= stream.length; ) {
    const length = stream.readUInt32LE(at + 4);
    if (length < 8 || at + length > stream.length) return;
    yield stream.subarray(at, at + length);
    at += length;
  }
}

const [node, vm] = await Promise.all([
  startNode({ poolSize: "1GiB", advertise: hostAddress }),
  bootVm({ name: "record-host", cpus: 2 }),
]);
try {
  await node.pando("volume", "create", "disk", "--size", "64MiB");
  await node.pando("host", "allow", "disk", guestHost.hostNqn);
  const real = targetOf(await node.showVolume("disk"));
  const server = createServer((socket) => relay(socket, Number(real.trsvcid)));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const target: Target = { ...real, trsvcid: port };
  await discover(vm, target);
  const device = await connect(vm, target);
  const controller = device.replace(/n\d+$/, "");
  await vm.must(`dd if=/dev/urandom of=/tmp/data bs=4096 count=6 status=none
    nvme write ${device} -s 8 -c 0 -z 4096 -d /tmp/data >&2
    dd if=/tmp/data of=${device} bs=24k count=1 oflag=direct status=none
    nvme compare ${device} -s 8 -c 0 -z 4096 -d /tmp/data >/dev/null 2>&1
    nvme verify ${device} -s 0 -c 3 >&2
    nvme write-zeroes ${device} -s 16 -c 7 --deac >&2
    nvme dsm ${device} -n 1 -b 16 -s 32 -d >&2
    nvme flush ${device} -n 1 >&2
    for log in 0 1 2 3 4 5 12 18; do
      nvme get-log ${controller} -i $log -l 512 >/dev/null 2>&1
    done
    for feature in 1 2 4 5 6 7 10 11 15; do nvme get-feature ${controller} -f $feature >&2; done
    nvme set-feature ${controller} -f 1 -v 0 >&2
    true`);
  await node.pando("volume", "resize", "disk", "--size", "128MiB");
  await vm.must("sleep 7"); // a keep alive
  await disconnect(vm, target);
  server.close();
  streams.forEach((stream, index) => {
    for (const pdu of pdusOf(Buffer.concat(stream))) {
      process.stdout.write(`${index} ${pdu.toString("hex")}\n`);
    }
  });
} finally {
  await vm.close();
  await node.remove();
}
