// Requests that the device has failed. The host of each was told with its answer; this tells the
// operator, in the log, of all since the last look.
import type { Log } from "../base/log.js";

export class DeviceErrors {
  readonly #log: Log;
  #told = 0;

  constructor(log: Log) {
    this.#log = log;
  }

  /** `count`: requests of volumes that have ended with an error of the device, since the start. */
  watch(count: number): void {
    if (count === this.#told) return;
    const requests = count - this.#told;
    this.#told = count;
    this.#log.error({ requests }, "the device has failed requests; their hosts were told");
  }
}
