// The NBD client of the CLI against servers that go away: every call ends, whenever that is.
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { NbdClient } from "../../engine/cli/nbd-client.js";
import { temporaryFolder } from "../support/pando.js";

const test = suite("NBD client");
const folder = temporaryFolder();
const path = join(folder.path, "nbd.sock");
const GREETING = Buffer.from("NBDMAGICIHAVEOPT\0\x03", "latin1");
let server: Server;

/** One connection: takes GO, then leaves the first request to `answer`. */
async function serve(answer: (socket: Socket, request: Buffer) => void): Promise<void> {
  server = createServer((socket) => {
    socket.write(GREETING);
    socket.once("data", () => {
      const acknowledged = Buffer.alloc(20);
      acknowledged.writeBigUInt64BE(0x3e889045565a9n, 0);
      acknowledged.writeUInt32BE(7, 8);
      acknowledged.writeUInt32BE(1, 12);
      socket.once("data", (request: Buffer) => answer(socket, request));
      socket.write(acknowledged);
    });
    socket.on("error", () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
}

test.after.each(() => new Promise<void>((resolve) => server.close(() => resolve())));
test.after(() => folder.remove());

/** Keeps the process alive, so that a call that never ends is a failure and not an exit. */
async function ends<T>(work: Promise<T>): Promise<T | Error> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Error>((resolve) => {
    timer = setTimeout(() => resolve(new Error("it never ended")), 5000);
  });
  const ended = work.catch((error: Error) => error);
  const result = await Promise.race([ended, late]);
  clearTimeout(timer);
  return result;
}

test("a read fails when the server goes in the middle of its reply", async () => {
  await serve((socket, request) => {
    const reply = Buffer.alloc(16 + 100);
    reply.writeUInt32BE(0x67446698, 0);
    request.copy(reply, 8, 8, 16);
    socket.end(reply);
  });
  const client = await NbdClient.open({ socket: path, name: "a" });
  const result = await ends(client.read(0, 4096));
  assert.match(String(result), /NBD connection broke/);
  await client.close();
});

test("closing ends although the server has gone already", async () => {
  await serve((socket) => socket.destroy());
  const client = await NbdClient.open({ socket: path, name: "a" });
  assert.match(String(await ends(client.flush())), /NBD connection broke/);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.is(await ends(client.close()), undefined);
});

test.run();
