// What pando doctor looks at: this machine.
import { release } from "node:os";
import { native } from "../native/native.js";
import { examine, type Finding } from "../nvmf/doctor.js";

export function examineMachine(): Promise<Finding[]> {
  return examine({
    root: "/",
    kernel: release(),
    userId: process.getuid?.() ?? 0,
    ublkMissing: () => native.ublkMissing(),
    nbdIsLoaded: () => native.nbdIsLoaded(),
  });
}
