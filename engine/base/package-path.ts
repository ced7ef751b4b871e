// Files that are used as they are in the source tree, because the compiler copies nothing but
// TypeScript.
import { fileURLToPath } from "node:url";

/** `relative` is from the package's root. */
export function packagePath(relative: string): string {
  // dist/engine/base/package-path.js -> the root
  return fileURLToPath(new URL(`../../../${relative}`, import.meta.url));
}
