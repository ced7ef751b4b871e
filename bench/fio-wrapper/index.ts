// Typed access to the real fio: job options in, checked results out.
//
//   const { jobs } = await runFio([{ name: "a", target: { engine: "psync", path }, … }], {});
//   console.log(jobs[0].read.iops, jobs[0].read.latency.percentilesUs[99]);
export { FioError, type FioErrorKind } from "./error.js";
export { type FileTarget, type FioJob, jobFile, type NbdTarget, type Pattern } from "./job.js";
export {
  type FioJobResult,
  type FioLane,
  type FioLatency,
  type FioResult,
  PERCENTILES,
  type Percentile,
  parseResult,
} from "./result.js";
export { type FioRunOptions, runFio } from "./run.js";
