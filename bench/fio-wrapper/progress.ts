// What fio says while it runs: its status line, read, and shown on a terminal if there is one.

export interface FioProgress {
  /** 0 to 100, or null while fio does not know. */
  percent: number | null;
  /** Reads, writes and trims of the last second. */
  iops: number;
  secondsLeft: number | null;
}

/** Null if the line is not a status line. */
export function parseProgress(line: string): FioProgress | null {
  if (!/^Jobs: \d+ /.test(line)) return null;
  const percent = /\[(\d+(?:\.\d+)?)%\]/.exec(line)?.[1];
  const rates = /\[([^\]]*) IOPS\]/.exec(line)?.[1] ?? "";
  const eta = /\[eta ([^\]]+)\]/.exec(line)?.[1];
  return {
    percent: percent === undefined ? null : Number(percent),
    iops: rates.split(",").reduce((sum, rate) => sum + rateOf(rate), 0),
    secondsLeft: eta === undefined ? null : secondsOf(eta),
  };
}

/** `onProgress` of a run: one line on `stream`, written again and again. `clear` takes it away. */
export function terminalProgress(
  label: string,
  stream: NodeJS.WriteStream = process.stderr,
): { onProgress: (progress: FioProgress) => void; clear: () => void } {
  if (!stream.isTTY) return { onProgress: () => {}, clear: () => {} };
  const show = (text: string): void => {
    stream.write(`\r\x1b[K${text.slice(0, Math.max(20, stream.columns - 1))}`);
  };
  return {
    onProgress: (progress) => show(`${label}: ${describeProgress(progress)}`),
    clear: () => show(""),
  };
}

export function describeProgress({ percent, iops, secondsLeft }: FioProgress): string {
  const parts = [`${Math.round(iops)} IOPS`];
  if (percent !== null) parts.unshift(`${Math.floor(percent)} %`);
  if (secondsLeft !== null) parts.push(`${secondsLeft} s left`);
  return parts.join(", ");
}

/** `r=31.5k` */
function rateOf(text: string): number {
  const found = /=(\d+(?:\.\d+)?)([kMG]?)$/.exec(text.trim());
  if (found === null) return 0;
  const factor = { "": 1, k: 1e3, M: 1e6, G: 1e9 }[found[2] ?? ""] ?? 1;
  return Number(found[1]) * factor;
}

/** `1d:02h:03m:04s`, of which the first parts may be missing. */
function secondsOf(text: string): number | null {
  let seconds = 0;
  for (const part of text.split(":")) {
    const found = /^(\d+)([dhms])$/.exec(part);
    if (found === null) return null;
    seconds += Number(found[1]) * ({ d: 86_400, h: 3600, m: 60, s: 1 }[found[2] ?? ""] ?? 0);
  }
  return seconds;
}
