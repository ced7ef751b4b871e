// pando volume: make, list, show, delete, resize, limit, clone, roll back; streams.ts has the rest.
import type { Argv } from "yargs";
import { PandoError } from "../base/errors.js";
import { parseSnapshotRef, parseSourceRef, requireName } from "../base/name.js";
import { parseCount, parseSize } from "../base/size.js";
import type { Limits } from "../serve/client.js";
import { type GlobalOptions, type LoadEngine, withClient } from "./context.js";
import { printResult } from "./print.js";
import { addStreams } from "./streams.js";
import { describeVolume, describeVolumes, volumeJson } from "./volume-text.js";

const NAME = { type: "string", demandOption: true, describe: "The volume's name" } as const;
const SIZE = {
  type: "string",
  requiresArg: true,
  demandOption: true,
  describe: "A multiple of the pool's block size: 10GiB, 512MiB, 1T",
} as const;

export function addVolume(yargs: Argv<GlobalOptions>, loadEngine: LoadEngine): Argv<GlobalOptions> {
  return yargs.command("volume", "Make, show, change, branch, send and receive volumes", (volume) =>
    addStreams(addReaders(addWriters(volume)), loadEngine)
      .demandCommand(1, "no verb: --help lists them")
      .strict(),
  );
}

function addWriters(volume: Argv<GlobalOptions>): Argv<GlobalOptions> {
  return volume
    .command(
      "create <name>",
      "Make an empty volume; it takes no room until it is written",
      (create) =>
        create
          .positional("name", NAME)
          .option("size", SIZE)
          .example("$0 volume create db --size 100GiB", ""),
      async (args) => {
        requireName(args.name, "volume");
        const sizeBytes = parseSize(args.size);
        const made = await withClient(args, (client) => client.createVolume(args.name, sizeBytes));
        printResult(args, volumeJson(made), () => describeVolume(made));
      },
    )
    .command(
      "clone <source> <name>",
      "Make a volume that begins as another one, or a snapshot, is; at once, whatever its size",
      (clone) =>
        clone
          .positional("source", {
            type: "string",
            demandOption: true,
            describe: "VOLUME, or VOLUME@SNAPSHOT",
          })
          .positional("name", NAME)
          .example("$0 volume clone db@monday db-test", "From a snapshot")
          .example("$0 volume clone db db-test", "From the volume as it is now"),
      async (args) => {
        const source = parseSourceRef(args.source);
        requireName(args.name, "volume");
        const made = await withClient(args, (client) => client.cloneVolume(source, args.name));
        printResult(args, volumeJson(made), () => describeVolume(made));
      },
    )
    .command(
      "rollback <snapshot>",
      "Go on from a snapshot: what was written since is deleted; nobody may have the volume open",
      (rollback) =>
        rollback
          .positional("snapshot", {
            type: "string",
            demandOption: true,
            describe: "VOLUME@SNAPSHOT, as in db@monday",
          })
          .example("$0 volume rollback db@monday", ""),
      async (args) => {
        const { volume, snapshot } = parseSnapshotRef(args.snapshot);
        const back = await withClient(args, (client) => client.rollbackVolume(volume, snapshot));
        printResult(args, volumeJson(back), () => describeVolume(back));
      },
    )
    .command(
      "resize <name>",
      "Make a volume larger; connected hosts see it",
      (resize) =>
        resize
          .positional("name", NAME)
          .option("size", SIZE)
          .example("$0 volume resize db --size 200GiB", ""),
      async (args) => {
        requireName(args.name, "volume");
        const sizeBytes = parseSize(args.size);
        const made = await withClient(args, (client) => client.resizeVolume(args.name, sizeBytes));
        printResult(args, volumeJson(made), () => describeVolume(made));
      },
    )
    .command(
      "share <name>",
      "Have the kernel's NVMe target serve a volume in place of the daemon's own; it stays so",
      (share) =>
        share
          .positional("name", NAME)
          .option("via", {
            choices: ["nvmet"] as const,
            demandOption: true,
            describe: "Linux's NVMe target",
          })
          .example("$0 volume share db --via nvmet", ""),
      async (args) => {
        requireName(args.name, "volume");
        const shared = await withClient(args, (client) => client.shareVolume(args.name, args.via));
        printResult(args, volumeJson(shared), () => describeVolume(shared));
      },
    )
    .command(
      "unshare <name>",
      "Have the daemon's own target serve a volume again",
      (unshare) =>
        unshare
          .positional("name", NAME)
          .option("force", {
            type: "boolean",
            default: false,
            describe: "Even if hosts are connected: their I/O fails",
          })
          .example("$0 volume unshare db", ""),
      async (args) => {
        const { name, force } = args;
        requireName(name, "volume");
        const volume = await withClient(args, (client) => client.unshareVolume(name, { force }));
        printResult(args, volumeJson(volume), () => describeVolume(volume));
      },
    )
    .command(
      "set <name>",
      "Limit what the users of a volume get; in force at once, for connected hosts too",
      (set) =>
        set
          .positional("name", NAME)
          .option("iops", {
            type: "string",
            requiresArg: true,
            describe: "Requests a second, or none",
          })
          .option("bandwidth", {
            type: "string",
            requiresArg: true,
            describe: "Bytes a second, as in 200MiB, or none",
          })
          .example("$0 volume set db-test --iops 2000 --bandwidth 100MiB", "")
          .example("$0 volume set db-test --iops none", "As fast as it goes"),
      async (args) => {
        requireName(args.name, "volume");
        const change = limitsChange(args);
        const set = await withClient(args, (client) => client.setLimits(args.name, change));
        printResult(args, volumeJson(set), () => describeVolume(set));
      },
    )
    .command(
      "delete <name>",
      "Delete a volume that nobody has open; what its clones need stays",
      (remove) => remove.positional("name", NAME).example("$0 volume delete db-test", ""),
      async (args) => {
        requireName(args.name, "volume");
        await withClient(args, (client) => client.deleteVolume(args.name));
        printResult(args, { deleted: args.name }, () => `deleted ${args.name}`);
      },
    );
}

