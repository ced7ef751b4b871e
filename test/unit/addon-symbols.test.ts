// The addon has an OpenSSL of its own, and Node another one: what either calls must be its own. So
// none of OpenSSL's symbols may be exported by the addon, nor be looked for outside of it.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../native/native.js";

const OPENSSL = /^(SSL|TLS|EVP|OSSL|OPENSSL|BIO|CRYPTO|ERR|X509|RSA|EC|BN|ASN1|HMAC|RAND)_/;

test("OpenSSL stays inside", () => {
  native.abi();
  const [addon = ""] = /\/\S+\/pando\.node$/m.exec(readFileSync("/proc/self/maps", "utf8")) ?? [];
  const listed = execFileSync("nm", ["-D", addon], { encoding: "utf8", maxBuffer: 2 ** 26 });
  const symbols = listed.split("\n").map((line) => line.trim().split(/\s+/).at(-1) ?? "");
  const ofNode = symbols.filter((symbol) => symbol.startsWith("napi_"));
  assert.ok(ofNode.length > 0, "it is the addon");
  const ofOpenSsl = symbols.filter((symbol) => OPENSSL.test(symbol));
  assert.equal(ofOpenSsl, []);
});

test.run();
