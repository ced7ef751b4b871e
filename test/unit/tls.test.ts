// The API on TCP: who gets in with which certificate, and what is wrong with files that are not
// right.
import { writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { TlsFiles } from "../../engine/base/config.js";
import { makeLog } from "../../engine/base/log.js";
import { PandoClient } from "../../engine/serve/client.js";
import { type ControlServer, startControlServer } from "../../engine/serve/server.js";
import { clientCredentials, serverCredentials } from "../../engine/serve/tls.js";
import { makeAuthority } from "../support/certificates.js";
import { FakePool } from "../support/fake-pool.js";
import {
  failed,
  freePort,
  killDaemons,
  pandoCommand,
  runPando,
  startPandoDaemon,
  temporaryFolder,
} from "../support/pando.js";
import { refuses, rejects } from "../support/refuses.js";
import { needsCommands, skip } from "../support/skip.js";

const missing = needsCommands("openssl");
if (missing !== null) skip(missing);

const folder = temporaryFolder();
const ours = makeAuthority(folder.path, "ours");
const theirs = makeAuthority(folder.path, "theirs");
const daemonFiles = ours.issue("node-a");
const controllerFiles = ours.issue("controller");
const strangerFiles = { ...theirs.issue("stranger"), authority: ours.path };

let port: number;
let server: ControlServer;

test.before(async () => {
  port = await freePort();
  server = await startControlServer({
    pools: [
      {
        name: null,
        path: "/p",
        pool: new FakePool("/p"),
        places: { advertise: [], nvmet: null, nbdSocket: null },
      },
    ],
    socket: join(folder.path, "pando.sock"),
    api: { address: { host: "127.0.0.1", port }, tls: daemonFiles },
    log: makeLog("fatal"),
  });
});

test.after(async () => {
  await server?.close();
  killDaemons();
  folder.remove();
});

function call(tls: TlsFiles | null): Promise<{ path: string }> {
  const address = { host: "127.0.0.1", port };
  const client = new PandoClient({ address, tls, timeoutMs: 5000 });
  return client.info().finally(() => client.close());
}

test("who has a certificate of the authority is served", async () => {
  assert.is((await call(controllerFiles)).path, "/p");
});

test("nobody else is", async () => {
  await rejects(call(strangerFiles), "ECLOSED", /^no daemon answers on 127\.0\.0\.1:\d+$/);
  await rejects(call(null), "ECLOSED", /no daemon answers/);
  const distrustful = { ...controllerFiles, authority: theirs.path };
  await rejects(call(distrustful), "ECLOSED", /no daemon answers/);
});

test("a daemon that is silent is not waited for", async () => {
  const sockets: Socket[] = [];
  const silent = createServer((socket) => sockets.push(socket));
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const bound = silent.address();
  const address = { host: "127.0.0.1", port: typeof bound === "object" ? (bound?.port ?? 0) : 0 };
  const client = new PandoClient({ address, tls: null, timeoutMs: 300 });
  await rejects(client.info(), "ECLOSED", /no daemon answers/);
  client.close();
  for (const socket of sockets) socket.destroy();
  silent.close();
});

test("files that are not right are named", () => {
  const junk = join(folder.path, "junk.pem");
  writeFileSync(junk, "no PEM");
  const nowhere = join(folder.path, "nowhere.pem");
  for (const use of [serverCredentials, clientCredentials]) {
    const withFiles = (files: Partial<TlsFiles>) => () => use({ ...daemonFiles, ...files });
    refuses(withFiles({ certificate: nowhere }), "EINVAL", /cannot read .*nowhere\.pem/);
    refuses(withFiles({ certificate: junk }), "EINVAL", /junk\.pem is not a certificate in PEM/);
    refuses(withFiles({ authority: junk }), "EINVAL", /junk\.pem is not a certificate in PEM/);
    refuses(withFiles({ key: junk }), "EINVAL", /junk\.pem is not a private key in PEM/);
    const wrong = withFiles({ key: controllerFiles.key });
    refuses(wrong, "EINVAL", /controller\.key is not that of the certificate .*node-a\.pem/);
  }
});

test("a daemon serves it by its flags, and says why it cannot", async () => {
  const fake = pandoCommand("fake");
  const at = ["--pool", "/p", "--metrics", "none"];
  const socket = (name: string) => ["--socket", join(folder.path, name, "pando.sock")];
  const tlsFlags = [
    ...["--api-certificate", daemonFiles.certificate],
    ...["--api-key", daemonFiles.key, "--api-authority", daemonFiles.authority],
  ];
  const own = await freePort();
  const flags = [...at, ...socket("a"), "--api", `127.0.0.1:${own}`, ...tlsFlags];
  const daemon = await startPandoDaemon(fake, flags);
  const remote = { address: { host: "127.0.0.1", port: own }, tls: controllerFiles };
  const client = new PandoClient({ ...remote, timeoutMs: 5000 });
  assert.is((await client.getVolume("in-use")).name, "in-use");
  client.close();

  const start = (...args: string[]) => runPando(fake, ["daemon", ...at, ...socket("b"), ...args]);
  const taken = await start("--api", `127.0.0.1:${own}`);
  failed(taken, 1, new RegExp(`cannot serve the API on 127\\.0\\.0\\.1:${own}: `));
  failed(await start("--api", "0.0.0.0:9751"), 1, /not served on 0\.0\.0\.0:9751 without TLS/);
  await daemon.stop();
});

test.run();
