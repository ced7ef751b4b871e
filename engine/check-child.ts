// Has a pool's store checked by a process of its own (check-process.ts), so that no damage to it
// can end this one. However that process ends, there is a report or one clear error; one that shows
// no sign of life is ended.
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { systemClock } from "./base/clock.js";
import { PandoError } from "./base/errors.js";
import type { CheckMessage } from "./check-messages.js";
import type { CheckReport } from "./core/api.js";
import type { CheckStore } from "./core/check.js";

const PROGRAM = fileURLToPath(new URL("./check-process.js", import.meta.url));
/** Without a sign of life. */
const PATIENCE_MS = 60_000;
const STDERR_BYTES = 4096;

/** A pool that nobody serves; the caller holds its lock. Nothing is written. */
export async function checkPoolInChild(place: {
  meta: string;
  data: string;
}): Promise<CheckReport> {
  const child = new CheckChild(place.meta, [place.data]);
  try {
    return await child.report;
  } finally {
    await child.end();
  }
}

/** For a pool in service: the store alone, as `fixed` lets it be. */
export function storeCheckInChild(meta: string, forgetDeadReaders: () => void): CheckStore {
  return async (_store, fixed) => {
    const child = new CheckChild(meta, []);
    try {
      await child.ready;
      await fixed(() => child.begin());
      return await child.report;
    } finally {
      await child.end();
      forgetDeadReaders();
    }
  };
}

class CheckChild {
  readonly ready: Promise<void>;
  readonly report: Promise<CheckReport>;
  readonly #meta: string;
  readonly #process: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #begun: Promise<void>;
  #heard = true;
  #silent = false;
  /** What it was about to read. */
  #at = "its file";
  #rest = "";
  #stderr = "";

  constructor(meta: string, args: string[]) {
    this.#meta = meta;
    this.#process = spawn(process.execPath, [PROGRAM, meta, ...args], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    const ready = settable<void>();
    const begun = settable<void>();
    const report = settable<CheckReport>();
    const ended = settable<void>();
    const fail = (error: PandoError): void => {
      for (const one of [ready, begun, report]) one.reject(error);
    };
    const stopWatch = systemClock.every(PATIENCE_MS, () => {
      this.#silent = !this.#heard;
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
        else if ("report" in message) report.resolve(message.report);
        else if ("error" in message) {
          const { code, message: sentence, context } = message.error;
          fail(new PandoError(code, sentence, context));
        }
      }
    });
    this.#process.once("error", (cause) => {
      close(new PandoError("EIO", `the check does not start: ${cause.message}`, {}, { cause }));
    });
    this.#process.once("close", (code, signal) => close(this.#death(code, signal)));
    this.ready = ready.promise;
    this.report = report.promise;
    this.#begun = begun.promise;
    this.#ended = ended.promise;
  }

  /** Settles when what is checked is fixed. */
  begin(): Promise<void> {
    this.#process.stdin?.end("\n");
    return this.#begun;
  }

  /** It is gone when this settles. */
  end(): Promise<void> {
    this.#process.kill("SIGKILL");
    return this.#ended;
  }

  #messages(text: string): CheckMessage[] {
    this.#heard = true;
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    return lines.map((line) => JSON.parse(line) as CheckMessage);
  }

  #death(code: number | null, signal: NodeJS.Signals | null): PandoError {
    const context = {
      path: this.#meta,
      field: this.#at,
      hint: "if its file is damaged: restore the pool's meta folder from a backup",
    };
    const where = `store: ${this.#meta}: the process that checks it`;
    if (this.#silent) {
      const message = `${where} has stopped at ${this.#at}, and was ended`;
      return new PandoError("EIO", message, context);
    }
    const said = this.#stderr.trim().split("\n")[0] ?? "";
    const how = `${signal ?? `exit code ${code}`}${said === "" ? "" : `: ${said}`}`;
    return new PandoError("ECORRUPT", `${where} died reading ${this.#at} (${how})`, context);
  }
}

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
