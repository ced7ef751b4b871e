// CSI's services as gRPC sees them, loaded from the specification's own file.
import type { ServiceDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { assert } from "../engine/base/assert.js";
import { packagePath } from "../engine/base/package-path.js";

const loaded = loadSync(packagePath("csi/proto/csi/v1/csi.proto"), {
  // Sizes: none comes near 2^53, but for a limit that means "none".
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: false,
});

export type ServiceName =
  | "Identity"
  | "Controller"
  | "GroupController"
  | "SnapshotMetadata"
  | "Node";

export function serviceDefinition(name: ServiceName): ServiceDefinition {
  const service = loaded[`csi.v1.${name}`];
  assert(service !== undefined && !("format" in service), `csi.v1.${name} is not in csi.proto`);
  return service as ServiceDefinition;
}
