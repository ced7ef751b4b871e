// Steps of a long test, each with the time that it took, so that a slow or hanging one shows in the
// log.

const startedAt = performance.now();

/** Runs a step and prints its name and duration. A step that fails prints why. */
export async function timed<T>(name: string, step: () => Promise<T>): Promise<T> {
  const stepStartedAt = performance.now();
  const print = (mark: string) => {
    const now = performance.now();
    console.log(`${seconds(now - startedAt)}  ${mark}${seconds(now - stepStartedAt)}  ${name}`);
  };
  try {
    const result = await step();
    print("+");
    return result;
  } catch (error) {
    print("failed after ");
    console.log((error as Error).message);
    throw error;
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1).padStart(6)} s`;
}
