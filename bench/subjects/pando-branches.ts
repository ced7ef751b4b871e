// Pando's daemon as something that branches, asked by its own control client.
import { join } from "node:path";
import type { Branches } from "./branches.js";
import { servePando } from "./pando.js";

export async function pandoBranches(folder: string, poolBytes: number): Promise<Branches> {
  // Holes that a deleted clone leaves would have to be allocated by the file system again.
  const size = { poolBytes, written: true };
  const server = await servePando(join(folder, "pool"), size, ["--discard", "off"]);
  const { client } = server;
  return {
    name: "pando",
    uri: server.uri,
    create: async (volume, sizeBytes) => void (await client.createVolume(volume, sizeBytes)),
    nothing: async () => void (await client.listPools()),
    snapshot: async (volume, snapshot) => void (await client.createSnapshot(volume, snapshot)),
    clone: async (volume, snapshot, clone) => {
      await client.cloneVolume({ volume, snapshot }, clone);
    },
    deleteClone: (clone) => client.deleteVolume(clone),
    allocatedBytes: async () => (await client.info()).usedBytes,
    writtenBytes: () => server.process.writtenBytes(),
    stop: () => server.stop(),
  };
}
