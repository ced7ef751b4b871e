// Image files in and out. Raw ones are read and written here, sparse on both sides; for qcow2,
// qemu-img does the format, over NBD.
import { spawn } from "node:child_process";
import type { Stats } from "node:fs";
import { type FileHandle, open, rm, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { PandoError } from "../base/errors.js";
import type { SnapshotRef } from "../base/name.js";
import type { PandoClient, VolumeView } from "../serve/client.js";
import { NbdClient } from "./nbd-client.js";
import { needNbd, PartialVolume } from "./partial-volume.js";
import { Progress } from "./progress.js";
import { Window } from "./window.js";

export type ImageFormat = "raw" | "qcow2";

const CHUNK_BYTES = 1024 * 1024;
/** A hole is at least so large. */
const GRAIN_BYTES = 4096;
const READS_AT_A_TIME = 16;
const QCOW2_MAGIC = Buffer.from("QFI\xfb", "latin1");
const ZEROES = Buffer.alloc(GRAIN_BYTES);

export interface ImportOptions {
  path: string;
  name: string;
  /** Null: what its first bytes say. */
  format: ImageFormat | null;
  contents: string;
}

export async function importImage(
  client: PandoClient,
  { path, name, format, contents }: ImportOptions,
): Promise<VolumeView> {
  const file = await open(path, "r").catch((cause: Error) => {
    throw new PandoError("ENOTFOUND", `${path} cannot be read: ${cause.message}`, { path });
  });
  try {
    const before = await regular(file, path);
    const found = format ?? (await formatOf(file));
    const imageBytes = found === "qcow2" ? await virtualSize(path) : before.size;
    if (imageBytes === 0) throw new PandoError("EINVAL", `${path} is empty`, { path });
    const { blockSizeBytes } = await client.info();
    const sizeBytes = Math.ceil(imageBytes / blockSizeBytes) * blockSizeBytes;
    const request = { name, snapshot: null, contents, base: null, sizeBytes, resume: false };
    const partial = await PartialVolume.open(client, request);
    try {
      if (found === "raw") await importRaw(file, { path, size: before.size }, partial);
      else await convert(["-n", "-f", "qcow2", "-O", "raw", resolve(path), needNbd(partial.info)]);
      const after = await file.stat();
      if (after.size !== before.size || after.mtimeMs !== before.mtimeMs) throw changed(path);
      return await partial.finish();
    } catch (error) {
      await partial.abort();
      throw error;
    }
  } finally {
    await file.close();
  }
}

export interface ExportOptions {
  source: SnapshotRef;
  path: string;
  format: ImageFormat;
}

/** Gives the bytes of data that the image has. */
export async function exportImage(
  client: PandoClient,
  { source, path, format }: ExportOptions,
): Promise<{ sizeBytes: number; dataBytes: number }> {
  const snapshot = await client.getSnapshot(source.volume, source.snapshot);
  const uri = needNbd(snapshot);
  const { sizeBytes } = snapshot;
  const file = await open(path, "wx").catch((cause: NodeJS.ErrnoException) => {
    const taken = cause.code === "EEXIST";
    const why = taken ? "it exists already" : cause.message;
    throw new PandoError(taken ? "EEXIST" : "EPERM", `${path} cannot be written: ${why}`, { path });
  });
  try {
    let dataBytes = 0;
    if (format === "qcow2") await convert(["-f", "raw", "-O", "qcow2", uri, resolve(path)]);
    else {
      await file.truncate(sizeBytes);
      dataBytes = await exportRaw(client, { source, uri, sizeBytes, file });
    }
    await file.sync();
    return { sizeBytes, dataBytes: dataBytes || (await stat(path)).size };
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

/** The size is the one that the volume was made for. */
async function importRaw(
  file: FileHandle,
  { path, size }: { path: string; size: number },
  partial: PartialVolume,
): Promise<void> {
  const progress = new Progress(size);
  try {
    for (let at = 0; at < size; at += CHUNK_BYTES) {
      const wanted = Math.min(CHUNK_BYTES, size - at);
      // The rest of the last sector reads as zero.
      const chunk = Buffer.alloc(Math.ceil(wanted / GRAIN_BYTES) * GRAIN_BYTES);
      const { bytesRead } = await file.read(chunk, 0, wanted, at);
      if (bytesRead < wanted) throw changed(path);
      let moved = 0;
      for (const { begin, end } of dataIn(chunk)) {
        await partial.write(at + begin, chunk.subarray(begin, end));
        moved += end - begin;
      }
      progress.show(at + wanted, moved);
    }
  } finally {
    progress.end();
  }
}

function changed(path: string): PandoError {
  return new PandoError("EINVAL", `${path} changed while it was imported`, {
    path,
    hint: "import it when nobody writes to it",
  });
}

/** The parts that are not zeroes. */
function* dataIn(chunk: Buffer): Generator<{ begin: number; end: number }> {
  let begin = -1;
  for (let at = 0; at < chunk.length; at += GRAIN_BYTES) {
    const zero = chunk.compare(ZEROES, 0, GRAIN_BYTES, at, at + GRAIN_BYTES) === 0;
    if (!zero && begin < 0) begin = at;
    if (zero && begin >= 0) {
      yield { begin, end: at };
      begin = -1;
    }
  }
  if (begin >= 0) yield { begin, end: chunk.length };
}

async function exportRaw(
  client: PandoClient,
  to: { source: SnapshotRef; uri: string; sizeBytes: number; file: FileHandle },
): Promise<number> {
  const { source, uri, sizeBytes, file } = to;
  const nbd = await NbdClient.openUri(uri);
  const window = new Window(READS_AT_A_TIME);
  const progress = new Progress(sizeBytes);
  const copy = async (at: number, length: number): Promise<void> => {
    const data = await nbd.read(at, length);
    await file.write(data, 0, length, at);
  };
  let dataBytes = 0;
  try {
    for await (const ranges of client.diff({ base: null, target: source, startBytes: 0 })) {
      for (const { offsetBytes, lengthBytes } of ranges) {
        const end = offsetBytes + lengthBytes;
        for (let at = offsetBytes; at < end; at += CHUNK_BYTES) {
          const length = Math.min(CHUNK_BYTES, end - at);
          await window.add(copy(at, length));
          progress.show(at + length, length);
        }
        dataBytes += lengthBytes;
      }
    }
    await window.settled();
    return dataBytes;
  } finally {
    progress.end();
    await nbd.close();
  }
}

async function regular(file: FileHandle, path: string): Promise<Stats> {
  const found = await file.stat();
  if (found.isFile()) return found;
  throw new PandoError("EINVAL", `${path} is not a file`, { path });
}

async function formatOf(file: FileHandle): Promise<ImageFormat> {
  const magic = Buffer.alloc(QCOW2_MAGIC.length);
  await file.read(magic, 0, magic.length, 0);
  return magic.equals(QCOW2_MAGIC) ? "qcow2" : "raw";
}

async function virtualSize(path: string): Promise<number> {
  const out = await qemuImg(["info", "--output=json", "-f", "qcow2", resolve(path)]);
  const info = JSON.parse(out) as { "virtual-size": number };
  return info["virtual-size"];
}

/** With qemu-img's own progress, where there is somebody to see it. */
async function convert(args: string[]): Promise<void> {
  await qemuImg(["convert", ...(process.stderr.isTTY ? ["-p"] : []), ...args]);
}

function qemuImg(args: string[]): Promise<string> {
  const shown = args.includes("-p");
  return new Promise((done, fail) => {
    const child = spawn("qemu-img", args, { stdio: ["ignore", shown ? 2 : "pipe", "pipe"] });
    const out: Buffer[] = [];
    const errors: Buffer[] = [];
    child.stdout?.on("data", (chunk: Buffer) => out.push(chunk));
    child.stderr?.on("data", (chunk: Buffer) => errors.push(chunk));
    child.once("error", (cause: NodeJS.ErrnoException) => {
      fail(
        new PandoError(
          "ENOTFOUND",
          "qcow2 needs qemu-img, which does not run here",
          {
            hint: "install qemu-utils, or use --format raw",
          },
          { cause },
        ),
      );
    });
    child.once("close", (code) => {
      if (code === 0) done(Buffer.concat(out).toString("utf8"));
      else {
        const why = Buffer.concat(errors).toString("utf8").trim();
        fail(new PandoError("EIO", `qemu-img failed: ${why}`));
      }
    });
  });
}
