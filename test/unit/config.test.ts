import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type Environment,
  loadConfig,
  makeConfig,
  parseSettings,
  type Settings,
} from "../../engine/base/config.js";
import { DEFAULT_POLICY } from "../../engine/base/dhchap-key.js";
import { refuses } from "../support/refuses.js";

const NO_ENVIRONMENT: Environment = {
  config: undefined,
  socket: undefined,
  runtimeDir: undefined,
  notifySocket: undefined,
  ownMounts: undefined,
};
const make = (settings: Settings) => makeConfig(settings, NO_ENVIRONMENT);

test("without anything, the defaults", () => {
  assert.equal(make({}), {
    pool: null,
    pools: null,
    meta: null,
    socket: "/run/pando/pando.sock",
    nbdSocket: "/run/pando/nbd.sock",
    metrics: { host: "127.0.0.1", port: 9750 },
    target: [{ host: "127.0.0.1", port: 4420 }],
    advertise: [{ host: "127.0.0.1", port: 4420 }],
    nvmet: null,
    authentication: DEFAULT_POLICY,
    api: null,
    indexCacheBytes: 64 * 2 ** 20,
    spaceLevels: [80, 90, 95],
    discard: "auto",
    targetTls: "allowed",
    nvmetTls: "off",
    targetConnections: 8192,
    targetHostConnections: 4096,
    logLevel: "info",
  });
  const { socket } = makeConfig({}, { ...NO_ENVIRONMENT, runtimeDir: "/run/user/7" });
  assert.is(socket, "/run/user/7/pando/pando.sock");
});

test("several pools, each with its own places", () => {
  const text = JSON.stringify({
    indexCache: "8MiB",
    pools: [
      { name: "fast", pool: "fast", target: "10.0.0.5:4420", discard: "on" },
      { name: "bulk", pool: "/dev/sdb", target: "none", nbdSocket: "none", indexCache: "4MiB" },
    ],
  });
  const config = make(parseSettings(text, "/etc/pando/pando.json"));
  assert.is(config.pool, null);
  const [fast, bulk] = config.pools ?? [];
  assert.is(fast?.pool, "/etc/pando/fast");
  assert.is(fast?.nbdSocket, "/run/pando/pando-fast-nbd.sock");
  assert.equal(fast?.target, [{ host: "10.0.0.5", port: 4420 }]);
  assert.equal([fast?.discard, fast?.indexCacheBytes], ["on", 8 * 2 ** 20]);
  assert.equal([bulk?.name, bulk?.pool, bulk?.target], ["bulk", "/dev/sdb", []]);
  assert.equal([bulk?.discard, bulk?.indexCacheBytes], ["auto", 4 * 2 ** 20]);
  assert.equal([bulk?.nbdSocket, bulk?.advertise], [null, []]);
});

test("pools that get in each other's way, and what is said in the wrong place", () => {
  const a = { name: "a", pool: "/a", target: "none" };
  const b = { name: "b", pool: "/b", target: "none" };
  const pools = (...entries: object[]) =>
    make(parseSettings(JSON.stringify({ pools: entries }), "/f"));
  const place = { target: "127.0.0.1:4420" };
  const kernel = { nvmet: "10.0.0.5:4430" };
  for (const [wrong, why] of [
    [() => pools(a, { ...b, pool: "/x/../a" }), /a and b have the same "pool": \/a/],
    [() => pools(a, { ...b, name: "a" }), /the same "name"/],
    [() => pools({ ...a, ...place }, { ...b, ...place }), /the same "target": 127\.0\.0\.1:4420/],
    [() => pools({ ...a, nbdSocket: "/s" }, { ...b, nbdSocket: "/s" }), /the same "nbdSocket"/],
    [() => pools({ ...a, ...kernel }, { ...b, nvmet: "10.0.0.5:4431" }), /both have "nvmet"/],
    [() => pools({ name: "a", pool: "/a" }), /the pool a has no "target"/],
    [() => pools({ name: "a", target: "none" }), /the pool a has no "pool"/],
    [() => pools({ pool: "/a", target: "none" }), /pools\[0\] has no name/],
    [() => pools({ ...a, name: "a/b" }), /"a\/b" cannot be the name of a pool/],
    [() => pools({ ...a, colour: "red" }), /pools\[0\] has an unknown key, "colour"/],
    [() => pools({ ...a, discard: true }), /"discard" is not a string/],
    [() => pools(), /"pools" is not a list of pools/],
    [() => make({ pools: [a], target: "none" }), /"target" is said of each pool/],
    [() => make({ pools: [a], pool: "/a" }), /"pool" is said of each pool/],
  ] as const) {
    refuses(wrong, "EINVAL", why);
  }
});

