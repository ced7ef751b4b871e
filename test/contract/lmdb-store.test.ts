import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openLmdbStore } from "../../engine/store/lmdb-store.js";
import { storeContract } from "./store.js";

const folders: string[] = [];
process.on("exit", () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

storeContract("store contract: lmdb", async () => {
  const folder = mkdtempSync(join(tmpdir(), "pando-store-"));
  folders.push(folder);
  return openLmdbStore(folder, { create: true });
});
