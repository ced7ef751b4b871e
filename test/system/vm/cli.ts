// The VM by hand:
//
//     node dist/test/system/vm/cli.js run [--kernel 6.12|6.1] [--memory MIB] [--timeout SECONDS] \
//       -- 'commands'
//
// Boots, runs the commands as root, prints what they print, and ends with their status. The host's
// files are there read-only, its loopback is 10.0.2.2.
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type KernelName, kernels } from "./kernel.js";
import { vmSkipReason } from "./prerequisites.js";
import { bootVm } from "./vm.js";

const usage = `usage: cli.js run [--kernel ${Object.keys(kernels).join("|")}] [--memory MIB] \\
  [--timeout SECONDS] -- 'commands'`;

function fail(message: string): never {
  process.stderr.write(`error: ${message}\n${usage}\n`);
  process.exit(2);
}

function readArguments() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        kernel: { type: "string", default: "6.12" },
        memory: { type: "string", default: "3072" },
        timeout: { type: "string", default: "600" },
      },
    });
    const [verb, ...commands] = positionals;
    if (verb !== "run" || commands.length === 0) fail("say what to run");
    if (!(values.kernel in kernels)) fail(`no kernel ${values.kernel}`);
    return {
      kernel: values.kernel as KernelName,
      memoryMiB: Number(values.memory),
      timeoutMs: Number(values.timeout) * 1000,
      script: commands.join(" "),
    };
  } catch (error) {
    return fail((error as Error).message);
  }
}

const { kernel, memoryMiB, timeoutMs, script } = readArguments();
const reason = await vmSkipReason({ kernel });
if (reason !== null) {
  process.stderr.write(`error: this machine ${reason}\n`);
  process.exit(1);
}
const startedAt = performance.now();
const vm = await bootVm({ kernel, memoryMiB, name: "cli" });
process.stderr.write(`up after ${((performance.now() - startedAt) / 1000).toFixed(1)} s\n`);

const job = vm.start(script, { timeoutMs });
const shown = { stdout: 0, stderr: 0 };
async function showNews(): Promise<void> {
  for (const stream of ["stdout", "stderr"] as const) {
    const text = await job[stream]();
    process[stream].write(text.slice(shown[stream]));
    shown[stream] = text.length;
  }
}

let running = true;
const outcome = job.done
  .then(
    ({ status }) => status,
    (error: Error) => {
      process.stderr.write(`error: ${error.message.split("\n")[0]}\n`);
      return 1;
    },
  )
  .finally(() => {
    running = false;
  });
while (running) {
  await Promise.race([sleep(200), outcome]);
  await showNews();
}
await showNews();
process.exitCode = await outcome;
await vm.close();
