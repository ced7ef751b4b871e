// pando daemon (also installed as pandod): serves a pool until SIGINT or SIGTERM. Every flag is
// also a key of the configuration file.
import type { Argv } from "yargs";
import { loadConfig, readEnvironment, type Settings } from "../base/config.js";
import type { GlobalOptions, LoadEngine } from "./context.js";

export function addDaemon(yargs: Argv<GlobalOptions>, loadEngine: LoadEngine): Argv<GlobalOptions> {
  const text = (describe: string) => ({ type: "string", requiresArg: true, describe }) as const;
  return yargs.command(
    "daemon",
    "Serve a pool",
    (daemon) =>
      daemon
        .option("pool", text("The pool: a folder or device"))
        .option(
          "meta",
          text("The folder of its store, if it is not in the pool's folder or on its device"),
        )
        .option("nbd-socket", text("Unix socket of the NBD front end, or none"))
        .option("metrics", text("HOST:PORT of /metrics, /healthz, /readyz, or none"))
        .option("target", text("HOST:PORT[,HOST:PORT…] where the NVMe/TCP target listens, or none"))
        .option(
          "auth-hashes",
          text("Hashes that hosts may prove themselves with: sha512,sha384,sha256"),
        )
        .option("auth-groups", text("Diffie-Hellman groups for that: ffdhe3072,ffdhe2048,…,null"))
        .option("target-tls", text("Whether hosts may, or must, use TLS: off, allowed or required"))
        .option("target-connections", text("How many connections the target takes"))
        .option("target-host-connections", text("And of one host; half of them unless it is said"))
        .option("advertise", text("HOST:PORT[,HOST:PORT…] that hosts are told to connect to"))
        .option("api", text("HOST:PORT of the API on TCP, or none (the default)"))
        .option("api-certificate", text("PEM file: the daemon's certificate there"))
        .option("api-key", text("PEM file: its key"))
        .option("api-authority", text("PEM file: who signs the certificates of its clients"))
        .option("nvmet", text("HOST:PORT of the kernel's NVMe target, or none"))
        .option("nvmet-tls", text("Whether hosts must use TLS there: off or required"))
        .option("index-cache", text("Memory for index blocks"))
        .option("space-levels", text("Percent used at which each alarm begins, as in 80,90,95"))
        .option("discard", text("Whether the device gets free blocks back: auto, on or off"))
        .option("log-level", text("fatal, error, warn, info, debug or trace"))
        .example("$0 daemon --pool /srv/pando", "")
        .example("$0 daemon --config /etc/pando/pando.json --log-level debug", ""),
    async (args) => {
      const flags = given({
        pool: args.pool,
        meta: args.meta,
        socket: args.socket,
        nbdSocket: args.nbdSocket,
        metrics: args.metrics,
        target: args.target,
        advertise: args.advertise,
        nvmet: args.nvmet,
        nvmetTls: args.nvmetTls,
        authHashes: args.authHashes,
        targetTls: args.targetTls,
        targetConnections: args.targetConnections,
        targetHostConnections: args.targetHostConnections,
        authGroups: args.authGroups,
        api: args.api,
        apiCertificate: args.apiCertificate,
        apiKey: args.apiKey,
        apiAuthority: args.apiAuthority,
        indexCache: args.indexCache,
        spaceLevels: args.spaceLevels,
        discard: args.discard,
        logLevel: args.logLevel,
      });
      const environment = readEnvironment();
      const config = loadConfig({ configPath: args.config, flags, environment });
      const served = config.pools ?? [config];
      if (served.some(({ nvmet }) => nvmet !== null)) {
        const { separateMounts } = await import("../own-mounts.js");
        await separateMounts(environment);
      }
      const { runDaemon } = await import("../daemon.js");
      const { openPool } = await loadEngine();
      await runDaemon({ config, environment, openPool });
    },
  );
}

/** Without the flags that were not given, which would otherwise override the file with nothing. */
function given(
  flags: {
    [K in keyof Omit<Settings, "pools">]-?: string | undefined;
  },
): Settings {
  return Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined));
}
