// pando host: which hosts may connect to a volume. Nobody may who is not on its list.
import type { Argv } from "yargs";
import { requireName } from "../base/name.js";
import { checkHostNqn } from "../base/nqn.js";
import { type GlobalOptions, withClient } from "./context.js";
import { printResult } from "./print.js";
import { connectLines, volumeJson } from "./volume-text.js";

const VOLUME = { type: "string", demandOption: true, describe: "The volume's name" } as const;
const HOST = {
  type: "string",
  demandOption: true,
  describe: "The host's NQN: /etc/nvme/hostnqn on the host",
} as const;
const EXAMPLE_NQN = "nqn.2014-08.org.nvmexpress:uuid:…";

export function addHost(yargs: Argv<GlobalOptions>): Argv<GlobalOptions> {
  return yargs.command("host", "Let hosts connect to a volume, or not", (host) =>
    host
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
        "Take a host off a volume's list, and end its connections to it",
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
      .demandCommand(1, "no verb: allow or deny")
      .strict(),
  );
}
