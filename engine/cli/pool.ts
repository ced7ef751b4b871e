// pando pool: make one, look at the one that is served, check it. `create` and `check PATH` need no
// daemon.
import type { Argv } from "yargs";
import { BLOCK_SIZES, DEFAULT_BLOCK_SIZE, JOURNAL_BLOCK_BYTES } from "../base/constants.js";
import { isPandoError, PandoError } from "../base/errors.js";
import { checkWholeBlocks, formatSize, parseSize } from "../base/size.js";
import type { CreateDeviceOptions } from "../daemon.js";
import type { CheckReport, PoolInfo, TrimProgress } from "../serve/client.js";
import { writeWhole } from "./backup.js";
import { type GlobalOptions, type LoadEngine, withClient } from "./context.js";
import { formatFields, formatTable, printResult } from "./print.js";
import { Progress } from "./progress.js";

const META = {
  type: "string",
  requiresArg: true,
  describe: "The folder of the store, if it is not on the pool's block device",
} as const;

interface CreateArguments {
  meta: string | undefined;
  size: string | undefined;
  blockSize: string | undefined;
  journalSize: string | undefined;
  sparse: boolean;
  force: boolean;
  metaSize: string | undefined;
}

export function addPool(yargs: Argv<GlobalOptions>, loadEngine: LoadEngine): Argv<GlobalOptions> {
  return yargs.command("pool", "Make, list, grow, show, trim, check or back up pools", (pool) =>
    pool
      .command(
        "create <path>",
        "Make a pool in a new folder, or on a block device",
        (create) =>
          create
            .positional("path", {
              type: "string",
              demandOption: true,
              describe: "Folder or device",
            })
            .option("size", {
              type: "string",
              requiresArg: true,
              describe: "Room for data; a device's own size if it is not given",
            })
            .option("block-size", {
              type: "string",
              requiresArg: true,
              describe: "Unit of copy-on-write, 4KiB to 64KiB [default: 4KiB]",
            })
            .option("journal-size", {
              type: "string",
              requiresArg: true,
              describe: "Room for the journal [default: 64MiB]",
            })
            .option("sparse", {
              type: "boolean",
              default: false,
              describe: "Let the data file grow as it is written, instead of taking its room now",
            })
            .option("meta", META)
            .option("meta-size", {
              type: "string",
              requiresArg: true,
              describe: "Of a block device: room for its metadata [default: 1/64, at least 64MiB]",
            })
            .option("force", {
              type: "boolean",
              default: false,
              describe: "Of a block device: whatever is on it is overwritten",
            })
            .example("$0 pool create /srv/pando --size 100GiB", "Takes 100 GiB of the disk now")
            .example("$0 pool create /dev/sdb", "With its metadata on it: it moves as a whole")
            .example("$0 pool create ./pool --size 10GiB --sparse", "Takes what is written"),
        async (args) => {
          const options = createOptions(args);
          const engine = await loadEngine();
          const created = await engine.createPool(args.path, options);
          printResult(args, created, () =>
            [
              `made ${created.path}: ${formatSize(created.sizeBytes)} for data,`,
              `blocks of ${formatSize(created.blockSizeBytes)}`,
            ].join(" "),
          );
        },
      )
      .command(
        "show",
        "Show the pool that the daemon serves",
        (show) => show.example("$0 pool show --json", "For programs"),
        async (args) => {
          const info = await withClient(args, (client) => client.info());
          printResult(args, info, () => describePool(info));
        },
      )
      .command(
        "list",
        "List the pools of the daemon, those that it could not open too",
        (list) => list.example("$0 pool list", "Their names are what --pool takes"),
        async (args) => {
          const found = await withClient(args, (client) => client.listPools());
          printResult(args, found, () =>
            formatTable(
              ["NAME", "PATH", "SIZE", "USED", "STATE"],
              found.map((one) => [
                one.name || "-",
                one.path,
                one.uuid === "" ? "-" : formatSize(one.sizeBytes),
                one.uuid === "" ? "-" : formatSize(one.usedBytes),
                one.failure ?? "takes reads and writes",
              ]),
            ),
          );
        },
      )
      .command(
        "grow [path]",
        "Make a pool larger: the daemon's own, online, or one that no daemon serves",
        (grow) =>
          grow
            .positional("path", {
              type: "string",
              describe: "A pool that no daemon serves; without it, the daemon's own, online",
            })
            .option("size", {
              type: "string",
              requiresArg: true,
              describe: "Its new room for data and journal; all of a device if it is not given",
            })
            .option("sparse", {
              type: "boolean",
              default: false,
              describe: "Let the data file grow as it is written, instead of taking its room now",
            })
            .option("meta", META)
            .example("$0 pool grow --size 200GiB", "While it is served")
            .example("$0 pool grow /srv/pando --size 200GiB", "After the daemon was stopped"),
        async (args) => {
          const { path, sparse } = args;
          const sizeBytes = args.size === undefined ? null : parseSize(args.size);
          if (path === undefined) {
            if (sizeBytes === 0) throw new PandoError("EINVAL", "the size is 0", { field: "size" });
            const info = await withClient(args, (client) => client.grow(sizeBytes, sparse));
            return printResult(args, info, () => describePool(info));
          }
          const options = { path, metaPath: args.meta ?? null, sizeBytes, sparse };
          const grown = await (await loadEngine()).growPool(options);
          printResult(args, grown, () => `${grown.path}: ${formatSize(grown.sizeBytes)} for data`);
        },
      )
      .command(
        "trim",
        "Give all that is free back to the device now: holes in a file, or discards",
        (trim) =>
          trim
            .option("start", {
              type: "string",
              requiresArg: true,
              describe: "Go on from here, after one that was cut off [default: the begin]",
            })
            .example("$0 pool trim", "It rests while hosts are at work; Ctrl-C stops it")
            .example("$0 pool trim --start 40GiB", "Go on"),
        async (args) => {
          const start = args.start === undefined ? 0 : parseSize(args.start, "start");
          const done = await withClient(args, (client) => trimAll(client.trim(start), start));
          printResult(args, done, () => `gave ${formatSize(done.trimmedBytes)} back to the device`);
        },
      )
      .command(
        "check [path]",
        "Check every block's owner, and what is recorded against what is there",
        (check) =>
          check
            .positional("path", {
              type: "string",
              describe:
                "A pool that no daemon serves, of which nothing is written; without it, the daemon's own",
            })
            .option("repair", {
              type: "boolean",
              default: false,
              describe:
                "Make free map, counts and span sets anew where the index proves them wrong",
            })
            .option("meta", META)
            .example("$0 pool check", "The daemon's pool, online")
            .example("$0 pool check ./pool", "A pool that is not served")
            .example("$0 pool check ./pool --repair", "All of it is mended, or nothing is changed"),
        async (args) => {
          const { path } = args;
          if (args.repair) return repair(args, path, loadEngine);
          const report =
            path === undefined
              ? await withClient(args, (client) => client.check())
              : await (await loadEngine()).checkPool({ path, metaPath: args.meta ?? null });
          printResult(args, report, () => describeReport(report));
          failUnlessClean(report, path);
        },
      )
      .command(
        "backup-metadata <file> [path]",
        "Copy what says where the data is: without it a pool is lost",
        (backup) =>
          backup
            .positional("file", {
              type: "string",
              demandOption: true,
              describe: "Is made, and must not be there; it has the keys of hosts in it",
            })
            .positional("path", {
              type: "string",
              describe: "A pool that no daemon serves; without it, the daemon's own, online",
            })
            .option("meta", META)
            .example("$0 pool backup-metadata /backup/pando-monday", "While it is served")
            .example(
              "$0 pool backup-metadata ./meta.backup ./pool",
              "After the daemon was stopped",
            ),
        async (args) => {
          const { file, path } = args;
          const sizeBytes =
            path === undefined
              ? await withClient(args, (client) => writeWhole(file, client.backUpMetadata()))
              : await writeWhole(
                  file,
                  (await loadEngine()).backUpPool({ path, metaPath: args.meta ?? null }),
                );
          printResult(args, { file, sizeBytes }, () => `made ${file}: ${formatSize(sizeBytes)}`);
        },
      )
      .command(
        "restore-metadata <file> <path>",
        "Put a backup beside its data again, if the two still fit",
        (restore) =>
          restore
            .positional("file", { type: "string", demandOption: true, describe: "The backup" })
            .positional("path", {
              type: "string",
              demandOption: true,
              describe: "The pool, which no daemon serves and whose metadata is away",
            })
            .option("meta", META)
            .example("$0 pool restore-metadata ./meta.backup ./pool", "After mv ./pool/meta away"),
        async (args) => {
          const { file, path } = args;
          const engine = await loadEngine();
          const report = await engine.restorePool(file, { path, metaPath: args.meta ?? null });
          printResult(args, report, () => `restored; ${describeReport(report)}`);
        },
      )
      .demandCommand(
        1,
        "no verb: create, list, grow, show, trim, check, backup-metadata or restore-metadata",
      )
      .strict(),
  );
}

