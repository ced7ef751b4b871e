// Schedules: letting a world go on until something has happened, while some of what could happen is
// held back for as long as a test likes.
import type { Choice, World } from "./world.js";

export type Holds = (choice: Choice) => boolean;

export interface Tracked<T> {
  state: "waiting" | "done" | "failed";
  value?: T;
  error?: unknown;
}

const nothing: Holds = () => false;

export const isKind =
  (...kinds: Choice["kind"][]): Holds =>
  (choice) =>
    kinds.includes(choice.kind);

/** A promise whose state can be asked for. */
export function track<T>(work: Promise<T>): Tracked<T> {
  const tracked: Tracked<T> = { state: "waiting" };
  work.then(
    (value) => {
      tracked.state = "done";
      tracked.value = value;
    },
    (error: unknown) => {
      tracked.state = "failed";
      tracked.error = error;
    },
  );
  return tracked;
}

/** Steps until `done`, the oldest choice first. False: what is left is held back. */
export async function until(
  world: World,
  done: () => boolean,
  hold: Holds = nothing,
): Promise<boolean> {
  for (;;) {
    await world.settle();
    if (done()) return true;
    const next = world.choices().find((choice) => !hold(choice));
    if (next === undefined) return false;
    next.take();
  }
}

/**
 * Steps until the work is settled, and throws what it threw. False: it waits for what is held back.
 */
export async function ended(
  world: World,
  tracked: Tracked<unknown>,
  hold: Holds = nothing,
): Promise<boolean> {
  const done = await until(world, () => tracked.state !== "waiting", hold);
  if (tracked.state === "failed") throw tracked.error;
  return done;
}

/** Takes everything that may happen, until only what is held back is left. */
export async function drain(world: World, hold: Holds = nothing): Promise<void> {
  await until(world, () => false, hold);
}

/** Takes one thing of this kind, which must be there. */
export async function take(world: World, which: Holds, errno = 0): Promise<void> {
  await world.settle();
  const choice = world.choices().find(which);
  if (choice === undefined) {
    const kinds = world.choices().map(({ kind, offset }) => `${kind}@${offset}`);
    throw new Error(`nothing of this kind can happen; there is ${kinds.join(", ") || "nothing"}`);
  }
  choice.take(errno);
  await world.settle();
}
