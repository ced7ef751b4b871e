// The kernel's target as configfs shows it: reads the whole of it, and takes single steps. The root
// is passed in; who is in it besides us is for the plan to know.
//
// A step is idempotent: what is there already, or gone already, is well. Entries may come and go
// while this reads; one that goes is as if it had never been there.
import { constants } from "node:fs";
import { mkdir, readdir, readFile, rmdir, symlink, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PandoError } from "../engine/base/errors.js";
import { Deadline } from "./bounded.js";
import type { Step } from "./nvmet-plan.js";
import {
  ANA_GROUP,
  type HostSecrets,
  type NamespaceState,
  type NvmetState,
  type PortState,
  type SubsystemState,
} from "./nvmet-state.js";

/** Where configfs is mounted on every Linux, and nvmet's folder in it. */
export const NVMET_ROOT = "/sys/kernel/config/nvmet";

/** The calls of the file system, so that a test can have a kernel of its own behind them. */
export interface FileCalls {
  mkdir(path: string): Promise<unknown>;
  rmdir(path: string): Promise<void>;
  readdir(path: string): Promise<string[]>;
  read(path: string): Promise<string>;
  write(path: string, value: string): Promise<void>;
  symlink(target: string, path: string): Promise<void>;
  unlink(path: string): Promise<void>;
}

const nodeCalls: FileCalls = {
  mkdir,
  rmdir,
  readdir,
  symlink,
  unlink,
  read: (path) => readFile(path, "utf8"),
  // An attribute is there or not; nothing is ever created by writing. Some cannot be read.
  write: (path, value) => writeFile(path, value, { flag: constants.O_WRONLY }),
};

export interface ConfigFs {
  /** Names in a folder; none if it is not there. */
  list(path: string): Promise<string[]>;
  /** An attribute without its line's end; null if it is not there. */
  read(path: string): Promise<string | null>;
  take(step: Step): Promise<void>;
}

/** As when a namespace is disabled whose device answers nothing. */
const STEP_TIMEOUT_MS = 60_000;

class StuckError extends Error {}

export function configFs(
  root: string,
  calls: FileCalls = nodeCalls,
  stepTimeoutMs = STEP_TIMEOUT_MS,
): ConfigFs {
  return {
    list: async (path) => (await calls.readdir(join(root, path)).catch(absent)) ?? [],
    async read(path) {
      const text = await calls.read(join(root, path)).catch(absent);
      return text === null ? null : text.replace(/\n$/, "");
    },
    async take(step) {
      try {
        const taken = takeStep(calls, root, step);
        await new Deadline(stepTimeoutMs).bound(taken, () => new StuckError());
      } catch (cause) {
        if (cause instanceof StuckError) throw stuckError(step);
        if (!isDone(step, errorCode(cause))) throw stepError(step, cause);
      }
    },
  };
}

export async function readNvmet(files: ConfigFs): Promise<NvmetState> {
  const [subsystems, ports, hosts] = await Promise.all([
    readAll(files, "subsystems", readSubsystem),
    readAll(files, "ports", readPort),
    readAll(files, "hosts", readHost),
  ]);
  return {
    subsystems,
    ports: new Map([...ports].map(([number, port]) => [Number(number), port])),
    hosts,
  };
}

/** A kernel without authentication has no such attributes. */
async function readHost(files: ConfigFs, path: string): Promise<HostSecrets | null> {
  const hostKey = (await files.read(`${path}/dhchap_key`)) ?? "";
  const controllerKey = (await files.read(`${path}/dhchap_ctrl_key`)) ?? "";
  if (hostKey === "") return null;
  return { hostKey, controllerKey: controllerKey === "" ? null : controllerKey };
}

async function readSubsystem(files: ConfigFs, path: string): Promise<SubsystemState> {
  const [model, serial, anyHost, hosts, namespaces] = await Promise.all([
    files.read(`${path}/attr_model`),
    files.read(`${path}/attr_serial`),
    files.read(`${path}/attr_allow_any_host`),
    files.list(`${path}/allowed_hosts`),
    readAll(files, `${path}/namespaces`, readNamespace),
  ]);
  return {
    model: model ?? "",
    serial: serial ?? "",
    allowAnyHost: anyHost === "1",
    hosts: new Set(hosts),
    namespaces: new Map([...namespaces].map(([number, state]) => [Number(number), state])),
  };
}

async function readNamespace(files: ConfigFs, path: string): Promise<NamespaceState> {
  const read = async (name: string) => (await files.read(`${path}/${name}`)) ?? "";
  const [devicePath, uuid, nguid, group, enabled] = await Promise.all([
    read("device_path"),
    read("device_uuid"),
    read("device_nguid"),
    read("ana_grpid"),
    read("enable"),
  ]);
  return { devicePath, uuid, nguid, anaGroup: Number(group), enabled: enabled === "1" };
}

