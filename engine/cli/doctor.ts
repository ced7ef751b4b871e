// pando doctor: what this machine can serve, and what is missing. Exit code 0 whenever the report
// could be made: it is a report, not a test.
import type { Argv } from "yargs";
import type { GlobalOptions, LoadEngine } from "./context.js";
import { formatTable, printResult } from "./print.js";

export function addDoctor(yargs: Argv<GlobalOptions>, loadEngine: LoadEngine): Argv<GlobalOptions> {
  return yargs.command(
    "doctor",
    "Say what this machine can serve, what is missing, and the command that mends it",
    (doctor) => doctor.example("$0 doctor", "").example("$0 doctor --json", ""),
    async (args) => {
      const { examineMachine } = await loadEngine();
      const findings = await examineMachine();
      printResult(args, findings, () =>
        formatTable(
          ["WHAT", "OK", "FOUND", "TRY"],
          findings.map(({ what, ok, found, remedy }) => [
            what,
            ok ? "yes" : "no",
            found,
            remedy ?? "-",
          ]),
        ),
      );
    },
  );
}
