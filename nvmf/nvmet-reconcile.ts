// Brings the kernel's target to what the catalogue wants, from whatever it finds there: after a
// restart of the daemon nothing is to be done, after one of the machine everything, after a crash
// the rest.
//
// There is one writer: calls run one after another. Others may change the same configuration
// meanwhile, so what was done is read again; a plan that does not become empty is an error with its
// first step, not a loop.
import { PandoError } from "../engine/base/errors.js";
import { Mutex } from "../engine/core/mutex.js";
import { type ConfigFs, readNvmet } from "./nvmet-configfs.js";
import { planNvmet, type Step } from "./nvmet-plan.js";
import type { DesiredState, NvmetState } from "./nvmet-state.js";

/** Keys forgotten, ports left, the rest, and a look that finds nothing; one for others' changes. */
const MAX_ROUNDS = 5;

export class NvmetReconciler {
  readonly #files: ConfigFs;
  readonly #turn = new Mutex();

  constructor(files: ConfigFs) {
    this.#files = files;
  }

  read(): Promise<NvmetState> {
    return this.#turn.run(() => readNvmet(this.#files));
  }

  /** Resolves with the number of steps when configfs is as desired. */
  reconcile(desired: DesiredState): Promise<number> {
    return this.#turn.run(async () => {
      let taken = 0;
      let steps: Step[] = [];
      for (let round = 0; round < MAX_ROUNDS; round++) {
        steps = planNvmet(await readNvmet(this.#files), desired);
        if (steps.length === 0) return taken;
        for (const step of steps) await this.#files.take(step);
        taken += steps.length;
      }
      const [first] = steps;
      throw new PandoError(
        "EBUSY",
        `nvmet's configuration does not stay as it is made: ${first?.verb} ${first?.path}`,
        { path: first?.path ?? "", hint: "is another program changing it too?" },
      );
    });
  }
}
