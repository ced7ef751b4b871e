// Certificates for tests, made by openssl: an authority and what it signs.
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TlsFiles } from "../../engine/base/config.js";

export interface Authority {
  /** The PEM file of its own certificate. */
  readonly path: string;
  /**
   * Signs a certificate for this name, which is good for 127.0.0.1, and for 10.0.2.2 (the host to a
   * VM), too.
   */
  issue(name: string): TlsFiles;
}

const EC_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

export function makeAuthority(folder: string, authorityName: string): Authority {
  const file = (name: string) => join(folder, `${authorityName}-${name}`);
  const path = file("authority.pem");
  const authorityKey = file("authority.key");
  const subject = (name: string) => ["-subj", `/CN=${name}`];
  openssl(
    ...["req", "-x509", ...EC_KEY, "-days", "2", ...subject(authorityName)],
    ...["-keyout", authorityKey, "-out", path],
  );
  return {
    path,
    issue(name) {
      const certificate = file(`${name}.pem`);
      const key = file(`${name}.key`);
      const request = file(`${name}.csr`);
      const extensions = file(`${name}.ext`);
      writeFileSync(
        extensions,
        `subjectAltName=DNS:${name},DNS:localhost,IP:127.0.0.1,IP:10.0.2.2\n`,
      );
      openssl("req", "-new", ...EC_KEY, ...subject(name), "-keyout", key, "-out", request);
      openssl(
        ...["x509", "-req", "-in", request, "-CA", path, "-CAkey", authorityKey],
        ...["-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate],
      );
      return { certificate, key, authority: path };
    },
  };
}

function openssl(...args: string[]): void {
  execFileSync("openssl", args, { stdio: "pipe" });
}