test("it cannot be changed once it is made", () => {
  assert.ok(Object.isFrozen(make({})));
});

test("none switches a listener off", () => {
  const config = make({ nbdSocket: "none", metrics: "none", target: "none" });
  assert.equal([config.nbdSocket, config.metrics, config.target], [null, null, []]);
  assert.equal(config.advertise, []);
});

test("how hosts prove themselves: known words only, in the order given", () => {
  const { authentication } = make({ authHashes: "sha256, sha512", authGroups: "ffdhe8192,null" });
  assert.equal(authentication, { hashes: ["sha256", "sha512"], groups: ["ffdhe8192", "null"] });
  refuses(() => make({ authHashes: "md5" }), "EINVAL", /authHashes: "md5" is not known/);
  refuses(() => make({ authGroups: "" }), "EINVAL", /authGroups: "" is not known/);
});

test("whether hosts use TLS: allowed, unless told otherwise", () => {
  assert.is(make({}).targetTls, "allowed");
  assert.is(make({ targetTls: "required" }).targetTls, "required");
  refuses(() => make({ targetTls: "yes" }), "EINVAL", /"yes" does not say whether hosts use TLS/);
  assert.is(make({ nvmetTls: "required" }).nvmetTls, "required");
  refuses(() => make({ nvmetTls: "allowed" }), "EINVAL", /does not say whether hosts use TLS/);
});

test("how many connections: as many as said, and half of them for one host", () => {
  const { targetConnections, targetHostConnections } = make({ targetConnections: "65536" });
  assert.equal([targetConnections, targetHostConnections], [65_536, 32_768]);
  assert.is(make({ targetHostConnections: "8192" }).targetHostConnections, 8192);
  const tooMany = { targetConnections: "100", targetHostConnections: "101" };
  refuses(() => make(tooMany), "EINVAL", /targetHostConnections cannot be "101"/);
  for (const wrong of ["1", "65537", "many", "-3", ""]) {
    refuses(() => make({ targetConnections: wrong }), "EINVAL", /targetConnections cannot be/);
  }
});

test("what hosts are told is the advertised address, else the target's", () => {
  const { target, advertise } = make({ target: "0.0.0.0:4420", advertise: "10.0.0.5:14420" });
  assert.equal(target, [{ host: "0.0.0.0", port: 4420 }]);
  assert.equal(advertise, [{ host: "10.0.0.5", port: 14420 }]);
  assert.equal(make({ target: "10.0.0.6:1" }).advertise, [{ host: "10.0.0.6", port: 1 }]);
  const several = make({ target: "10.0.0.6:1, [fd00::1]:2" });
  assert.equal(several.advertise, [
    { host: "10.0.0.6", port: 1 },
    { host: "fd00::1", port: 2 },
  ]);
  const many = Array.from({ length: 17 }, (_, index) => `10.0.0.6:${index + 1}`).join();
  refuses(() => make({ target: many }), "EINVAL", /17 addresses are more than 16/);
  refuses(() => make({ target: "10.0.0.6:1,10.0.0.6:1" }), "EINVAL", /is there twice/);
  refuses(() => make({ target: "10.0.0.6:1," }), "EINVAL", /"" is not an address for target/);
  refuses(() => make({ target: "0.0.0.0:4420" }), "EINVAL", /hosts cannot connect to 0\.0\.0\.0/);
});

test("the API on TCP is off, or on loopback, or has mutual TLS", () => {
  const address = { host: "127.0.0.1", port: 9751 };
  assert.equal(make({ api: "127.0.0.1:9751" }).api, { address, tls: null });
  const files = { apiCertificate: "/c", apiKey: "/k", apiAuthority: "/a" };
  const tls = { certificate: "/c", key: "/k", authority: "/a" };
  const open = { host: "0.0.0.0", port: 9751 };
  assert.equal(make({ api: "0.0.0.0:9751", ...files }).api, { address: open, tls });
  assert.is(make({ api: "none", ...files }).api, null);
});

