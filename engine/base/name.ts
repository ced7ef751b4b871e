// Names of volumes and snapshots: what they may be made of, and how "VOLUME@SNAPSHOT" is read.
// Narrow on purpose: a name ends up in keys, in URIs, in labels of metrics and in shells.
import { MAX_NAME_LENGTH } from "./constants.js";
import { PandoError } from "./errors.js";
import { quote } from "./quote.js";

const PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

export type Named = "volume" | "snapshot";

export function requireName(name: string, named: Named): void {
  const fail = (why: string): never => {
    throw new PandoError("EINVAL", `${quote(name)} cannot be the name of a ${named}: ${why}`, {
      field: named,
      hint: "letters, digits, dot, underscore and dash, the first a letter or digit: db-test.1",
    });
  };
  if (name === "") fail("it is empty");
  if (name.length > MAX_NAME_LENGTH) fail(`it is longer than ${MAX_NAME_LENGTH} characters`);
  const odd = [...name].find((character) => !/[A-Za-z0-9._-]/.test(character));
  if (odd !== undefined) fail(`${quote(odd)} is not allowed in one`);
  if (!PATTERN.test(name)) fail("its first character is not a letter or digit");
}

export interface SnapshotRef {
  volume: string;
  snapshot: string;
}

/** VOLUME@SNAPSHOT, both parts there. */
export function parseSnapshotRef(text: string): SnapshotRef {
  const { volume, snapshot } = parseSourceRef(text);
  if (snapshot === null) {
    throw new PandoError("EINVAL", `${quote(text)} does not name a snapshot`, {
      field: "snapshot",
      hint: `VOLUME@SNAPSHOT, as in ${volume}@monday`,
    });
  }
  return { volume, snapshot };
}

/** The catalogue's name of what is received into a volume: no user can give it. */
export function partialName(volume: string): string {
  return `${volume}%`;
}

export function isPartialName(name: string): boolean {
  return name.endsWith("%");
}

/** As parseSourceRef, for names that are in the catalogue. */
export function splitName(name: string): { volume: string; snapshot: string | null } {
  const at = name.indexOf("@");
  if (at < 0) return { volume: name, snapshot: null };
  return { volume: name.slice(0, at), snapshot: name.slice(at + 1) };
}

/** VOLUME or VOLUME@SNAPSHOT. */
export function parseSourceRef(text: string): { volume: string; snapshot: string | null } {
  const at = text.indexOf("@");
  const volume = at < 0 ? text : text.slice(0, at);
  requireName(volume, "volume");
  if (at < 0) return { volume, snapshot: null };
  const snapshot = text.slice(at + 1);
  requireName(snapshot, "snapshot");
  return { volume, snapshot };
}
