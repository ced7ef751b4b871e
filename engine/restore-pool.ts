// Puts a backup of a pool's store beside its device again. The device has gone on since: what it
// says must prove that the backup, with the journal, is the whole truth still.
//
//   the pool was opened since            the superblock's epoch is above the backup's
//   something was reclaimed or folded    the superblock's number of reclaims is another
//   the pool was grown                   the superblock's generation is another
//   the journal has come round           a block is where the backup's tail was
//   a layer was made and written to      its records name a layer that the backup does not know
//   anything else                        the check, of what recovery makes of both, finds it
//
// Each is a refusal, and nothing is changed: the store is made in a folder of its own, checked, and
// only then named `meta`. What was only in the catalogue since (names, limits, lists of hosts) is
// as it was.
import { existsSync, readdirSync, renameSync, rmdirSync, rmSync, statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { isPandoError, PandoError } from "./base/errors.js";
import { type ClosedPool, checkPoolInChild } from "./check-child.js";
import type { CheckReport } from "./core/api.js";
import { openDataDevice } from "./core/data-device.js";
import { syncFolder } from "./core/format.js";
import { type BackupContents, openBackup } from "./core/metadata-backup.js";
import { readSuperblock } from "./core/recovery.js";
import { type ClosedPoolOptions, withClosedPool } from "./open-pool.js";
import { openLmdbStore } from "./store/lmdb-store.js";

export function restorePool(file: string, options: ClosedPoolOptions): Promise<CheckReport> {
  return withClosedPool(options, "write", async (paths) => {
    requireAbsent(paths.meta);
    const source = openDataDevice(file, "r");
    try {
      const backup = openBackup(file, source);
      // All of it, before anything is made.
      for (const _ of backup.batches());
      compare(file, backup, paths.data);
      return await restore(file, backup, paths);
    } finally {
      source.close();
    }
  });
}

function compare(file: string, { header }: BackupContents, data: string): void {
  const device = openDataDevice(data, "r");
  try {
    const { uuid, reclaims } = readSuperblock(device);
    if (uuid !== header.uuid) {
      throw refusal(file, `it is of pool ${header.uuid}, and ${data} of ${uuid}`);
    }
    if (reclaims !== header.reclaims) {
      throw refusal(file, "something that was deleted since has given its blocks up");
    }
  } finally {
    device.close();
  }
}

async function restore(
  file: string,
  backup: BackupContents,
  paths: ClosedPool,
): Promise<CheckReport> {
  const made = join(dirname(paths.meta), `.${basename(paths.meta)}.restoring`);
  rmSync(made, { recursive: true, force: true });
  try {
    await makeStore(made, backup);
    const report = await checkPoolInChild({ ...paths, meta: made }).catch((cause: unknown) => {
      throw isPandoError(cause) ? refusal(file, cause.message, cause) : cause;
    });
    if (!report.clean) throw refusal(file, report.problems[0] ?? "the check finds faults");
    if (existsSync(paths.meta)) rmdirSync(paths.meta);
    renameSync(made, paths.meta);
    await syncFolder(dirname(paths.meta));
    return report;
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
}

async function makeStore(folder: string, backup: BackupContents): Promise<void> {
  await mkdir(folder, { mode: 0o700 });
  const store = openLmdbStore(folder, { create: true });
  try {
    for (const entries of backup.batches()) {
      await store.transact((txn) => {
        for (const { space, key, value } of entries) txn.put(space, key, value);
      });
    }
    await store.sync();
  } finally {
    await store.close();
  }
  await syncFolder(folder);
}

function requireAbsent(meta: string): void {
  const there = statSync(meta, { throwIfNoEntry: false });
  if (there === undefined || (there.isDirectory() && readdirSync(meta).length === 0)) return;
  throw new PandoError("EEXIST", `${meta} is there: nothing is restored over it`, {
    path: meta,
    hint: `if the pool does not open with it: mv ${meta} ${meta}.damaged`,
  });
}

function refusal(file: string, why: string, cause?: unknown): PandoError {
  return new PandoError(
    "ECORRUPT",
    `${file} does not fit its device any more: ${why}`,
    { path: file, hint: "a later backup may; with this one volumes would read wrong data" },
    { cause },
  );
}
