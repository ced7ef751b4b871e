// What callgrind and strace say, of which the bench takes one figure each.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseInstructions, parseSystemCalls } from "../../bench/subjects/counted-program.js";

const CALLGRIND = `==15126== Callgrind, a call-graph generating cache profiler
==15126== Events    : Ir
==15126== Collected : 21714862
==15126==
==15126== I   refs:      21,714,862
`;
const STRACE = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 98.10    0.045678          12      3801           io_uring_enter
  1.90    0.000881           4       211        13 openat
------ ----------- ----------- --------- --------- ----------------
100.00    0.046559          11      4012        13 total
`;

test("callgrind's count is that of all events", () => {
  assert.is(parseInstructions(CALLGRIND), 21714862);
  assert.throws(() => parseInstructions("valgrind: failed"), /counted nothing:\nvalgrind: failed/);
});

test("strace's count is its last line's, with errors or without, of any version", () => {
  assert.is(parseSystemCalls(STRACE), 4012);
  assert.is(parseSystemCalls(STRACE.replace("      13 total", "         total")), 4012);
  const older = STRACE.replace("0.046559          11 ", "0.046559             ");
  assert.is(parseSystemCalls(older), 4012);
  assert.throws(() => parseSystemCalls("strace: failed"), /counted nothing/);
});

test.run();
