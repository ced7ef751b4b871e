// pando inspect: what lies in a pool that no daemon serves, decoded and not interpreted. It never
// writes; what cannot be decoded is shown as damaged, and does not end it.
import type { Argv } from "yargs";
import { parseCount } from "../base/size.js";
import type { InspectItem, InspectRequest, InspectValue } from "../daemon.js";
import type { GlobalOptions, LoadEngine } from "./context.js";
import { printBatches } from "./print.js";

/** As the engine has them, which is loaded later. */
const PARTS = ["pool", "journal", "catalogue", "layers", "index", "free"] as const;

export function addInspect(
  yargs: Argv<GlobalOptions>,
  loadEngine: LoadEngine,
): Argv<GlobalOptions> {
  return yargs.command(
    "inspect <path> [part]",
    "Decode what lies in a pool that no daemon serves; nothing is written",
    (inspect) =>
      inspect
        .positional("path", { type: "string", demandOption: true, describe: "Folder or device" })
        .positional("part", {
          choices: PARTS,
          default: "pool" as const,
          describe: "Superblocks and the pool's own records, or one of the others",
        })
        .option("layer", {
          type: "string",
          requiresArg: true,
          describe: "Of the index: this layer's only",
        })
        .option("all", {
          type: "boolean",
          default: false,
          describe: "Of the journal: blocks that are no part of it any more, too",
        })
        .option("meta", {
          type: "string",
          requiresArg: true,
          describe: "The folder of the store, if it is not on the pool's block device",
        })
        .example("$0 inspect ./pool", "Superblocks, tail, epoch, counts")
        .example("$0 inspect ./pool journal", "Each block that recovery would read")
        .example("$0 inspect ./pool index --layer 7 --json", "For programs"),
    async (args) => {
      const request: InspectRequest = {
        part: args.part,
        layer: args.layer === undefined ? null : parseCount(args.layer, "layer"),
        all: args.all,
      };
      const engine = await loadEngine();
      const options = { path: args.path, metaPath: args.meta ?? null };
      await printBatches(args, engine.inspectPool(options, request), describe);
    },
  );
}

/** One line; a list of records goes on below it, one each. */
function describe({ what, damaged, ...fields }: InspectItem): string {
  if (damaged !== undefined) return `${what}: DAMAGED: ${damaged}`;
  const simple: string[] = [];
  const below: string[] = [];
  for (const [name, value] of Object.entries(fields)) {
    if (Array.isArray(value) && value.some(isRecord)) {
      for (const one of value) below.push(`  ${name}: ${textOf(one)}`);
    } else if (value !== undefined) {
      simple.push(`${words(name)} ${textOf(value)}`);
    }
  }
  const first = simple.length === 0 ? `${what}:` : `${what}: ${simple.join(", ")}`;
  return [first, ...below].join("\n");
}

function textOf(value: InspectValue): string {
  if (Array.isArray(value)) return value.length === 0 ? "none" : value.map(textOf).join(" ");
  if (!isRecord(value)) return value === null ? "none" : String(value);
  const fields = Object.entries(value);
  return fields.map(([name, field]) => `${words(name)} ${textOf(field)}`).join(", ");
}

function isRecord(value: InspectValue): value is { readonly [field: string]: InspectValue } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** firstBlock: first block. */
function words(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
