// Assertions that stay on in production. A broken invariant is a bug: it must stop the work, not be
// handled.

export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}
