// A time limit on a promise.

/**
 * The promise's value; or, once the time is over, the error that `late` makes, whatever the promise
 * does meanwhile.
 */
export function within<T>(
  promise: Promise<T>,
  timeoutMs: number,
  late: () => Promise<Error>,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      late().then(reject, reject);
    }, timeoutMs);
    promise
      .then(
        (value) => isLate || resolve(value),
        (error: unknown) => isLate || reject(error),
      )
      .finally(() => clearTimeout(timer));
  });
}
