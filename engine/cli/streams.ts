// pando volume send, receive, receiving, import, export: the contents of volumes from one pool to
// another, and from and to files.
import { open } from "node:fs/promises";
import type { Readable } from "node:stream";
import type { Argv } from "yargs";
import { PandoError } from "../base/errors.js";
import { parseSnapshotRef, parseSourceRef, requireName } from "../base/name.js";
import { quote } from "../base/quote.js";
import { newUuid } from "../base/random.js";
import { formatSize } from "../base/size.js";
import { type GlobalOptions, type LoadEngine, withClient } from "./context.js";
import { exportImage, type ImageFormat, importImage } from "./image.js";
import { formatTable, printResult } from "./print.js";
import { receiveStream } from "./receive.js";
import { sendSnapshot } from "./send.js";
import { describeVolume, volumeJson } from "./volume-text.js";

const SNAPSHOT = {
  type: "string",
  demandOption: true,
  describe: "VOLUME@SNAPSHOT, as in db@monday",
} as const;
const FORMAT = { type: "string", requiresArg: true } as const;

export function addStreams(
  volume: Argv<GlobalOptions>,
  loadEngine: LoadEngine,
): Argv<GlobalOptions> {
  return addImages(addReceive(addSend(volume, loadEngine), loadEngine));
}

function addSend(volume: Argv<GlobalOptions>, loadEngine: LoadEngine): Argv<GlobalOptions> {
  return volume.command(
    "send <snapshot>",
    "Write a snapshot, or what changed since an earlier one, to stdout",
    (send) =>
      send
        .positional("snapshot", SNAPSHOT)
        .option("from", {
          type: "string",
          requiresArg: true,
          describe: "VOLUME@SNAPSHOT that the other side has: only what changed since",
        })
        .option("resume", {
          type: "string",
          requiresArg: true,
          describe: "Go on after a cut: the number that the receiver named",
        })
        .example("$0 volume send db@monday > monday.pando", "")
        .example("$0 volume send db@tuesday --from db@monday | ssh … pando volume receive db", ""),
    async (args) => {
      const target = parseSnapshotRef(args.snapshot);
      const base = args.from === undefined ? null : parseSnapshotRef(args.from);
      const startBytes = args.resume === undefined ? 0 : parseOffset(args.resume);
      if (process.stdout.isTTY) {
        throw new PandoError("EINVAL", "a stream is not for a terminal", {
          hint: `pando volume send ${args.snapshot} > FILE`,
        });
      }
      const { crc32c } = await loadEngine();
      const out = process.stdout;
      await withClient(args, (client) =>
        sendSnapshot(client, { target, base, startBytes, out, checksum: crc32c }),
      );
    },
  );
}

function addReceive(volume: Argv<GlobalOptions>, loadEngine: LoadEngine): Argv<GlobalOptions> {
  return volume
    .command(
      "receive <name>",
      "Make a volume, or its next snapshot, of a stream from stdin; it appears when it is whole",
      (receive) =>
        receive
          .positional("name", {
            type: "string",
            demandOption: true,
            describe: "VOLUME, or VOLUME@SNAPSHOT to give the snapshot another name",
          })
          .option("resume", {
            type: "boolean",
            default: false,
            describe: "Go on with what was cut",
          })
          .option("abort", {
            type: "boolean",
            default: false,
            describe: "Forget what was cut, or what an import left",
          })
          .option("file", {
            type: "string",
            requiresArg: true,
            describe: "Read the stream from here instead",
          })
          .example("$0 volume receive db < monday.pando", "")
          .example("$0 volume receive db --resume < rest.pando", ""),
      async (args) => {
        const { volume: name, snapshot } = parseSourceRef(args.name);
        if (args.abort) {
          await withClient(args, (client) => client.abortReceive(name));
          printResult(args, { aborted: name }, () => `forgot what was received into ${name}`);
          return;
        }
        const { crc32c } = await loadEngine();
        const { resume } = args;
        const source = args.file === undefined ? process.stdin : await readFrom(args.file);
        const options = { name, snapshot, resume, source, checksum: crc32c };
        try {
          const made = await withClient(args, (client) => receiveStream(client, options));
          printResult(args, volumeJson(made), () => describeVolume(made));
        } finally {
          source.destroy();
        }
      },
    )
    .command(
      "receiving",
      "List what was received in part: how much of it, and where to go on",
      (receiving) => receiving.example("$0 volume receiving", ""),
      async (args) => {
        const found = await withClient(args, (client) => client.listReceives());
        printResult(args, found, () =>
          formatTable(
            ["NAME", "SIZE", "RESUME AT"],
            found.map(({ name, snapshot, sizeBytes, offsetBytes }) => [
              snapshot === null ? name : `${name}@${snapshot}`,
              formatSize(sizeBytes),
              String(offsetBytes),
            ]),
          ),
        );
      },
    );
}

function addImages(volume: Argv<GlobalOptions>): Argv<GlobalOptions> {
  return volume
    .command(
      "import <file> <name>",
      "Make a volume of an image file; it appears when it is whole, and takes no room for zeroes",
      (image) =>
        image
          .positional("file", { type: "string", demandOption: true, describe: "The image" })
          .positional("name", { type: "string", demandOption: true, describe: "The new volume" })
          .option("format", { ...FORMAT, describe: "raw or qcow2 [default: what it looks like]" })
          .example("$0 volume import debian.qcow2 debian", ""),
      async (args) => {
        requireName(args.name, "volume");
        const format = args.format === undefined ? null : parseFormat(args.format);
        const options = { path: args.file, name: args.name, format, contents: newUuid() };
        const made = await withClient(args, (client) => importImage(client, options));
        printResult(args, volumeJson(made), () => describeVolume(made));
      },
    )
    .command(
      "export <snapshot> <file>",
      "Write a snapshot to a new image file; it takes no room for holes",
      (image) =>
        image
          .positional("snapshot", SNAPSHOT)
          .positional("file", { type: "string", demandOption: true, describe: "The new file" })
          .option("format", { ...FORMAT, default: "raw", describe: "raw or qcow2" })
          .example("$0 volume export db@monday db.img", "")
          .example("$0 volume export db@monday db.qcow2 --format qcow2", ""),
      async (args) => {
        const source = parseSnapshotRef(args.snapshot);
        const options = { source, path: args.file, format: parseFormat(args.format) };
        const made = await withClient(args, (client) => exportImage(client, options));
        const { sizeBytes, dataBytes } = made;
        printResult(args, { file: args.file, ...made }, () =>
          [`wrote ${args.file}:`, `${formatSize(dataBytes)} of ${formatSize(sizeBytes)}`].join(" "),
        );
      },
    );
}

async function readFrom(path: string): Promise<Readable> {
  const file = await open(path, "r").catch((cause: Error) => {
    throw new PandoError("ENOTFOUND", `${path} cannot be read: ${cause.message}`, { path });
  });
  return file.createReadStream();
}

function parseFormat(text: string): ImageFormat {
  if (text === "raw" || text === "qcow2") return text;
  throw new PandoError("EINVAL", `${quote(text)} is not a format of images`, {
    field: "format",
    hint: "raw or qcow2",
  });
}

function parseOffset(text: string): number {
  if (/^[0-9]{1,15}$/.test(text)) return Number(text);
  throw new PandoError("EINVAL", `${quote(text)} is no place to go on from`, {
    field: "resume",
    hint: "the number that the receiver named: pando volume receiving",
  });
}
