// Starts workers and listens to them: a seed has failed if its run says so, or if its process dies
// or falls silent in the middle of it.
import { fork } from "node:child_process";
import type { Summary } from "./run.js";
import type { Job, News } from "./worker.js";

export interface Failure {
  seed: number;
  error: string;
  /** Unknown if the process has died. */
  summary: Summary | null;
}

const WORKER = new URL("./worker.js", import.meta.url).pathname;
/** A run takes seconds; on a busy machine, with many cuts on trial, minutes. */
const SILENCE_MS = 900_000;
const LAST_WORDS = 4000;

/** Runs the seeds of a job until one fails; null: none has. */
export function runJob(job: Job, onNews: (news: News) => void): Promise<Failure | null> {
  return new Promise((resolve) => {
    let seed = job.first;
    let failure: Failure | null = null;
    let lastWords = "";
    let hangs = false;
    const child = fork(WORKER, [JSON.stringify(job)], {
      execArgv: ["--enable-source-maps"],
      stdio: ["ignore", "inherit", "pipe", "ipc"],
    });
    const watch = setTimeout(() => {
      hangs = true;
      child.kill("SIGKILL");
    }, SILENCE_MS);
    child.stderr?.on("data", (data: Buffer) => {
      lastWords = (lastWords + data.toString()).slice(-LAST_WORDS);
    });
    child.on("message", (message) => {
      watch.refresh();
      const news = message as News;
      if (news.type === "begin") seed = news.seed;
      if (news.type === "failed") failure = news;
      onNews(news);
    });
    child.on("close", (code, signal) => {
      clearTimeout(watch);
      const how = hangs ? "it hangs" : `the process ends with ${signal ?? `exit code ${code}`}`;
      const died = code === 0 ? null : { seed, error: `${how}\n${lastWords}`, summary: null };
      resolve(failure ?? died);
    });
  });
}
