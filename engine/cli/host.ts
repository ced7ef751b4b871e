// pando host: which hosts may connect to a volume, and who is connected. Nobody may connect who is
// not on its list.
import type { Argv } from "yargs";
import { requireName } from "../base/name.js";
import { checkHostNqn } from "../base/nqn.js";
import type { ConnectionInfo } from "../serve/client.js";
import { type GlobalOptions, withClient } from "./context.js";
import { addHostKeys } from "./host-keys.js";
import { formatTable, printResult } from "./print.js";
import { connectLines, volumeJson } from "./volume-text.js";

const VOLUME = { type: "string", demandOption: true, describe: "The volume's name" } as const;
const HOST = {
  type: "string",
  demandOption: true,
  describe: "The host's NQN: /etc/nvme/hostnqn on the host",
} as const;
const EXAMPLE_NQN = "nqn.2014-08.org.nvmexpress:uuid:…";

export function addHost(yargs: Argv<GlobalOptions>): Argv<GlobalOptions> {
  return yargs.command(
    "host",
    "Let hosts connect to a volume, or not; see who is connected",
    (host) =>
      addHostKeys(host)
        .command(
          "allow <volume> <hostnqn>",
          "Let a host connect to a volume",
          (allow) =>
            allow
              .positional("volume", VOLUME)
              .positional("hostnqn", HOST)
              .example(`$0 host allow db ${EXAMPLE_NQN}`, ""),
          async (args) => {
            requireName(args.volume, "volume");
            checkHostNqn(args.hostnqn);
            const volume = await withClient(args, (client) =>
              client.allowHost(args.volume, args.hostnqn),
            );
            const lines = () =>
              connectLines(volume).filter((line) => line.endsWith(`--hostnqn=${args.hostnqn}`));
            printResult(args, volumeJson(volume), () =>
              [`allowed on ${volume.name}; on the host:`, ...lines()].join("\n  "),
            );
          },
        )
        .command(
          "deny <volume> <hostnqn>",
          "Take a host off a volume's list and fence it: nothing of it runs there when this returns",
          (deny) =>
            deny
              .positional("volume", VOLUME)
              .positional("hostnqn", HOST)
              .example(`$0 host deny db ${EXAMPLE_NQN}`, ""),
          async (args) => {
            requireName(args.volume, "volume");
            checkHostNqn(args.hostnqn);
            const volume = await withClient(args, (client) =>
              client.denyHost(args.volume, args.hostnqn),
            );
            printResult(args, volumeJson(volume), () => `denied on ${volume.name}`);
          },
        )
        .command(
          "disconnect <volume> <hostnqn>",
          "End a host's connections to a volume now; while it is on the list it may come back",
          (disconnect) =>
            disconnect
              .positional("volume", VOLUME)
              .positional("hostnqn", HOST)
              .example(`$0 host disconnect db ${EXAMPLE_NQN}`, ""),
          async (args) => {
            const { volume, hostnqn } = args;
            requireName(volume, "volume");
            checkHostNqn(hostnqn);
            const controllers = await withClient(args, (client) =>
              client.disconnectHost(volume, hostnqn),
            );
            const value = { volume, hostNqn: hostnqn, controllers };
            printResult(args, value, () =>
              controllers === 0
                ? `${hostnqn} was not connected to ${volume}`
                : `disconnected from ${volume}; its last request has ended`,
            );
          },
        )
        .command(
          "list [volume]",
          "List the hosts that are connected over NVMe/TCP",
          (list) =>
            list
              .positional("volume", { type: "string", describe: "Only this volume's" })
              .example("$0 host list", "")
              .example("$0 host list db --json", ""),
          async (args) => {
            const { volume } = args;
            if (volume !== undefined) requireName(volume, "volume");
            const found = await withClient(args, (client) => client.listConnections(volume));
            printResult(args, found, () => describeConnections(found));
          },
        )
        .demandCommand(
          1,
          "no verb: allow, deny, disconnect, list, keys, or set- and remove-keys and -tls-key",
        )
        .strict(),
  );
}

function describeConnections(connections: ConnectionInfo[]): string {
  const rows = connections.map(({ volume, hostNqn, peer, controllerId, ioQueues, ...rest }) => [
    volume,
    hostNqn,
    peer,
    String(controllerId),
    String(ioQueues),
    rest.authenticated ? "yes" : "no",
    rest.tls ? "yes" : "no",
    `${rest.connectedSeconds} s`,
  ]);
  return formatTable(
    ["VOLUME", "HOST", "PEER", "CONTROLLER", "QUEUES", "PROVEN", "TLS", "FOR"],
    rows,
  );
}
