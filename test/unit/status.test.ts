// Every error of ours crosses the wire whole; what the transport says itself becomes the nearest of
// ours.
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type ErrorCode, PandoError } from "../../engine/base/errors.js";
import { asPandoError, fromStatus, isNoAnswer, toStatus } from "../../engine/serve/status.js";

const STATUS: Record<ErrorCode, status> = {
  EIO: status.INTERNAL,
  ECORRUPT: status.DATA_LOSS,
  ENOSPC: status.RESOURCE_EXHAUSTED,
  ENOTFOUND: status.NOT_FOUND,
  EEXIST: status.ALREADY_EXISTS,
  EBUSY: status.FAILED_PRECONDITION,
  EINVAL: status.INVALID_ARGUMENT,
  EVERSION: status.UNIMPLEMENTED,
  ECLOSED: status.UNAVAILABLE,
  EPERM: status.PERMISSION_DENIED,
};

function serviceError(code: status, details: string, metadata = new Metadata()): ServiceError {
  return Object.assign(new Error(`${code} ${details}`), { code, details, metadata });
}

test("each code has a status of its own, and comes back as itself", () => {
  for (const [code, expected] of Object.entries(STATUS) as [ErrorCode, status][]) {
    const context = { volume: "db", span: 7, hint: "umläut — and “quotes”" };
    const reply = toStatus(new PandoError(code, "what happened", context));
    assert.is(reply.code, expected);
    const back = fromStatus(serviceError(reply.code, reply.details, reply.metadata));
    assert.is(back.code, code);
    assert.is(back.message, "what happened");
    assert.equal(back.context, context);
  }
  assert.is(new Set(Object.values(STATUS)).size, Object.keys(STATUS).length);
});

test("without our metadata, the status decides", () => {
  assert.is(fromStatus(serviceError(status.NOT_FOUND, "x")).code, "ENOTFOUND");
  assert.is(fromStatus(serviceError(status.CANCELLED, "x")).code, "EIO");
});

test("metadata that makes no sense is not believed", () => {
  const metadata = new Metadata();
  metadata.set("pando-code", "toString");
  metadata.set("pando-context-bin", Buffer.from("{not json"));
  const back = fromStatus(serviceError(status.ALREADY_EXISTS, "x", metadata));
  assert.is(back.code, "EEXIST");
  assert.equal(back.context, {});
});

test("no daemon is not the same as a closed pool", () => {
  assert.ok(isNoAnswer(serviceError(status.UNAVAILABLE, "connect ENOENT")));
  const closed = toStatus(new PandoError("ECLOSED", "the pool is closed"));
  assert.not(isNoAnswer(serviceError(closed.code, closed.details, closed.metadata)));
  assert.not(isNoAnswer(serviceError(status.NOT_FOUND, "x")));
});

test("what is not an error of ours is an internal one", () => {
  assert.is(asPandoError(new TypeError("boom")).code, "EIO");
  assert.match(asPandoError("boom").message, /internal error: boom/);
});

test.run();
