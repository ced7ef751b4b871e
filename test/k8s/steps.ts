// Steps of `npm run test:k8s`, one after another, each with a line of its own.

export type Step = [name: string, run: () => void | Promise<void>];

export interface Outcome {
  passed: number;
  failed: number;
}

export async function runSteps(steps: Step[], outcome: Outcome): Promise<void> {
  for (const [name, run] of steps) {
    const startedAt = performance.now();
    try {
      await run();
      outcome.passed += 1;
      const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
      console.log(`ok    ${name} (${seconds} s)`);
    } catch (error) {
      outcome.failed += 1;
      const { message, details = "" } = error as { message: string; details?: string };
      console.log(`FAIL  ${name}\n${message}\n${details}`);
    }
  }
}
