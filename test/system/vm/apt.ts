// Debian packages of another suite than the machine's, without touching the machine.
//
// A private apt configuration names the suite at the mirror that the machine's own sources name, so
// nothing here knows a host, and the machine's sources, lists and package state stay as they are.
// apt verifies what it fetches with Debian's archive keys.
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runProgram } from "./host.js";

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
export const FETCH_TIMEOUT_MS = 300_000;

/** Options that make apt use a sources.list, lists and cache of its own. */
export async function privateApt(work: string, suite: string): Promise<string[]> {
  const sources = join(work, "sources.list");
  for (const dir of ["lists/partial", "cache/archives/partial"]) {
    await mkdir(join(work, dir), { recursive: true });
  }
  const options = [
    `-oDir::Etc::SourceList=${sources}`,
    "-oDir::Etc::SourceParts=/dev/null",
    `-oDir::State::Lists=${join(work, "lists")}`,
    `-oDir::Cache=${join(work, "cache")}`,
    "-oAcquire::Languages=none",
    "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
    "-oAPT::Architecture=amd64",
    "-oAPT::Sandbox::User=root",
    "-oAPT::Update::Post-Invoke-Success=",
  ];
  const signedBy = existsSync(KEYRING) ? ` [signed-by=${KEYRING}]` : "";
  let refusal = "no Debian mirror among this machine's apt sources";
  for (const mirror of await mirrors()) {
    await writeFile(sources, `deb${signedBy} ${mirror} ${suite} main\n`);
    try {
      await runProgram("apt-get", [...options, "-oAPT::Update::Error-Mode=any", "update"], {
        timeoutMs: FETCH_TIMEOUT_MS,
      });
      return options;
    } catch (error) {
      refusal = (error as Error).message;
    }
  }
  throw new Error(`cannot fetch from ${suite}: ${refusal}`);
}

/**
 * The archives that the machine's sources name, those with plain suites (not updates, not security)
 * only.
 */
async function mirrors(): Promise<string[]> {
  const uris = await runProgram("apt-get", ["update", "--print-uris"]);
  const found = uris.matchAll(/^'(\S+)\/dists\/[a-z]+\/(?:InRelease|Release)'/gm);
  const unique = new Set([...found].map((match) => match[1] as string));
  const isDebian = (uri: string) => Number(uri.endsWith("/debian"));
  return [...unique].sort((a, b) => isDebian(b) - isDebian(a));
}