async function readPort(files: ConfigFs, path: string): Promise<PortState> {
  const read = async (name: string) => (await files.read(`${path}/${name}`)) ?? "";
  const [trtype, adrfam, traddr, trsvcid, subsystems] = await Promise.all([
    read("addr_trtype"),
    read("addr_adrfam"),
    read("addr_traddr"),
    read("addr_trsvcid"),
    files.list(`${path}/subsystems`),
  ]);
  const [security, requirement, anaState] = await Promise.all([
    files.read(`${path}/addr_tsas`),
    files.read(`${path}/addr_treq`),
    files.read(`${path}/ana_groups/${ANA_GROUP}/ana_state`),
  ]);
  const address = { trtype, adrfam, traddr, trsvcid };
  return { ...address, security, requirement, anaState, subsystems: new Set(subsystems) };
}

async function readAll<T>(
  files: ConfigFs,
  path: string,
  read: (files: ConfigFs, path: string) => Promise<T>,
): Promise<Map<string, T>> {
  const names = await files.list(path);
  const entries = names.map(async (name) => [name, await read(files, `${path}/${name}`)] as const);
  return new Map(await Promise.all(entries));
}

async function takeStep(calls: FileCalls, root: string, step: Step): Promise<void> {
  const path = join(root, step.path);
  switch (step.verb) {
    case "mkdir":
      return void (await calls.mkdir(path));
    case "rmdir":
      return calls.rmdir(path);
    case "write":
      return calls.write(path, step.value);
    case "unlink":
      return calls.unlink(path);
    case "link":
      // configfs takes absolute targets only.
      return calls.symlink(join(root, step.target), path);
  }
}

function isDone(step: Step, code: string | undefined): boolean {
  switch (step.verb) {
    case "mkdir":
    case "link":
      return code === "EEXIST";
    case "unlink":
      return code === "ENOENT";
    case "rmdir":
      return code === "ENOENT" || (step.shared && (code === "EBUSY" || code === "ENOTEMPTY"));
    case "write":
      // A namespace that has gone is as disabled as can be.
      return code === "ENOENT" && step.path.endsWith("/enable") && step.value === "0";
  }
}

function stepError(step: Step, cause: unknown): PandoError {
  const code = errorCode(cause);
  const { path } = step;
  const enabling = step.verb === "write" && path.endsWith("/enable");
  if (step.verb === "link" && code === "EADDRINUSE") {
    return new PandoError("EBUSY", "the address of nvmet's port is in use", {
      field: "nvmet",
      hint: "choose another one with --nvmet HOST:PORT",
    });
  }
  if (step.verb === "link" && code === "EADDRNOTAVAIL") {
    const hint = "name an address of this machine with --nvmet HOST:PORT";
    return new PandoError("EINVAL", "nvmet's port cannot have that address", {
      field: "nvmet",
      hint,
    });
  }
  if (code === "EACCES" || code === "EPERM" || code === "EROFS") {
    const hint = "the daemon has to run as root for this";
    return new PandoError("EPERM", `nvmet refuses ${path}`, { path, hint }, { cause });
  }
  if (path.endsWith("/addr_tsas") && (code === "ENOENT" || code === "EINVAL")) {
    return new PandoError("EINVAL", "nvmet of this kernel has no TLS", {
      field: "nvmetTls",
      hint: "it takes Linux 6.7 or newer with CONFIG_NVME_TARGET_TCP_TLS, or --nvmet-tls off",
    });
  }
  if (enabling && (code === "ENOENT" || code === "ENXIO" || code === "ENODEV")) {
    return new PandoError("EIO", `nvmet does not find the device of ${path}`, { path }, { cause });
  }
  if (/\/dhchap_[a-z_]*key$/.test(path)) {
    // Never with the cause's text: nobody knows what a kernel puts into it.
    if (code !== "ENOENT") return new PandoError("EIO", `nvmet refuses a key: ${path}`, { path });
    return new PandoError("EINVAL", "nvmet of this kernel cannot check keys", {
      path,
      hint: "it takes Linux 6.0 or newer with CONFIG_NVME_TARGET_AUTH",
    });
  }
  const doing = step.verb === "write" ? `writing ${step.value} to` : step.verb;
  return new PandoError("EIO", `nvmet: ${doing} ${path}: ${code ?? cause}`, { path }, { cause });
}

/** The kernel goes on with it; the next look shows whether it came to an end. */
function stuckError({ verb, path }: Step): PandoError {
  return new PandoError("EBUSY", `nvmet does not come to an end: ${verb} ${path}`, {
    path,
    hint: "it waits for requests that its device does not answer; look at the kernel's log",
  });
}

function absent(error: unknown): null {
  const code = errorCode(error);
  // ENODEV is what an attribute answers whose entry is being removed.
  if (code === "ENOENT" || code === "ENODEV") return null;
  throw new PandoError(
    "EIO",
    `cannot read nvmet's configuration: ${code ?? error}`,
    {},
    {
      cause: error,
    },
  );
}

function errorCode(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : undefined;
}
