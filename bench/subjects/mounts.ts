// What suites have mounted, so that a run that is cut short lets go of it. Whoever makes a mount
// says how it is undone; the last one made is undone first.
//
// Needs root, as all mounting does.
import { execFileSync } from "node:child_process";
import { mkdirSync, rmdirSync } from "node:fs";

/** `cutShort`: whatever uses it may not have ended yet. */
type Undo = (cutShort: boolean) => void;

const mounted: Undo[] = [];

/** For a run that is cut short: what is used still is let go when its users have ended. */
export function unmountAll(): void {
  for (let undo = mounted.pop(); undo !== undefined; undo = mounted.pop()) {
    try {
      undo(true);
    } catch {
      // it is gone, or its server is: the rest goes all the same
    }
  }
}

/** Returns what undoes it. */
export function mount(source: string, place: string): () => void {
  execFileSync("mount", [source, place]);
  return remember((cutShort) => unmount(place, cutShort));
}

/** What somebody else's program has mounted at `place`. */
export function adoptMount(place: string): () => void {
  return remember((cutShort) => unmount(place, cutShort));
}

/** Folders to mount on, the outer one first. What is in them is never removed with them. */
export function makePlaces(places: readonly string[]): () => void {
  for (const place of places) mkdirSync(place);
  return remember(() => {
    for (const place of [...places].reverse()) rmdirSync(place);
  });
}

/** A block device over a file. `direct`: around the page cache. */
export function attachLoop(
  path: string,
  { direct }: { direct: boolean },
): { device: string; detach: () => void } {
  const options = ["--find", "--show", ...(direct ? ["--direct-io=on"] : [])];
  const device = execFileSync("losetup", [...options, path], { encoding: "utf8" }).trim();
  const detach = remember(() => execFileSync("losetup", ["--detach", device]));
  return { device, detach };
}

function unmount(place: string, cutShort: boolean): void {
  execFileSync("umount", [...(cutShort ? ["--lazy"] : []), place]);
}

function remember(undo: Undo): () => void {
  mounted.push(undo);
  return () => {
    undo(false);
    mounted.splice(mounted.indexOf(undo), 1);
  };
}
