#!/usr/bin/env node
// The command `pando-csi`: the CSI driver, as controller, as node plugin, or as both in one.
import yargs from "yargs";
import { isPandoError } from "../engine/base/errors.js";
import { type Flags, loadCsiConfig } from "./config.js";
import { startDriver } from "./driver.js";

process.exitCode = await main();

async function main(): Promise<number> {
  try {
    const { config: path, ...flags } = await readArguments();
    const driver = await startDriver(loadCsiConfig(path, flags));
    await new Promise<void>((resolve) => {
      process.once("SIGINT", () => resolve());
      process.once("SIGTERM", () => resolve());
    });
    await driver.close();
    return 0;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    process.stderr.write(`error: ${message.replace(/\s+/g, " ")}\n`);
    const hint = isPandoError(error) ? error.context.hint : undefined;
    if (hint !== undefined) process.stderr.write(`  try: ${hint}\n`);
    return 1;
  }
}

async function readArguments(): Promise<Flags & { config?: string }> {
  const text = (describe: string) => ({ type: "string", requiresArg: true, describe }) as const;
  const args = await yargs(process.argv.slice(2))
    .scriptName("pando-csi")
    .usage("$0 [OPTIONS]\n\nThe CSI driver of Pando.")
    .option("config", text("Its configuration, a JSON file: storageNodes, tls, and these options"))
    .option("mode", text("controller, node or all (the default)"))
    .option("endpoint", text("The Unix socket to serve on"))
    .option("driver-name", text("The name in CSIDriver and StorageClass"))
    .option("host-nqn", text("Who this compute node is, if not what /etc/nvme/hostnqn says"))
    .option("tls-key-file", text("This compute node's TLS key: connect over TLS or not at all"))
    .option("max-volumes-per-node", text("How many volumes a compute node may have, or none"))
    .option("topology", text("none (the default), or zone: new volumes go near their pods"))
    .option("zone", text("Where this compute node is, if new volumes go near their pods"))
    .option("log-level", text("fatal, error, warn, info, debug or trace"))
    .example("$0 --config /etc/pando/csi.json --mode controller", "")
    .example("$0 --mode node --endpoint unix:///csi/csi.sock", "")
    .strict()
    .version(false)
    .help()
    .wrap(100)
    .exitProcess(false)
    .fail((message, error) => {
      throw error ?? new Error(message);
    })
    .parseAsync();
  const { config, mode, endpoint, driverName, hostNqn, tlsKeyFile, maxVolumesPerNode } = args;
  const { topology, zone, logLevel } = args;
  if (args.help === true) process.exit(0);
  const node = { hostNqn, tlsKeyFile, maxVolumesPerNode, topology, zone };
  const flags = { config, mode, endpoint, driverName, ...node, logLevel };
  return Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined));
}
