// Programs and files that Kubernetes' own projects publish as Go modules: built once, kept where
// the kernels of the VM tests are.
import { execFile } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { findProgram, vmCacheDir } from "../system/vm/host.js";

const BUILD_TIMEOUT_MS = 3_600_000;
const DOWNLOAD_TIMEOUT_MS = 600_000;

/** Null: there is no Go here. */
export function findGo(): string | null {
  return findProgram("go");
}

/** `package` as `go install` wants it, without its version. */
export async function provideGoProgram(
  go: string,
  wanted: { name: string; package: string; version: string },
): Promise<string> {
  const folder = join(vmCacheDir(), `${wanted.name}-${wanted.version}`);
  const path = join(folder, wanted.name);
  if (existsSync(path)) return path;
  mkdirSync(folder, { recursive: true });
  const args = ["install", `${wanted.package}@${wanted.version}`];
  const env = { ...process.env, CGO_ENABLED: "0", GOBIN: folder };
  await promisify(execFile)(go, args, { cwd: "/", env, timeout: BUILD_TIMEOUT_MS });
  return path;
}

/** The folder of a module's files. */
export async function provideGoModule(
  go: string,
  wanted: { module: string; version: string },
): Promise<string> {
  const args = ["mod", "download", "-json", `${wanted.module}@${wanted.version}`];
  const options = { cwd: "/", timeout: DOWNLOAD_TIMEOUT_MS };
  const { stdout } = await promisify(execFile)(go, args, options);
  return (JSON.parse(stdout) as { Dir: string }).Dir;
}
