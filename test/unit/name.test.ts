import { test } from "uvu";
import * as assert from "uvu/assert";
import { formatAddress, isLoopback, isWildcard, parseAddress } from "../../engine/base/address.js";
import { parseSnapshotRef, parseSourceRef, requireName } from "../../engine/base/name.js";
import { checkHostNqn, hostNqn, parseVolumeNqn, volumeNqn } from "../../engine/base/nqn.js";
import { refuses } from "../support/refuses.js";

test("names that are allowed", () => {
  for (const name of ["a", "0", "db", "db-test.1", "A_b", "x".repeat(128)]) {
    requireName(name, "volume");
  }
});

test("names that are not, each with its reason", () => {
  const table: [string, RegExp][] = [
    ["", /is empty/],
    ["x".repeat(129), /longer than 128/],
    ["a b", /" " is not allowed/],
    ["a/b", /"\/" is not allowed/],
    ["a@b", /"@" is not allowed/],
    ["ä", /"ä" is not allowed/],
    ["a\nb", /"\\n" is not allowed/],
    ["a\u0000", /"\\u0000" is not allowed/],
    ["💾", /"💾" is not allowed/],
    ["-a", /first character/],
    [".", /first character/],
    ["..", /first character/],
    ["_a", /first character/],
  ];
  for (const [name, why] of table) {
    const error = refuses(() => requireName(name, "snapshot"), "EINVAL", why);
    assert.match(error.message, /the name of a snapshot/);
    assert.is(error.context.field, "snapshot");
  }
});

test("references to snapshots and sources", () => {
  assert.equal(parseSnapshotRef("db@monday"), { volume: "db", snapshot: "monday" });
  assert.equal(parseSourceRef("db@monday"), { volume: "db", snapshot: "monday" });
  assert.equal(parseSourceRef("db"), { volume: "db", snapshot: null });
  refuses(() => parseSnapshotRef("db"), "EINVAL", /does not name a snapshot/);
  refuses(() => parseSnapshotRef("db@"), "EINVAL", /it is empty/);
  refuses(() => parseSnapshotRef("@monday"), "EINVAL", /name of a volume: it is empty/);
  refuses(() => parseSnapshotRef("db@a@b"), "EINVAL", /"@" is not allowed/);
});

test("NQNs", () => {
  assert.is(volumeNqn("u-u"), "nqn.2026-01.io.pando:volume:u-u");
  const uuid = "5f1c69df-f3ee-4fb4-aa60-b606748b61bb";
  assert.is(parseVolumeNqn(volumeNqn(uuid)), uuid);
  for (const other of ["", uuid, volumeNqn(""), volumeNqn(`${uuid}0`), `x${volumeNqn(uuid)}`]) {
    assert.is(parseVolumeNqn(other), null);
  }
  checkHostNqn(hostNqn("5f1c69df-f3ee-4fb4-aa60-b606748b61bb"));
  checkHostNqn("nqn.2014-08.org.example");
  checkHostNqn(`nqn.2014-08.org.example:${"a".repeat(199)}`);
  refuses(() => checkHostNqn(`nqn.2014-08.org.example:${"a".repeat(200)}`), "EINVAL", /longer/);
  for (const nqn of ["", "host", "nqn.2014-13.org.example:a", "nqn.2014-08.", "iqn.2014-08.a:b"]) {
    refuses(() => checkHostNqn(nqn), "EINVAL", /does not look like/);
  }
  for (const nqn of ["nqn.2014-08.org.example: a", "nqn.2014-08.örg:a", "a\nb"]) {
    refuses(() => checkHostNqn(nqn), "EINVAL", /blank or a character/);
  }
});

test("addresses", () => {
  for (const text of ["127.0.0.1:4420", "[::1]:9750", "node-1.example:1", "0.0.0.0:65535"]) {
    assert.is(formatAddress(parseAddress(text, "target")), text);
  }
  for (const text of ["", "127.0.0.1", ":4420", "a:0", "a:65536", "::1:4420", "a b:1", "a:1x"]) {
    refuses(() => parseAddress(text, "target"), "EINVAL", /is not an address for target/);
  }
  const loopback = (text: string) => isLoopback(parseAddress(text, "metrics"));
  assert.ok(loopback("127.0.0.1:1") && loopback("127.1.2.3:1") && loopback("[::1]:1"));
  assert.not(loopback("10.0.0.1:1") || loopback("0.0.0.0:1") || loopback("127.evil.example:1"));
  assert.ok(isWildcard(parseAddress("0.0.0.0:1", "target")));
  assert.ok(isWildcard(parseAddress("[::]:1", "target")));
  assert.not(isWildcard(parseAddress("[::1]:1", "target")));
});

test.run();
