// What is being tested: printed first, so that a seed can be replayed on the same sources.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";

const root = new URL("../../../", import.meta.url).pathname;

export function describeVersion(): string {
  const { version } = JSON.parse(readFileSync(`${root}package.json`, "utf8")) as {
    version: string;
  };
  const git = spawnSync("git", ["describe", "--always", "--dirty"], {
    cwd: root,
    encoding: "utf8",
  });
  const commit = git.status === 0 ? `commit ${git.stdout.trim()}` : "no commit";
  return `pando ${version}, ${commit}, node ${process.version}`;
}
