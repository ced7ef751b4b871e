// pando host set-keys, remove-keys, set-tls-key, remove-tls-key, keys: a host's secrets. They come
// from files, never from the command line, where every user of the machine could read them; and
// nothing here ever prints one.
import { readFileSync, statSync } from "node:fs";
import type { Argv } from "yargs";
import { parseDhchapKey } from "../base/dhchap-key.js";
import { PandoError } from "../base/errors.js";
import { checkHostNqn } from "../base/nqn.js";
import { parseTlsPsk } from "../base/tls-psk.js";
import { type GlobalOptions, withClient } from "./context.js";
import { formatTable, printResult } from "./print.js";

const HOST = {
  type: "string",
  demandOption: true,
  describe: "The host's NQN: /etc/nvme/hostnqn on the host",
} as const;
const keyFile = (describe: string) =>
  ({ type: "string", requiresArg: true, demandOption: true, describe }) as const;
const EXAMPLE_NQN = "nqn.2014-08.org.nvmexpress:uuid:…";
/** Readable for the group, or for all. */
const OTHERS_MAY_READ = 0o044;
const MAX_KEY_FILE_BYTES = 1024;

export function addHostKeys(host: Argv<GlobalOptions>): Argv<GlobalOptions> {
  return host
    .command(
      "set-keys <hostnqn>",
      "Demand that a host proves who it is (DH-HMAC-CHAP), on every volume",
      (set) =>
        set
          .positional("hostnqn", HOST)
          .option("key-file", keyFile("The host's key, as nvme gen-dhchap-key writes it"))
          .option("controller-key-file", {
            type: "string",
            requiresArg: true,
            describe: "Another key, with which Pando proves itself to the host",
          })
          .example(`$0 host set-keys ${EXAMPLE_NQN} --key-file host.key`, ""),
      async (args) => {
        const { hostnqn } = args;
        checkHostNqn(hostnqn);
        const host = readKey(args.keyFile, "host key");
        const controller =
          args.controllerKeyFile === undefined
            ? null
            : readKey(args.controllerKeyFile, "controller key");
        await withClient(args, (client) => client.setHostKeys(hostnqn, { host, controller }));
        const value = { hostNqn: hostnqn, bidirectional: controller !== null };
        printResult(args, value, () => `${hostnqn} has to prove who it is, from now on`);
      },
    )
    .command(
      "remove-keys <hostnqn>",
      "Let a host connect without a proof again",
      (remove) =>
        remove.positional("hostnqn", HOST).example(`$0 host remove-keys ${EXAMPLE_NQN}`, ""),
      async (args) => {
        checkHostNqn(args.hostnqn);
        await withClient(args, (client) => client.removeHostKeys(args.hostnqn));
        printResult(args, { removed: args.hostnqn }, () => `${args.hostnqn} has no keys any more`);
      },
    )
    .command(
      "set-tls-key <hostnqn>",
      "Demand that a host uses TLS, with this key, on every volume",
      (set) =>
        set
          .positional("hostnqn", HOST)
          .option("key-file", keyFile("The host's key, as nvme gen-tls-key writes it"))
          .example(`$0 host set-tls-key ${EXAMPLE_NQN} --key-file tls.key`, ""),
      async (args) => {
        const { hostnqn } = args;
        checkHostNqn(hostnqn);
        const key = readKey(args.keyFile, "TLS key", parseTlsPsk);
        await withClient(args, (client) => client.setHostTlsKey(hostnqn, key));
        const { transform } = parseTlsPsk(key, "TLS key");
        // Debian 13's proves with SHA-256 that it has it, which TLS does not allow.
        const hint = "nvme gen-tls-key --hmac=1 makes one for SHA-256";
        const warning =
          transform === "sha384"
            ? `\n  some hosts' tlshd cannot use a key for SHA-384: ${hint}`
            : "";
        const said = `${hostnqn} has to use TLS, from now on${warning}`;
        printResult(args, { hostNqn: hostnqn }, () => said);
      },
    )
    .command(
      "remove-tls-key <hostnqn>",
      "Let a host connect without TLS again",
      (remove) =>
        remove.positional("hostnqn", HOST).example(`$0 host remove-tls-key ${EXAMPLE_NQN}`, ""),
      async (args) => {
        checkHostNqn(args.hostnqn);
        await withClient(args, (client) => client.removeHostTlsKey(args.hostnqn));
        printResult(args, { removed: args.hostnqn }, () => `${args.hostnqn} has no TLS key`);
      },
    )
    .command(
      "keys",
      "List the hosts that have keys, and what for; the keys are not shown",
      (keys) => keys.example("$0 host keys", ""),
      async (args) => {
        const found = await withClient(args, (client) => client.listHostKeys());
        const rows = found.map(({ hostNqn, proves, bidirectional, tls }) => [
          hostNqn,
          bidirectional ? "host and controller" : proves ? "host" : "-",
          tls ? "required" : "-",
        ]);
        printResult(args, found, () => formatTable(["HOST", "PROVES", "TLS"], rows));
      },
    );
}

function readKey(
  path: string,
  field: string,
  parse: (text: string, field: string) => unknown = parseDhchapKey,
): string {
  let text: string;
  try {
    const { mode, size } = statSync(path);
    if ((mode & OTHERS_MAY_READ) !== 0) {
      throw new PandoError("EPERM", `${path} is readable for others`, {
        path,
        field,
        hint: `chmod 600 ${path}`,
      });
    }
    text = size > MAX_KEY_FILE_BYTES ? "" : readFileSync(path, "utf8").trim();
  } catch (cause) {
    if (cause instanceof PandoError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PandoError("EINVAL", `cannot read the ${field}: ${why}`, { path, field }, { cause });
  }
  // The daemon checks it again; here it is found out before anything is sent.
  parse(text, field);
  return text;
}
