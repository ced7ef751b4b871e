// How far a long command has come: one line on the terminal, rewritten in place; nothing where
// there is no terminal.
import { formatSize } from "../base/size.js";

const REDRAW_MS = 200;
const BAR_COLUMNS = 24;

export class Progress {
  readonly #totalBytes: number;
  readonly #began = Date.now();
  #drawn = 0;
  #movedBytes = 0;

  constructor(totalBytes: number) {
    this.#totalBytes = totalBytes;
  }

  /** `atBytes`: how much of the whole is dealt with; `movedBytes`: data that it took, more now. */
  show(atBytes: number, movedBytes: number): void {
    this.#movedBytes += movedBytes;
    if (!process.stderr.isTTY || Date.now() - this.#drawn < REDRAW_MS) return;
    this.#drawn = Date.now();
    const part = this.#totalBytes === 0 ? 1 : Math.min(1, atBytes / this.#totalBytes);
    const filled = Math.floor(part * BAR_COLUMNS);
    const bar = "#".repeat(filled).padEnd(BAR_COLUMNS, ".");
    const percent = String(Math.floor(part * 100)).padStart(3);
    const seconds = Math.max(0.001, (Date.now() - this.#began) / 1000);
    const speed = formatSize(this.#movedBytes / seconds);
    process.stderr.write(
      `\r\x1b[K${bar} ${percent} %  ${formatSize(this.#movedBytes)}  ${speed}/s`,
    );
  }

  /** Clears the line: what comes next is the result, or the error. */
  end(): void {
    if (process.stderr.isTTY && this.#drawn > 0) process.stderr.write("\r\x1b[K");
  }
}
