// A file system image with a Postgres cluster in it, made on the machine itself: in a guest, whose
// processor is emulated, the same takes a minute.
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { BIN } from "./guest-postgres.js";

export interface ImageOptions {
  /** A folder for what is needed on the way. */
  folder: string;
  sizeMiB: number;
  /** SQL of the new cluster. */
  sql: string;
  pgbenchScale: number;
}

/** Returns the image's path. The cluster is in its folder `data`, cleanly stopped. */
export function makePostgresImage({ folder, sizeMiB, sql, pgbenchScale }: ImageOptions): string {
  const root = join(folder, "root");
  mkdirSync(root);
  if (process.getuid?.() === 0) {
    const id = (flag: string) => Number(run("id", [flag, "postgres"], folder));
    chownSync(root, id("-u"), id("-g"));
    chmodSync(folder, 0o711); // postgres passes through it
  }
  const data = join(root, "data");
  const log = join(root, "making.log");
  const here = ["-U", "postgres", "-h", root];
  const options = `-k ${root} -c listen_addresses= -c fsync=off`;
  const postgres = (program: string, args: string[], input = "") =>
    run(join(BIN, program), args, root, input);
  postgres("initdb", ["-D", data, "-U", "postgres", "-A", "trust", "-N", "--wal-segsize=4"]);
  postgres("pg_ctl", ["-D", data, "-l", log, "-o", options, "-w", "start"]);
  try {
    postgres("psql", ["-X", "-q", "-v", "ON_ERROR_STOP=1", ...here, "postgres"], sql);
    postgres("pgbench", ["-i", "-q", "-s", String(pgbenchScale), ...here, "postgres"]);
  } finally {
    postgres("pg_ctl", ["-D", data, "-m", "fast", "-w", "stop"]);
  }
  const image = join(folder, "ext4.img");
  run("mkfs.ext4", ["-q", "-b", "4096", "-d", root, image, `${sizeMiB}M`], folder);
  return image;
}

/** As postgres, if this is root in a folder of postgres'. */
function run(program: string, args: string[], folder: string, input = ""): string {
  const isRoot = process.getuid?.() === 0 && program.startsWith(BIN);
  const [command, ...words] = isRoot
    ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", program, ...args]
    : [program, ...args];
  const { status, stdout, stderr, error } = spawnSync(command as string, words, {
    cwd: folder,
    input,
    encoding: "utf8",
    // A server that stays behind would hold a pipe of this process' open.
    stdio: program.endsWith("pg_ctl") ? ["pipe", "ignore", "ignore"] : "pipe",
  });
  if (status !== 0) throw new Error(`${program}: ${error?.message ?? stderr ?? status}`);
  return stdout ?? "";
}
