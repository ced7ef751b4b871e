// pando connect, pando disconnect: this machine as a compute node. They talk to the kernel, not to
// a daemon.
import type { Argv } from "yargs";
import type { ConnectionSettings } from "../../nvmf/initiator.js";
import { parseAddress } from "../base/address.js";
import { PandoError } from "../base/errors.js";
import type { GlobalOptions } from "./context.js";
import { printResult } from "./print.js";

const NQN = {
  type: "string",
  demandOption: true,
  describe: "The volume's NQN: pando volume show prints it",
} as const;
const HOST_NQN = {
  type: "string",
  requiresArg: true,
  describe: "Who this machine is, if not what /etc/nvme/hostnqn says",
} as const;

export function addConnect(yargs: Argv<GlobalOptions>): Argv<GlobalOptions> {
  const number = (describe: string) => ({ type: "number", requiresArg: true, describe }) as const;
  return yargs
    .command(
      "connect <nqn>",
      "Connect this machine to a volume, and print its device (as root)",
      (connect) =>
        connect
          .positional("nqn", NQN)
          .option("target", {
            type: "string",
            requiresArg: true,
            demandOption: true,
            describe: "HOST:PORT of the storage node",
          })
          .option("host-nqn", HOST_NQN)
          .option("tls", {
            type: "boolean",
            default: false,
            describe: "Over TLS: tlshd runs here, and the host's key is in the kernel's keyring",
          })
          .option("tls-key-file", {
            type: "string",
            requiresArg: true,
            describe: "Over TLS, with this key, which is put there",
          })
          .option("io-queues", number("Connections for I/O"))
          .option("reconnect-delay", number("Seconds between two tries to reconnect"))
          .option("fast-io-fail", number("Seconds without a connection after which I/O fails"))
          .option("ctrl-loss", number("Seconds without one after which the device goes away"))
          .example("$0 connect nqn.2026-01.io.pando:volume:… --target 10.0.0.5:4420", ""),
      async (args) => {
        const { host, port } = parseAddress(args.target, "target");
        const { DEFAULT_CONNECTION } = await import("../../nvmf/initiator.js");
        const settings: ConnectionSettings = {
          ioQueues: args.ioQueues ?? DEFAULT_CONNECTION.ioQueues,
          reconnectDelaySeconds: args.reconnectDelay ?? DEFAULT_CONNECTION.reconnectDelaySeconds,
          fastIoFailSeconds: args.fastIoFail ?? DEFAULT_CONNECTION.fastIoFailSeconds,
          ctrlLossSeconds: args.ctrlLoss ?? DEFAULT_CONNECTION.ctrlLossSeconds,
        };
        const { identity, initiator } = await makeInitiator(args.hostNqn);
        if (args.tlsKeyFile !== undefined) {
          const { openHostTls } = await import("../../nvmf/host-tls.js");
          await (await openHostTls(identity.hostNqn, args.tlsKeyFile)).prepare(args.nqn);
        }
        const tls = args.tls || args.tlsKeyFile !== undefined;
        const target = { nqn: args.nqn, traddr: host, trsvcid: String(port), tls };
        const device = await initiator.connect(target, settings);
        printResult(args, device, () => device.path);
      },
    )
    .command(
      "disconnect <nqn>",
      "Disconnect this machine from a volume (as root)",
      (disconnect) =>
        disconnect
          .positional("nqn", NQN)
          .option("host-nqn", HOST_NQN)
          .example("$0 disconnect nqn.2026-01.io.pando:volume:…", ""),
      async (args) => {
        const { initiator } = await makeInitiator(args.hostNqn);
        await initiator.disconnect(args.nqn);
        printResult(args, { nqn: args.nqn }, () => `disconnected from ${args.nqn}`);
      },
    );
}

async function makeInitiator(named: string | undefined) {
  if (process.platform !== "linux") {
    throw new PandoError("EVERSION", "only Linux connects to volumes");
  }
  const { Initiator } = await import("../../nvmf/initiator.js");
  const { identityFiles, readHostIdentity } = await import("../../nvmf/host-identity.js");
  const identity = await readHostIdentity(identityFiles, named ?? null);
  return { identity, initiator: new Initiator(identity) };
}