/** Where it is cut off, it says where to go on. */
async function trimAll(
  steps: AsyncIterable<TrimProgress>,
  startBytes: number,
): Promise<TrimProgress> {
  let progress: Progress | null = null;
  let last: TrimProgress = { doneBytes: startBytes, sizeBytes: 0, trimmedBytes: 0 };
  try {
    for await (const step of steps) {
      progress ??= new Progress(step.sizeBytes);
      progress.show(step.doneBytes, step.trimmedBytes - last.trimmedBytes);
      last = step;
    }
    return last;
  } catch (error) {
    if (!isPandoError(error) || last.doneBytes === startBytes) throw error;
    const hint = `to go on: pool trim --start ${last.doneBytes}`;
    throw new PandoError(error.code, error.message, { ...error.context, hint }, { cause: error });
  } finally {
    progress?.end();
  }
}

async function repair(
  args: GlobalOptions & { meta: string | undefined },
  path: string | undefined,
  loadEngine: LoadEngine,
): Promise<void> {
  if (path === undefined) {
    throw new PandoError("EINVAL", "a pool is repaired while no daemon serves it: say which", {
      field: "path",
      hint: "stop the daemon, then: pando pool check PATH --repair",
    });
  }
  const engine = await loadEngine();
  const report = await engine.repairPool({ path, metaPath: args.meta ?? null });
  printResult(args, report, () =>
    [
      ...(report.repaired.length === 0 ? ["nothing to repair"] : []),
      ...report.repaired.map((sentence) => `made anew: ${sentence}`),
      describeReport(report),
    ].join("\n"),
  );
}

