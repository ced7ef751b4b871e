// The command line: nouns, global options, and what an error becomes. Each noun has a file;
// printing has one.
//
// Exit codes: 0 done, 1 refused or failed, 2 used wrongly.
import { readFileSync } from "node:fs";
import yargs, { type Argv } from "yargs";
import { PandoError } from "../base/errors.js";
import { packagePath } from "../base/package-path.js";
import { addBench } from "./bench.js";
import { addConnect } from "./connect.js";
import type { GlobalOptions, LoadEngine } from "./context.js";
import { addDaemon } from "./daemon.js";
import { addDoctor } from "./doctor.js";
import { addHost } from "./host.js";
import { addInspect } from "./inspect.js";
import { addPool } from "./pool.js";
import { printError } from "./print.js";
import { addSnapshot } from "./snapshot.js";
import { addVolume } from "./volume.js";

const NOUNS = [
  ...["pool", "inspect", "volume", "snapshot", "host"],
  ...["connect", "disconnect", "bench", "daemon", "doctor"],
];

/** Used wrongly: nothing was tried. */
class UsageError extends PandoError {}

/**
 * Runs one command and returns the exit code. Everything that it prints is out, or on its way, when
 * it returns.
 */
export async function run(argv: string[], loadEngine: LoadEngine): Promise<number> {
  try {
    await parser(argv, loadEngine).parseAsync();
    return 0;
  } catch (error) {
    printError(error);
    return error instanceof UsageError ? 2 : 1;
  }
}

function parser(argv: string[], loadEngine: LoadEngine): Argv<GlobalOptions> {
  const base = yargs(argv)
    .scriptName("pando")
    .usage("$0 NOUN VERB …\n\nCopy-on-write volumes, served over NVMe-oF and NBD.")
    .parserConfiguration({ "parse-positional-numbers": false, "boolean-negation": false })
    .option("socket", {
      type: "string",
      requiresArg: true,
      describe: "The daemon's socket (or PANDO_SOCKET)",
      global: true,
    })
    .option("pool", {
      type: "string",
      requiresArg: true,
      describe: "Which pool, by its name, of a daemon that serves several",
      global: true,
    })
    .option("config", {
      type: "string",
      requiresArg: true,
      describe: "The configuration file (or PANDO_CONFIG)",
      global: true,
    })
    .option("json", {
      type: "boolean",
      default: false,
      describe: "Print the result as JSON",
      global: true,
    });
  let commands: Argv<GlobalOptions> = base;
  commands = addPool(commands, loadEngine);
  commands = addInspect(commands, loadEngine);
  commands = addVolume(commands, loadEngine);
  commands = addSnapshot(commands);
  commands = addHost(commands);
  commands = addConnect(commands);
  commands = addBench(commands, loadEngine);
  commands = addDaemon(commands, loadEngine);
  commands = addDoctor(commands, loadEngine);
  return commands
    .demandCommand(1, "no command is named")
    .strict()
    .check(checkOnce)
    .example("$0 pool create ./pool --size 10GiB", "Make a pool in a folder")
    .example("$0 daemon --pool ./pool", "Serve it")
    .example("$0 volume create db --size 100GiB", "Make a volume")
    .example("$0 volume clone db db-test", "Branch it")
    .example("$0 volume list", "See the tree")
    .version(version())
    .help()
    .alias("help", "h")
    .wrap(100)
    .exitProcess(false)
    .fail((message, error) => fail(argv, message, error));
}

/** What may be named several times. */
const SEVERAL = new Set(["_", "snapshots"]);

/** yargs makes a list of an option that is given twice. */
function checkOnce(args: Record<string, unknown>): true {
  for (const [name, value] of Object.entries(args)) {
    if (Array.isArray(value) && !SEVERAL.has(name)) {
      throw new Error(`--${name} is given more than once`);
    }
  }
  return true;
}

function fail(argv: string[], message: string | undefined, error: unknown): never {
  // Both undefined does not happen; an error that yargs did not make comes from a command.
  const ofYargs = !(error instanceof Error) || error.name === "YError" || message !== undefined;
  if (!ofYargs || error instanceof PandoError) throw error;
  const noun = NOUNS.find((known) => known === argv[0]);
  throw new UsageError("EINVAL", message || "the command is not complete", {
    hint: noun === undefined ? "pando --help" : `pando ${noun} --help`,
  });
}

function version(): string {
  const text = readFileSync(packagePath("package.json"), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
