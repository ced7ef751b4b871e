// What a program does, in figures that no neighbour disturbs: its instructions in user mode, by
// callgrind, and its system calls, by strace.
import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** Throws if the program fails. */
export async function countInstructions(command: readonly string[]): Promise<number> {
  const tool = ["--tool=callgrind", "--callgrind-out-file=/dev/null", ...command];
  const { stderr } = await promisify(execFile)("valgrind", tool);
  return parseInstructions(stderr);
}

export async function countSystemCalls(command: readonly string[]): Promise<number> {
  const { stderr } = await promisify(execFile)("strace", ["-f", "-c", "-q", ...command]);
  return parseSystemCalls(stderr);
}

/** Of what callgrind says at its end. */
export function parseInstructions(said: string): number {
  const found = /^==\d+== Collected : (\d+)$/m.exec(said)?.[1];
  if (found === undefined) throw new Error(`callgrind counted nothing:\n${said}`);
  return Number(found);
}

/** Of strace's table: the last line's number below "calls"; the columns around it may be empty. */
export function parseSystemCalls(said: string): number {
  const lines = said.split("\n");
  const heading = lines.find((line) => line.startsWith("% time")) ?? "";
  const total = lines.find((line) => line.endsWith(" total")) ?? "";
  const end = heading.indexOf("calls", heading.indexOf("call ") + 1) + "calls".length;
  const found = /(\d+)$/.exec(total.slice(0, end))?.[1];
  if (found === undefined) throw new Error(`strace counted nothing:\n${said}`);
  return Number(found);
}
