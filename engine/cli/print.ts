// Everything that the CLI prints goes through here: results on stdout, as aligned text for people
// or as JSON for programs; errors on stderr, one line and what to try.
import { once } from "node:events";
import Table from "cli-table3";
import { isPandoError } from "../base/errors.js";

export interface PrintOptions {
  json: boolean;
}

/** `text` is called only for people. */
export function printResult(options: PrintOptions, value: unknown, text: () => string): void {
  const out = options.json ? JSON.stringify(value, null, 2) : text();
  if (out !== "") process.stdout.write(`${out}\n`);
}

/**
 * As printResult, for what may be more than fits in memory: each batch is out before the next is
 * asked for. As JSON it is one list.
 */
export async function printBatches<T>(
  options: PrintOptions,
  batches: AsyncIterable<T[]>,
  text: (item: T) => string,
): Promise<void> {
  let separator = "[\n";
  for await (const batch of batches) {
    let out = "";
    for (const item of batch) {
      out += options.json ? `${separator}${JSON.stringify(item)}` : `${text(item)}\n`;
      separator = ",\n";
    }
    if (!process.stdout.write(out)) await once(process.stdout, "drain");
  }
  if (options.json) process.stdout.write(separator === "[\n" ? "[]\n" : "\n]\n");
}

export function printError(error: unknown): void {
  process.stderr.write(describeError(error));
}

/** One line that names the thing, and, where there is one, a line that says what to do about it. */
export function describeError(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const hint = isPandoError(error) ? error.context.hint : undefined;
  const first = `error: ${oneLine(message)}\n`;
  return hint === undefined ? first : `${first}  try: ${oneLine(hint)}\n`;
}

/** For `pando volume list | head`: who reads no further wants no error. */
export function leaveQuietlyOnClosedPipe(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
}

/** Columns under headings, two blanks between them, no borders. */
export function formatTable(head: string[], rows: string[][]): string {
  const none = "";
  const table = new Table({
    chars: {
      top: none,
      "top-mid": none,
      "top-left": none,
      "top-right": none,
      bottom: none,
      "bottom-mid": none,
      "bottom-left": none,
      "bottom-right": none,
      left: none,
      "left-mid": none,
      mid: none,
      "mid-mid": none,
      right: none,
      "right-mid": none,
      middle: "  ",
    },
    style: { "padding-left": 0, "padding-right": 0, head: [], border: [] },
  });
  table.push(...(head.length === 0 ? rows : [head, ...rows]));
  return trimLines(table.toString());
}

/** One field a line: name, value. A value of several lines goes on under itself. */
export function formatFields(fields: [name: string, value: string | string[]][]): string {
  const rows = fields.flatMap(([name, value]) => {
    const lines = Array.isArray(value) ? value : [value];
    return lines.map((line, index) => [index === 0 ? name : "", line]);
  });
  return formatTable([], rows);
}

function trimLines(text: string): string {
  return text
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n");
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}
