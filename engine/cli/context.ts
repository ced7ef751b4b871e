// What every command shares: the global options, and the way to the daemon.
import { loadConfig, readEnvironment } from "../base/config.js";
import type { Engine } from "../daemon.js";
import type { PandoClient } from "../serve/client.js";

export interface GlobalOptions {
  socket: string | undefined;
  /** Of a daemon with several: the name of one. */
  pool: string | undefined;
  config: string | undefined;
  json: boolean;
}

/** The engine is native code and a store: loaded by the commands that need it, and not before. */
export type LoadEngine = () => Promise<Engine>;

/**
 * Runs `work` with a client of the daemon that the options, the environment or the configuration
 * name.
 */
export async function withClient<T>(
  options: GlobalOptions,
  work: (client: PandoClient) => Promise<T>,
): Promise<T> {
  // Only here: what needs no daemon should not wait for gRPC to load.
  const { PandoClient } = await import("../serve/client.js");
  const client = new PandoClient(socketPath(options), options.pool ?? null);
  try {
    return await work(client);
  } finally {
    client.close();
  }
}

function socketPath(options: GlobalOptions): string {
  const environment = readEnvironment();
  const named = options.socket ?? environment.socket;
  // A configuration with a mistake in it must not keep anybody from a daemon that is named
  // otherwise.
  if (named !== undefined) return named;
  return loadConfig({ configPath: options.config, flags: {}, environment }).socket;
}