function addReaders(volume: Argv<GlobalOptions>): Argv<GlobalOptions> {
  return volume
    .command(
      "list",
      "List the volumes and snapshots as the tree of branches that they are",
      (list) => list.example("$0 volume list", ""),
      async (args) => {
        await withClient(args, async (client) => {
          const volumes = await client.listVolumes();
          const snapshots = args.json ? [] : await client.listSnapshots();
          printResult(args, volumes.map(volumeJson), () => describeVolumes(volumes, snapshots));
        });
      },
    )
    .command(
      "show <name>",
      "Show a volume, and the command with which a host connects to it",
      (show) =>
        show
          .positional("name", NAME)
          .example("$0 volume show db", "")
          .example("$0 volume show db --json | jq -r .nqn", "Its NVMe name"),
      async (args) => {
        requireName(args.name, "volume");
        const found = await withClient(args, (client) =>
          client.getVolume(args.name, { countFreed: true }),
        );
        printResult(args, volumeJson(found), () => describeVolume(found));
      },
    );
}

function limitsChange(args: {
  iops: string | undefined;
  bandwidth: string | undefined;
}): Partial<Limits> {
  const { iops, bandwidth } = args;
  if (iops === undefined && bandwidth === undefined) {
    throw new PandoError("EINVAL", "nothing to set", {
      hint: "pando volume set NAME --iops N or --bandwidth SIZE",
    });
  }
  const change: Partial<Limits> = {};
  if (iops !== undefined) change.iops = iops === "none" ? null : parseCount(iops, "iops");
  if (bandwidth !== undefined) {
    change.bytesPerSecond = bandwidth === "none" ? null : parseSize(bandwidth, "bandwidth");
  }
  return change;
}
