// pando bench: what a volume gives over NVMe/TCP, from here. It comes to the daemon's target as a
// host of its own, which is on the volume's list for as long as it runs.
import type { Argv } from "yargs";
import { PandoError } from "../base/errors.js";
import { requireName } from "../base/name.js";
import { hostNqn } from "../base/nqn.js";
import { newUuid } from "../base/random.js";
import { formatSize, parseSize } from "../base/size.js";
import type { Engine } from "../daemon.js";
import type { PandoClient, VolumeView } from "../serve/client.js";
import { type GlobalOptions, type LoadEngine, withClient } from "./context.js";
import { formatFields, printResult } from "./print.js";

const PATTERNS = ["read", "write", "randread", "randwrite", "randrw"] as const;
const MAX_SECONDS = 86_400;

type LoadResult = Awaited<ReturnType<Engine["nvmeLoad"]>>;
type Lane = LoadResult["reads"];

export function addBench(yargs: Argv<GlobalOptions>, loadEngine: LoadEngine): Argv<GlobalOptions> {
  return yargs.command(
    "bench <volume>",
    "Drive a volume over NVMe/TCP from here, and say what it gives",
    (bench) =>
      bench
        .positional("volume", {
          type: "string",
          demandOption: true,
          describe: "The volume's name; a clone of one with data is best",
        })
        .option("pattern", { choices: PATTERNS, default: "randread" as const })
        .option("block", { type: "string", default: "8KiB", describe: "Size of a request" })
        .option("queues", { type: "number", default: 1, describe: "Connections" })
        .option("depth", { type: "number", default: 32, describe: "Requests on each of them" })
        .option("seconds", { type: "number", default: 10 })
        .option("overwrite", {
          type: "boolean",
          default: false,
          describe: "For patterns that write: what the volume holds is lost",
        })
        .option("target", {
          type: "string",
          requiresArg: true,
          describe: "ADDRESS:PORT of the target, if not the first that the daemon names",
        })
        .example("$0 bench db-test --depth 32 --queues 4", "Random reads of 8 KiB")
        .example("$0 bench scratch --pattern randwrite --overwrite", ""),
    async (args) => {
      requireName(args.volume, "volume");
      const { pattern, queues, depth, seconds, overwrite } = args;
      const blockBytes = parseSize(args.block);
      if (!(seconds > 0 && seconds <= MAX_SECONDS)) {
        throw new PandoError("EINVAL", `--seconds ${seconds}: up to ${MAX_SECONDS}`);
      }
      const writes = pattern !== "read" && pattern !== "randread";
      if (writes && !overwrite) {
        throw new PandoError("EINVAL", `${pattern} writes over what ${args.volume} holds`, {
          hint: `pando volume clone ${args.volume} scratch, and the same with scratch --overwrite`,
        });
      }
      const engine = await loadEngine();
      const result = await withClient(args, (client) =>
        asHost(client, args.volume, writes, (volume, host) =>
          engine.nvmeLoad({
            ...place(volume, args.target),
            subsystemNqn: volume.nqn,
            hostNqn: host,
            pattern,
            blockBytes,
            queues,
            depth,
            durationMs: Math.ceil(seconds * 1000),
          }),
        ),
      );
      printResult(args, result, () => describe(result));
      if (result.errors === 0) return;
      throw new PandoError("EIO", `${result.errors} requests failed with ${result.firstError}`);
    },
  );
}

/** Its list is as before, however this ends. */
async function asHost<T>(
  client: PandoClient,
  name: string,
  alone: boolean,
  work: (volume: VolumeView, host: string) => Promise<T>,
): Promise<T> {
  const { sessions } = await client.getVolume(name);
  if (alone && sessions.length > 0) {
    throw new PandoError(
      "EBUSY",
      `somebody has volume ${name} open: it is not written under them`,
      {
        volume: name,
        hint: "pando host list",
      },
    );
  }
  const host = hostNqn(newUuid());
  const volume = await client.allowHost(name, host);
  try {
    return await work(volume, host);
  } finally {
    await client.denyHost(name, host);
  }
}

function place(volume: VolumeView, target: string | undefined): { address: string; port: number } {
  const named = target === undefined ? null : /^\[?([^\]]+)\]?:(\d+)$/.exec(target);
  if (named !== null) return { address: named[1] as string, port: Number(named[2]) };
  if (target !== undefined) {
    throw new PandoError("EINVAL", `--target ${target}: a numeric ADDRESS:PORT`, {
      field: "target",
    });
  }
  const [first] = volume.addresses;
  if (first !== undefined) return { address: first.traddr, port: Number(first.trsvcid) };
  throw new PandoError("EINVAL", "the daemon has no NVMe/TCP target", {
    hint: "pando daemon --target 127.0.0.1:4420",
  });
}

function describe(result: LoadResult): string {
  const lanes: [string, Lane][] = [
    ["reads", result.reads],
    ["writes", result.writes],
  ];
  const fields = lanes.flatMap(([name, { ops, bytes, latency }]): [string, string][] => {
    if (ops === 0) return [];
    const perSecond = Math.round(ops / result.seconds);
    return [
      [name, `${perSecond} IOPS, ${formatSize(Math.round(bytes / result.seconds))}/s`],
      [
        "  latency",
        `p50 ${latency.p50Us} µs, p99 ${latency.p99Us} µs, longest ${latency.maxUs} µs`,
      ],
    ];
  });
  return formatFields([...fields, ["errors", String(result.errors)]]);
}
