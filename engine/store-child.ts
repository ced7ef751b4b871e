// Has a pool's store read by a process of its own (store-process.ts), so that no damage to it can
// end this one. However that process ends, there is an answer or one clear error; one that shows no
// sign of life is ended.
import { type ChildProcess, spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { systemClock } from "./base/clock.js";
import { PandoError } from "./base/errors.js";
import type { CheckReport } from "./core/api.js";
import type { InspectItem } from "./core/inspect.js";
import type { RepairReport } from "./core/repair.js";
import type { StoreMessage } from "./store-messages.js";

export const STORE_PROGRAM = fileURLToPath(new URL("./store-process.js", import.meta.url));
/** Without a sign of life. */
const PATIENCE_MS = 60_000;
const STDERR_BYTES = 4096;
const MANY_ITEMS = 1024;

export class StoreChild {
  readonly ready: Promise<void>;
  readonly report: Promise<CheckReport>;
  readonly repaired: Promise<RepairReport>;
  readonly #meta: string;
  readonly #process: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #begun: Promise<void>;
  readonly #done: Promise<void>;
  #heard = true;
  #silent = false;
  /** What it was about to read. */
  #at = "its file";
  #rest = "";
  #stderr = "";

  /** Items that nobody has taken yet; while there are many, the process waits. */
  #items: InspectItem[] = [];
  #wake: () => void = () => undefined;

  /** `meta` is for the errors. */
  constructor(meta: string, args: string[], program = STORE_PROGRAM) {
    this.#meta = meta;
    this.#process = spawn(process.execPath, [program, ...args], {
      stdio: ["pipe", "pipe", "pipe", "pipe"],
    });
    const ready = settable<void>();
    const begun = settable<void>();
    const report = settable<CheckReport>();
    const repaired = settable<RepairReport>();
    const done = settable<void>();
    const ended = settable<void>();
    const fail = (error: PandoError): void => {
      for (const one of [ready, begun, report, repaired, done]) one.reject(error);
      this.#wake();
    };
    const stopWatch = systemClock.every(PATIENCE_MS, () => {
      this.#silent = !this.#heard && this.#process.stdout?.isPaused() !== true;
      this.#heard = false;
      if (this.#silent) this.#process.kill("SIGKILL");
    });
    const close = (error: PandoError): void => {
      stopWatch();
      fail(error);
      ended.resolve();
    };
    this.#process.stdin?.on("error", () => undefined);
    this.#process.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(0, STDERR_BYTES);
    });
    this.#process.stdout?.setEncoding("utf8").on("data", (text: string) => {
      for (const message of this.#messages(text)) {
        if ("ready" in message) ready.resolve();
        else if ("begun" in message) begun.resolve();
        else if ("at" in message) this.#at = message.at;
        else if ("item" in message) this.#add(message.item);
        else if ("done" in message) done.resolve();
        else if ("report" in message) report.resolve(message.report);
        else if ("repaired" in message) repaired.resolve(message.repaired);
        else if ("error" in message) {
          const { code, message: sentence, context } = message.error;
          fail(new PandoError(code, sentence, context));
        }
      }
    });
    this.#process.once("error", (cause) => {
      close(
        new PandoError(
          "EIO",
          `the process that reads the store does not start: ${cause.message}`,
          {},
          { cause },
        ),
      );
    });
    this.#process.once("close", (code, signal) => close(this.#death(code, signal)));
    this.ready = ready.promise;
    this.report = report.promise;
    this.repaired = repaired.promise;
    this.#begun = begun.promise;
    this.#done = done.promise;
    this.#ended = ended.promise;
  }

  /** Settles when what is checked is fixed. */
  begin(text = ""): Promise<void> {
    this.#process.stdin?.end(`${text}\n`);
    return this.#begun;
  }

  /** Until all is said; what is not taken is not asked for. */
  async *items(): AsyncGenerator<InspectItem[]> {
    let isDone = false;
    const finish = () => {
      isDone = true;
      this.#wake();
    };
    this.#done.then(finish, finish);
    for (;;) {
      const batch = this.#items;
      this.#items = [];
      this.#process.stdout?.resume();
      if (batch.length > 0) yield batch;
      else if (isDone) break;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    await this.#done;
  }

  /** What it writes on file descriptor 3; an error unless it then says that this was all. */
  async *bytes(): AsyncGenerator<Uint8Array> {
    const stream = this.#process.stdio[3] as Readable;
    for await (const chunk of stream) {
      this.#heard = true;
      yield chunk as Uint8Array;
    }
    await this.#done;
  }

  /** It is gone when this settles. */
  end(): Promise<void> {
    this.#process.kill("SIGKILL");
    return this.#ended;
  }

  #add(item: InspectItem): void {
    this.#items.push(item);
    if (this.#items.length >= MANY_ITEMS) this.#process.stdout?.pause();
    this.#wake();
  }

  #messages(text: string): StoreMessage[] {
    this.#heard = true;
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    return lines.map((line) => JSON.parse(line) as StoreMessage);
  }

  #death(code: number | null, signal: NodeJS.Signals | null): PandoError {
    const context = {
      path: this.#meta,
      field: this.#at,
      hint: "if its file is damaged: restore the pool's meta folder from a backup",
    };
    const where = `store: ${this.#meta}: the process that reads it`;
    if (this.#silent) {
      const message = `${where} has stopped at ${this.#at}, and was ended`;
      return new PandoError("EIO", message, context);
    }
    const said = this.#stderr.trim().split("\n")[0] ?? "";
    const how = `${signal ?? `exit code ${code}`}${said === "" ? "" : `: ${said}`}`;
    return new StoreDeath("ECORRUPT", `${where} died reading ${this.#at} (${how})`, context);
  }
}

/** LMDB has ended the process by what it found in its file. */
export class StoreDeath extends PandoError {}

interface Settable<T> {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: PandoError) => void;
}

function settable<T>(): Settable<T> {
  let settle: Pick<Settable<T>, "resolve" | "reject"> | undefined;
  const promise = new Promise<T>((resolve, reject) => {
    settle = { resolve, reject };
  });
  // Whoever waits hears of it; nobody may be waiting.
  promise.catch(() => undefined);
  if (settle === undefined) throw new Error("a promise runs its executor at once");
  return { promise, ...settle };
}