function createOptions(args: CreateArguments): CreateDeviceOptions {
  const options: CreateDeviceOptions = { sparse: args.sparse };
  if (args.meta !== undefined) options.metaPath = args.meta;
  if (args.force) options.force = true;
  if (args.metaSize !== undefined) {
    options.metaSizeBytes = parseSize(args.metaSize, "metadata size");
  }
  const blockSizeBytes =
    args.blockSize === undefined ? DEFAULT_BLOCK_SIZE : parseSize(args.blockSize, "block size");
  if (!(BLOCK_SIZES as readonly number[]).includes(blockSizeBytes)) {
    throw new PandoError("EINVAL", `blocks cannot be of ${blockSizeBytes} bytes`, {
      field: "block-size",
      hint: "4KiB, 8KiB, 16KiB, 32KiB or 64KiB",
    });
  }
  options.blockSizeBytes = blockSizeBytes;
  if (args.size !== undefined) {
    options.sizeBytes = parseSize(args.size);
    checkWholeBlocks({ sizeBytes: options.sizeBytes, blockSizeBytes, field: "size" });
  }
  if (args.journalSize !== undefined) {
    options.journalBytes = parseSize(args.journalSize, "journal size");
    checkWholeBlocks({
      sizeBytes: options.journalBytes,
      blockSizeBytes: JOURNAL_BLOCK_BYTES,
      field: "journal size",
    });
  }
  return options;
}

function describePool(info: PoolInfo): string {
  const { journal } = info;
  return formatFields([
    ["path", info.path],
    ["uuid", info.uuid],
    ["state", info.failure ?? "takes reads and writes"],
    ["block size", formatSize(info.blockSizeBytes)],
    ["size", formatSize(info.sizeBytes)],
    ["used", describeUsed(info)],
    ["free", formatSize(info.freeBytes)],
    ["pending", `${formatSize(info.pendingBytes)}, free soon`],
    ["reserved", `${formatSize(info.reservedBytes)}, for superblocks and journal`],
    ["volumes", String(info.volumes)],
    ["snapshots", String(info.snapshots)],
    ["layers", `${info.layers}, ${info.reclaiming} of them deleted`],
    ["reclaim", describeReclaim(info)],
    ["discard", describeDiscard(info)],
    ["journal", `${formatSize(journal.usedBytes)} of ${formatSize(journal.sizeBytes)}`],
  ]);
}

function describeDiscard({ discard }: PoolInfo): string {
  if (discard.state === "off") return "off";
  const { state, punchedBytes, skippedBytes } = discard;
  const back = `${formatSize(punchedBytes)} given back to the device since the start`;
  const skipped = skippedBytes === 0 ? "" : `, ${formatSize(skippedBytes)} skipped`;
  return `${state === "on" ? "on" : "the device cannot"}; ${back}${skipped}`;
}

function describeUsed({ usedBytes, sizeBytes, spaceLevel }: PoolInfo): string {
  const percent = Math.floor((100 * usedBytes) / sizeBytes);
  const level = spaceLevel === 0 ? "" : `, space level ${spaceLevel} of 3`;
  return `${formatSize(usedBytes)} (${percent} %${level})`;
}

function describeReclaim({ reclaim }: PoolInfo): string {
  const { layersWaiting, spansWaiting, freedBytes } = reclaim;
  const done = reclaim.spansReclaimed + reclaim.spansFolded + reclaim.spansSwept;
  return [
    layersWaiting === 0
      ? "nothing waits"
      : `${layersWaiting} layers wait, ${spansWaiting} spans of theirs`,
    `${done} spans done and ${formatSize(freedBytes)} back since the start`,
  ].join("; ");
}

function describeReport(report: CheckReport): string {
  const { layers, indexBlocks, ownedBlocks } = report;
  const seen = `${layers} layers, ${indexBlocks} index blocks, ${ownedBlocks} owned blocks`;
  return report.clean ? `clean: ${seen}` : [`not clean: ${seen}`, ...report.problems].join("\n");
}

function failUnlessClean(report: CheckReport, path: string | undefined): void {
  if (report.clean) return;
  const count = report.problems.length;
  throw new PandoError(
    "ECORRUPT",
    `the pool${path === undefined ? "" : ` ${path}`} has ${count} problem${count === 1 ? "" : "s"}`,
    {
      hint: "keep a copy of the pool as it is before anything else, then: pool check PATH --repair",
    },
  );
}
