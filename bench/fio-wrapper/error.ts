// Why a run gave no results. The message ends with fio's own words where it had any.

export type FioErrorKind =
  | "options" // ours to refuse: fio was not started
  | "missing" // there is no fio
  | "failed" // fio ended with an error, or one of its jobs did
  | "output"; // fio ended well and wrote something that is no result

export class FioError extends Error {
  override readonly name = "FioError";

  constructor(
    readonly kind: FioErrorKind,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}
