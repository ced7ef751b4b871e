// What the operator is told of a device that fails requests: each once.
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Log } from "../../engine/base/log.js";
import { DeviceErrors } from "../../engine/core/device-errors.js";

test("what has failed since the last look is told, and only then", () => {
  const told: unknown[] = [];
  const error = (fields: { requests: number }, text: string) => told.push([fields.requests, text]);
  const errors = new DeviceErrors({ error } as unknown as Log);
  const text = "the device has failed requests; their hosts were told";
  for (const count of [0, 3, 3, 5, 5]) errors.watch(count);
  assert.equal(told, [
    [3, text],
    [2, text],
  ]);
});

test.run();
