// qcow2 images as something that branches: a snapshot makes what was written so far the backing
// file of a new image, a clone is another image over the same backing file. All of it by QMP in one
// qemu-storage-daemon.
import { readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Branches } from "./branches.js";
import { makeQcow2, QemuServer } from "./qemu.js";

interface Image {
  sizeBytes: number;
  /** The node that takes the writes, and its file. */
  node: string;
  path: string;
}

export async function qcow2Branches(folder: string): Promise<Branches> {
  const server = await QemuServer.start();
  const images = new Map<string, Image>();
  const frozen = new Map<string, { path: string; sizeBytes: number }>();
  const pathOf = (name: string) => join(folder, `${name}.qcow2`);
  return {
    name: "qcow2",
    uri: (volume) => server.uri(volume),
    async create(volume, sizeBytes) {
      makeQcow2(pathOf(volume), sizeBytes);
      await server.serve(volume, "qcow2", pathOf(volume));
      images.set(volume, { sizeBytes, node: volume, path: pathOf(volume) });
    },
    nothing: () => server.nothing(),
    async snapshot(volume, snapshot) {
      const image = known(images, volume);
      const node = `${volume}.at.${snapshot}`;
      await server.snapshot(image.node, node, pathOf(node));
      frozen.set(`${volume}@${snapshot}`, { path: image.path, sizeBytes: image.sizeBytes });
      images.set(volume, { ...image, node, path: pathOf(node) });
    },
    async clone(volume, snapshot, clone) {
      const { path, sizeBytes } = known(frozen, `${volume}@${snapshot}`);
      await server.makeOverlay(pathOf(clone), path, sizeBytes);
      await server.serve(clone, "qcow2", pathOf(clone), path);
    },
    async deleteClone(clone) {
      await server.withdraw(clone);
      rmSync(pathOf(clone));
    },
    async allocatedBytes() {
      const files = readdirSync(folder).map((name) => statSync(join(folder, name)));
      return files.reduce((sum, { blocks }) => sum + blocks * 512, 0);
    },
    writtenBytes: () => server.process.writtenBytes(),
    stop: () => server.stop(),
  };
}

function known<T>(all: ReadonlyMap<string, T>, name: string): T {
  const one = all.get(name);
  if (one === undefined) throw new Error(`there is no ${name}`);
  return one;
}