test("each wrong value is named", () => {
  const table: [Settings, string][] = [
    [{ metrics: "10.0.0.1:9750" }, "metrics"],
    [{ metrics: "0.0.0.0:9750" }, "metrics"],
    [{ target: "nowhere" }, "target"],
    [{ advertise: "10.0.0.1" }, "advertise"],
    [{ target: "none", advertise: "10.0.0.1" }, "advertise"],
    [{ api: "everywhere" }, "api"],
    [{ api: "10.0.0.1:9751" }, "api"],
    [{ api: "10.0.0.1:9751", apiCertificate: "c", apiKey: "k" }, "apiAuthority"],
    [{ apiKey: "k", apiAuthority: "a" }, "apiCertificate"],
    [{ indexCache: "1000" }, "indexCache"],
    [{ spaceLevels: "80,90" }, "spaceLevels"],
    [{ discard: "yes" }, "discard"],
    [{ spaceLevels: "90,80,95" }, "spaceLevels"],
    [{ spaceLevels: "80,90,101" }, "spaceLevels"],
    [{ spaceLevels: "80,90%,95" }, "spaceLevels"],
    [{ logLevel: "loud" }, "logLevel"],
    [{ socket: `/tmp/${"s".repeat(120)}` }, "socket"],
    [{ nbdSocket: `/tmp/${"s".repeat(120)}` }, "nbdSocket"],
    [{ socket: "/tmp/s", nbdSocket: "/tmp/s" }, "nbdSocket"],
  ];
  for (const [settings, field] of table) {
    assert.is(refuses(() => make(settings), "EINVAL", /./).context.field, field);
  }
  refuses(() => make({ indexCache: "1GB" }), "EINVAL", /is not a valid index cache size/);
});

test("a file: relative paths are relative to it", () => {
  const text = '{"pool": "data", "socket": "/s", "nbdSocket": "none", "metrics": "none"}';
  assert.equal(parseSettings(text, "/etc/pando/pando.json"), {
    pool: "/etc/pando/data",
    socket: "/s",
    nbdSocket: "none",
    metrics: "none",
  });
});

test("a file with anything else in it is refused, and the key named", () => {
  const parse = (text: string) => () => parseSettings(text, "/c.json");
  const error = refuses(parse('{"pol": "/p"}'), "EINVAL", /^\/c\.json has an unknown key, "pol"$/);
  assert.is(error.context.field, "pol");
  refuses(parse('{"__proto__": "x"}'), "EINVAL", /unknown key, "__proto__"/);
  refuses(parse('{"constructor": "x"}'), "EINVAL", /unknown key, "constructor"/);
  refuses(parse('{"pool": 7}'), "EINVAL", /"pool" is not a string/);
  refuses(parse("[]"), "EINVAL", /not a JSON object/);
  refuses(parse("null"), "EINVAL", /not a JSON object/);
  refuses(parse('{"pool": '), "EINVAL", /is not JSON/);
  refuses(parse(""), "EINVAL", /is not JSON/);
});

test("flags override the environment, which overrides the file", () => {
  const folder = mkdtempSync(join(tmpdir(), "pando-config-"));
  try {
    const path = join(folder, "pando.json");
    writeFileSync(path, '{"socket": "/file", "pool": "/file-pool", "logLevel": "warn"}');
    const environment = { ...NO_ENVIRONMENT, config: path };
    const load = (flags: Settings, socket?: string) =>
      loadConfig({ flags, environment: { ...environment, socket } });
    assert.is(load({}).socket, "/file");
    assert.is(load({}, "/environment").socket, "/environment");
    assert.is(load({ socket: "/flag" }, "/environment").socket, "/flag");
    assert.is(load({ logLevel: "debug" }).logLevel, "debug");
    assert.is(load({ logLevel: "debug" }).pool, "/file-pool");
    const missing = { configPath: join(folder, "missing.json"), flags: {}, environment };
    refuses(() => loadConfig(missing), "EINVAL", /cannot read .*missing\.json/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.run();
