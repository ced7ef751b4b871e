// pando host set-keys, remove-keys, set-tls-key, remove-tls-key, keys: a host's secrets. They come
// from files, and are checked before anything is sent; nothing here ever prints one.
import type { Argv } from "yargs";
import { parseDhchapKey } from "../base/dhchap-key.js";
import { readKeyFile } from "../base/key-file.js";
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
        const host = readKeyFile(args.keyFile, "host key", parseDhchapKey);
        const controller =
          args.controllerKeyFile === undefined
            ? null
            : readKeyFile(args.controllerKeyFile, "controller key", parseDhchapKey);
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
        const key = readKeyFile(args.keyFile, "TLS key", parseTlsPsk);
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
