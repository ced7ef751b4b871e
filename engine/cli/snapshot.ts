// pando snapshot: make, show, list, compare, delete.
import type { Argv } from "yargs";
import { parseSnapshotRef, requireName } from "../base/name.js";
import { formatSize } from "../base/size.js";
import type { SnapshotView } from "../serve/client.js";
import { type GlobalOptions, withClient } from "./context.js";
import { formatFields, formatTable, printBatches, printResult } from "./print.js";
import { connectLines, describeFreed, describeSessions } from "./volume-text.js";

const SNAPSHOT = {
  type: "string",
  demandOption: true,
  describe: "VOLUME@SNAPSHOT, as in db@monday",
} as const;

export function addSnapshot(yargs: Argv<GlobalOptions>): Argv<GlobalOptions> {
  return yargs.command("snapshot", "Make, show, list, compare or delete snapshots", (snapshot) =>
    snapshot
      .command(
        "create <snapshots..>",
        "Keep volumes as they are now, all at one instant; what was acknowledged before is in it",
        (create) =>
          create
            .positional("snapshots", {
              type: "string",
              array: true,
              demandOption: true,
              describe: "VOLUME@SNAPSHOT, as in db@monday, of one or several volumes",
            })
            .example("$0 snapshot create db@monday", "While db is in use")
            .example("$0 snapshot create db@monday wal@monday", "Both at one instant, or neither"),
        async (args) => {
          const refs = args.snapshots.map(parseSnapshotRef);
          const made = await withClient(args, (client) => client.createSnapshots(refs));
          const [only] = made;
          // One is what it always was to programs: an object. Several are a list.
          printResult(args, made.length === 1 ? only : made, () =>
            made.map(({ volume, name }) => `made ${volume}@${name}`).join("\n"),
          );
        },
      )
      .command(
        "show <snapshot>",
        "Show a snapshot, and the command with which a host connects to read it",
        (show) =>
          show
            .positional("snapshot", SNAPSHOT)
            .example("$0 snapshot show db@monday", "")
            .example("$0 snapshot show db@monday --json | jq -r .nbdUri", "For NBD clients"),
        async (args) => {
          const ref = parseSnapshotRef(args.snapshot);
          const found = await withClient(args, (client) =>
            client.getSnapshot(ref.volume, ref.snapshot, { countFreed: true }),
          );
          printResult(args, found, () => describeSnapshot(found));
        },
      )
      .command(
        "list [volume]",
        "List the snapshots of all volumes, or of one",
        (list) =>
          list
            .positional("volume", { type: "string", describe: "Only this volume's" })
            .example("$0 snapshot list db", ""),
        async (args) => {
          const { volume } = args;
          if (volume !== undefined) requireName(volume, "volume");
          const found = await withClient(args, (client) => client.listSnapshots(volume));
          printResult(args, found, () =>
            formatTable(
              ["NAME", "SIZE", "OWN", "SHARED", "IF DELETED", "CREATED"],
              found.map((one) => [
                `${one.volume}@${one.name}`,
                formatSize(one.sizeBytes),
                formatSize(one.ownBytes),
                formatSize(one.sharedBytes),
                describeFreed(one),
                one.createdAt,
              ]),
            ),
          );
        },
      )
      .command(
        "diff <from> [to]",
        "List what changed from one snapshot to a later one; with one alone, what it has at all",
        (diff) =>
          diff
            .positional("from", SNAPSHOT)
            .positional("to", { type: "string", describe: "The later one" })
            .example("$0 snapshot diff db@monday db@tuesday", "Offset, length, data or zero")
            .example("$0 snapshot diff db@monday --json", "All that is not a hole"),
        async (args) => {
          const from = parseSnapshotRef(args.from);
          const to = args.to === undefined ? null : parseSnapshotRef(args.to);
          const request = { base: to && from, target: to ?? from, startBytes: 0 };
          await withClient(args, (client) =>
            printBatches(args, client.diff(request), ({ offsetBytes, lengthBytes, zero }) =>
              [offsetBytes, lengthBytes, zero ? "zero" : "data"].join(" "),
            ),
          );
        },
      )
      .command(
        "delete <snapshot>",
        "Delete a snapshot; what its clones need stays",
        (remove) =>
          remove.positional("snapshot", SNAPSHOT).example("$0 snapshot delete db@monday", ""),
        async (args) => {
          const ref = parseSnapshotRef(args.snapshot);
          await withClient(args, (client) => client.deleteSnapshot(ref.volume, ref.snapshot));
          printResult(args, { deleted: args.snapshot }, () => `deleted ${args.snapshot}`);
        },
      )
      .demandCommand(1, "no verb: create, show, list, diff or delete")
      .strict(),
  );
}

function describeSnapshot(snapshot: SnapshotView): string {
  return formatFields([
    ["name", `${snapshot.volume}@${snapshot.name}`],
    ["uuid", snapshot.uuid],
    ["size", `${formatSize(snapshot.sizeBytes)} (${snapshot.sizeBytes} bytes), read-only`],
    ["created", snapshot.createdAt],
    ["freed", `${describeFreed(snapshot)}, if it is deleted`],
    ["hosts", snapshot.allowedHosts.length === 0 ? "nobody" : snapshot.allowedHosts],
    ["open", describeSessions(snapshot)],
    ["nqn", snapshot.nqn],
    ["connect", connectLines(snapshot)],
    ["nbd", snapshot.nbdUri ?? "-"],
  ]);
}
