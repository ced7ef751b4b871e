// Mutual TLS of the API on TCP: each side shows a certificate, and takes only one that the
// authority it was given has signed. Being signed is the permission: that authority signs for
// nothing else.
//
// The files are read once. Whoever renews a certificate restarts the daemon, which costs its hosts
// a pause.
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { type ChannelCredentials, credentials, ServerCredentials } from "@grpc/grpc-js";
import type { TlsFiles } from "../base/config.js";
import { PandoError } from "../base/errors.js";

interface Pem {
  certificate: Buffer;
  key: Buffer;
  authority: Buffer;
}

/** Null: in the open, which the configuration allows on loopback only. */
export function serverCredentials(files: TlsFiles | null): ServerCredentials {
  if (files === null) return ServerCredentials.createInsecure();
  const { certificate, key, authority } = readPem(files);
  return ServerCredentials.createSsl(
    authority,
    [{ private_key: key, cert_chain: certificate }],
    true,
  );
}

export function clientCredentials(files: TlsFiles | null): ChannelCredentials {
  if (files === null) return credentials.createInsecure();
  const { certificate, key, authority } = readPem(files);
  return credentials.createSsl(authority, key, certificate);
}

/** What is wrong with the files is said here, with the file's name, and not at the first call. */
function readPem(files: TlsFiles): Pem {
  const pem = {
    certificate: read(files.certificate),
    key: read(files.key),
    authority: read(files.authority),
  };
  const own = parse(files.certificate, "a certificate", () => new X509Certificate(pem.certificate));
  parse(files.authority, "a certificate", () => new X509Certificate(pem.authority));
  const key = parse(files.key, "a private key", () => createPrivateKey(pem.key));
  if (own.checkPrivateKey(key)) return pem;
  throw new PandoError(
    "EINVAL",
    `the key ${files.key} is not that of the certificate ${files.certificate}`,
    { path: files.key },
  );
}

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PandoError("EINVAL", `cannot read ${path}: ${why}`, { path }, { cause });
  }
}

function parse<T>(path: string, what: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    throw new PandoError("EINVAL", `${path} is not ${what} in PEM form`, { path }, { cause });
  }
}
