// Typed access to the real fio: job options in, checked results out. See README.md.
export { FioError, type FioErrorKind } from "./error.js";
export { type FileTarget, type FioJob, jobFile, type NbdTarget, type Pattern } from "./job.js";
export {
  describeProgress,
  type FioProgress,
  parseProgress,
  terminalProgress,
} from "./progress.js";
export {
  type FioJobResult,
  type FioLane,
  type FioLatency,
  type FioResult,
  type FioSample,
  PERCENTILES,
  type Percentile,
  parseResult,
} from "./result.js";
export { type FioRunOptions, runFio } from "./run.js";
