// The kernel's target as its configfs folder behaves: which folders appear by themselves, which
// attributes may be written when, what a link pins. Modelled on Linux 6.12,
// drivers/nvme/target/configfs.c; errors carry the errno's name as those of node:fs do.
import type { FileCalls } from "../../nvmf/nvmet-configfs.js";

interface Entry {
  kind: "folder" | "attribute" | "link";
  /** Of an attribute its text, of a link its target. */
  value: string;
  /** Made by mkdir(2), not by the kernel: only these can be removed. */
  made: boolean;
}

const ROOT = "/nvmet";
const SUBSYSTEM = /^subsystems\/[^/]+$/;
const NAMESPACE = /^subsystems\/[^/]+\/namespaces\/[0-9]+$/;
const PORT = /^ports\/[0-9]+$/;
const HOST = /^hosts\/[^/]+$/;
const ALLOWED = /^(subsystems\/[^/]+)\/allowed_hosts\/[^/]+$/;
const LISTED = /^(ports\/[0-9]+)\/subsystems\/[^/]+$/;

export class FakeNvmet implements FileCalls {
  readonly root = ROOT;
  readonly #entries = new Map<string, Entry>();
  /** Device paths that can be opened. */
  readonly devices = new Set<string>();
  /** Subsystems that a host has seen: what identifies them cannot change any more. */
  readonly discovered = new Set<string>();
  /** Subsystems whose controllers were ended by leaving a port. */
  readonly disconnected: string[] = [];
  /** Whether its hosts can have keys. */
  authenticates = true;
  /** Whether its ports can demand TLS: as built, or as old as to know nothing of it. */
  tls: "built" | "not built" | "old" = "built";
  /** Subsystems whose device's size was looked at again. */
  readonly looked: string[] = [];
  /** Whether it can. */
  looks = true;
  /** Hosts that got keys while they could connect without. */
  readonly lateKeys: string[] = [];
  calls = 0;
  /** The call that fails, as a crash of the caller would; 0: none. */
  failAt = 0;

  constructor() {
    for (const path of ["", "subsystems", "ports", "hosts"]) this.#folder(path, false);
  }

