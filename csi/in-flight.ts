// One call at a time for each volume, snapshot or name. Kubernetes may forget that it has asked and
// ask again: the second call is told to come back, and nothing is done twice at once.
import { status } from "@grpc/grpc-js";
import { CsiError } from "./errors.js";

export class InFlight {
  readonly #keys = new Set<string>();

  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    if (this.#keys.has(key)) {
      throw new CsiError(status.ABORTED, `another call is at work on ${key}: try again`);
    }
    this.#keys.add(key);
    try {
      return await work();
    } finally {
      this.#keys.delete(key);
    }
  }
}
