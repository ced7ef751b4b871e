// Finds the tests by their sources: one that was not built is then a failure, not an absence.
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";

export interface TestFile {
  /** For people and filters: `unit/crc32c`, `native/ring_test`. */
  name: string;
  language: "typescript" | "native";
  root: string;
  command: string;
  args: string[];
  timeoutMs: number;
  /** Alone on the machine: it needs all of it, or measures. */
  exclusive: boolean;
}

/** Where the C++ executables are, and whether only those run. */
export interface NativeBuild {
  directory: string;
  sanitizer: string | null;
}

const TIMEOUT_SECONDS = new Map([
  ["unit", 300],
  ["contract", 300],
  ["native", 300],
  ["crash", 600],
  ["model", 600],
  ["sim", 600],
  ["system", 900],
  ["csi", 900],
]);
const DEFAULT_TIMEOUT_SECONDS = 120;
/** How much slower a sanitizer makes a test, at worst. */
const SANITIZER_FACTOR = 5;
/** With two processors busy in one kernel, emulated. */
const EXCLUSIVE = new Set(["system/main-job", "system/share-nvmet"]);

export function discover(root: string, native: NativeBuild): TestFile[] {
  const files = nativeTests(root, native);
  if (native.sanitizer === null) files.push(...typescriptTests(root));
  // Quick ones first: a broken build shows at once. Exclusive ones last.
  return files.sort(
    (a, b) =>
      Number(a.exclusive) - Number(b.exclusive) ||
      a.timeoutMs - b.timeoutMs ||
      a.name.localeCompare(b.name),
  );
}

function typescriptTests(root: string): TestFile[] {
  const sources = readdirSync(join(root, "test"), { recursive: true, encoding: "utf8" });
  return sources
    .filter((source) => source.endsWith(".test.ts"))
    .map((source) => typescriptTest(root, source));
}

/** By its path in test/; of one that is run by hand, too. */
export function typescriptTest(root: string, source: string): TestFile {
  const kind = source.includes("/") ? (source.split("/")[0] ?? "") : "";
  const seconds = TIMEOUT_SECONDS.get(kind) ?? DEFAULT_TIMEOUT_SECONDS;
  const name = source.replace(/(\.test)?\.ts$/, "");
  return {
    name,
    language: "typescript",
    root,
    command: process.execPath,
    args: ["--enable-source-maps", join(root, "dist/test", source.replace(/\.ts$/, ".js"))],
    timeoutMs: seconds * 1000,
    exclusive: EXCLUSIVE.has(name),
  };
}

function nativeTests(root: string, build: NativeBuild): TestFile[] {
  const directory = join(root, "native/test");
  const factor = build.sanitizer === null ? 1 : SANITIZER_FACTOR;
  return readdirSync(directory)
    .filter((source) => source.endsWith("_test.cc"))
    .filter((source) => build.sanitizer !== "thread" || usesThreads(join(directory, source)))
    .map((source) => {
      const name = basename(source, ".cc");
      return {
        name: `native/${name}`,
        language: "native",
        root,
        command: join(build.directory, name),
        args: [],
        timeoutMs: (TIMEOUT_SECONDS.get("native") ?? 0) * 1000 * factor,
        exclusive: false,
      };
    });
}

/** A race needs a second thread: the others would only cost time under the thread sanitizer. */
function usesThreads(source: string): boolean {
  return /std::j?thread|std::async|pthread_create/.test(readFileSync(source, "utf8"));
}
