// HOST:PORT as configuration and output write it. An IPv6 address is in brackets.
import { PandoError } from "./errors.js";
import { quote } from "./quote.js";

export interface Address {
  host: string;
  port: number;
}

export function parseAddress(text: string, field: string): Address {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port < 1 || port > 65535) {
    throw new PandoError("EINVAL", `${quote(text)} is not an address for ${field}`, {
      field,
      hint: "HOST:PORT, as in 127.0.0.1:4420 or [::1]:4420",
    });
  }
  return { host, port };
}

export function formatAddress(address: Address): string {
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}

export function isLoopback(address: Address): boolean {
  const { host } = address;
  return host === "localhost" || host === "::1" || /^127(\.[0-9]{1,3}){3}$/.test(host);
}

/** Listens everywhere, so it names no place that a host could connect to. */
export function isWildcard(address: Address): boolean {
  return address.host === "0.0.0.0" || /^[0:]+$/.test(address.host);
}