  async mkdir(path: string): Promise<void> {
    const name = this.#enter(path);
    if (this.#entries.has(name)) throw errno("EEXIST", path);
    this.#need(parentOf(name));
    if (SUBSYSTEM.test(name)) {
      this.#folder(name, true);
      this.#attributes(name, {
        attr_model: "Linux",
        attr_serial: "0123456789abcdef0123",
        attr_allow_any_host: "0",
      });
      for (const folder of ["allowed_hosts", "namespaces"])
        this.#folder(`${name}/${folder}`, false);
    } else if (NAMESPACE.test(name)) {
      this.#folder(name, true);
      this.#attributes(name, {
        device_path: "",
        device_uuid: "00000000-0000-4000-8000-00000000fa4e",
        device_nguid: "00000000-0000-0000-0000-000000000000",
        ana_grpid: "1",
        enable: "0",
        revalidate_size: "",
      });
    } else if (PORT.test(name)) {
      this.#folder(name, true);
      this.#attributes(name, {
        addr_trtype: "",
        addr_adrfam: "",
        addr_traddr: "",
        addr_trsvcid: "",
        addr_treq: "not specified",
        ...(this.tls === "old" ? {} : { addr_tsas: "" }),
      });
      for (const folder of ["subsystems", "ana_groups", "ana_groups/1"]) {
        this.#folder(`${name}/${folder}`, false);
      }
      this.#attributes(`${name}/ana_groups/1`, { ana_state: "optimized" });
    } else if (HOST.test(name)) {
      this.#folder(name, true);
      if (this.authenticates) this.#attributes(name, { dhchap_key: "", dhchap_ctrl_key: "" });
    } else {
      throw errno("EPERM", path);
    }
  }

  async rmdir(path: string): Promise<void> {
    const name = this.#enter(path);
    const entry = this.#need(name);
    if (entry.kind !== "folder") throw errno("ENOTDIR", path);
    if (!entry.made) throw errno("EPERM", path);
    const inside = [...this.#entries].filter(([other]) => other.startsWith(`${name}/`));
    if (inside.some(([, { kind, made }]) => made || kind === "link"))
      throw errno("ENOTEMPTY", path);
    if (this.#linksTo(name)) throw errno("EBUSY", path);
    for (const [other] of inside) this.#entries.delete(other);
    this.#entries.delete(name);
    this.discovered.delete(name);
  }

  async readdir(path: string): Promise<string[]> {
    const name = this.#enter(path);
    this.#need(name);
    const prefix = name === "" ? "" : `${name}/`;
    return [...this.#entries.keys()]
      .filter((other) => other !== "" && other.startsWith(prefix))
      .map((other) => other.slice(prefix.length))
      .filter((rest) => rest !== "" && !rest.includes("/"));
  }

  async read(path: string): Promise<string> {
    return `${this.#need(this.#enter(path)).value}\n`;
  }

  async write(path: string, value: string): Promise<void> {
    const name = this.#enter(path);
    const entry = this.#need(name);
    const folder = parentOf(name);
    const attribute = name.slice(folder.length + 1);
    if (/^device_/.test(attribute) && this.#on(folder)) throw errno("EBUSY", path);
    if (/^addr_/.test(attribute) && (await this.readdir(`${ROOT}/${folder}/subsystems`)).length > 0)
      throw errno("EACCES", path);
    if (/^addr_(trtype|tsas|treq)$/.test(attribute)) this.#secure(folder, attribute, value);
    if (/^attr_(model|serial)$/.test(attribute) && this.discovered.has(folder)) {
      throw errno("EINVAL", path);
    }
    if (attribute === "attr_model" && value.length > 40) throw errno("EINVAL", path);
    if (attribute === "attr_serial" && value.length > 20) throw errno("EINVAL", path);
    if (attribute === "attr_allow_any_host" && value === "1") {
      const hosts = await this.readdir(`${ROOT}/${folder}/allowed_hosts`);
      if (hosts.length > 0) throw errno("EINVAL", path);
    }
    if (attribute === "revalidate_size") {
      if (!this.looks || !this.#on(folder)) throw errno("EINVAL", path);
      this.looked.push(folder.split("/")[1] ?? "");
      return;
    }
    if (attribute === "enable" && value === "1" && !this.#on(folder)) {
      const device = this.#value(`${folder}/device_path`);
      if (device === "") throw errno("EINVAL", path);
      if (!this.devices.has(device)) throw errno("ENOENT", path);
    }
    // What is no key is refused, so that one that is there stays for ever.
    if (/^dhchap_/.test(attribute) && !value.startsWith("DHHC-1:")) throw errno("EINVAL", path);
    if (/^dhchap_/.test(attribute) && entry.value === "" && this.#isLetIn(folder)) {
      this.lateKeys.push(folder);
    }
    entry.value = value;
  }

  async symlink(target: string, path: string): Promise<void> {
    const name = this.#enter(path);
    if (this.#entries.has(name)) throw errno("EEXIST", path);
    const to = target.slice(ROOT.length + 1);
    const [, subsystem] = ALLOWED.exec(name) ?? [];
    const [, port] = LISTED.exec(name) ?? [];
    if (subsystem !== undefined) {
      if (!HOST.test(to)) throw errno("EINVAL", path);
      this.#need(to);
      if (this.#value(`${subsystem}/attr_allow_any_host`) === "1") throw errno("EINVAL", path);
    } else if (port !== undefined) {
      if (!SUBSYSTEM.test(to)) throw errno("EINVAL", path);
      this.#need(to);
      this.#listen(port, path);
      this.discovered.add(to);
    } else {
      throw errno("EPERM", path);
    }
    this.#entries.set(name, { kind: "link", value: to, made: true });
  }

  async unlink(path: string): Promise<void> {
    const name = this.#enter(path);
    const entry = this.#need(name);
    if (entry.kind !== "link") throw errno("EPERM", path);
    this.#entries.delete(name);
    if (LISTED.test(name)) this.disconnected.push(entry.value.replace("subsystems/", ""));
  }

  /** Everything that there is, as text, but what `without` fits. */
  snapshot(without?: RegExp): string[] {
    return [...this.#entries]
      .filter(([name]) => without?.test(name) !== true)
      .map(([name, { kind, value }]) => `${name} ${kind} ${value}`)
      .sort();
  }

  /** What the port's other attributes are after one of these is written. */
  #secure(port: string, attribute: string, value: string): void {
    const set = (name: string, to: string) => {
      const entry = this.#entries.get(`${port}/${name}`);
      if (entry !== undefined) entry.value = to;
    };
    const tls = this.#value(`${port}/addr_tsas`) === "tls1.3";
    if (attribute === "addr_trtype") set("addr_tsas", "none");
    if (attribute === "addr_treq" && tls && value === "not specified") throw errno("EINVAL", port);
    if (attribute !== "addr_tsas") return;
    const known = value === "none" || (value === "tls1.3" && this.tls === "built");
    if (!known || this.#value(`${port}/addr_trtype`) !== "tcp") throw errno("EINVAL", port);
    if (value === "none") set("addr_treq", "not specified");
    else if (this.#value(`${port}/addr_treq`) === "not specified") set("addr_treq", "required");
  }

  /** The first subsystem of a port makes it listen. */
  #listen(port: string, path: string): void {
    const address = (of: string) =>
      ["addr_trtype", "addr_traddr", "addr_trsvcid"].map((name) => this.#value(`${of}/${name}`));
    const own = address(port);
    if (own.some((part) => part === "")) throw errno("EINVAL", path);
    const inUse = [...this.#entries].some(
      ([name, { kind }]) =>
        kind === "link" &&
        LISTED.test(name) &&
        !name.startsWith(`${port}/`) &&
        address(LISTED.exec(name)?.[1] ?? "").join() === own.join(),
    );
    if (inUse) throw errno("EADDRINUSE", path);
  }

  #linksTo(name: string): boolean {
    return [...this.#entries.values()].some(({ kind, value }) => kind === "link" && value === name);
  }

  /** On the list of a subsystem that is on a port. */
  #isLetIn(host: string): boolean {
    const links = [...this.#entries].filter(([, { kind }]) => kind === "link");
    return links.some(([list, { value }]) => {
      const subsystem = ALLOWED.exec(list)?.[1];
      return value === host && links.some(([at, to]) => LISTED.test(at) && to.value === subsystem);
    });
  }

  #on(namespace: string): boolean {
    return this.#value(`${namespace}/enable`) === "1";
  }

  #value(name: string): string {
    return this.#entries.get(name)?.value ?? "";
  }

  #need(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw errno("ENOENT", name);
    return entry;
  }

  #enter(path: string): string {
    if (++this.calls === this.failAt) throw new Error("crash");
    return path === ROOT ? "" : path.slice(ROOT.length + 1);
  }

  #folder(path: string, made: boolean): void {
    this.#entries.set(path, { kind: "folder", value: "", made });
  }

  #attributes(folder: string, values: Record<string, string>): void {
    for (const [name, value] of Object.entries(values)) {
      this.#entries.set(`${folder}/${name}`, { kind: "attribute", value, made: false });
    }
  }
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/")));
}

function errno(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
