// Zones: in which part of a cluster a node is, in Kubernetes' own word for it.
//
// Every compute node reaches every storage node, so a volume can be used from everywhere, and no
// answer says otherwise: a zone never keeps a pod from its volume. It says where a new volume is
// best put: beside the pod that waits for it. Clones are where their origin is.
import { invalid } from "./errors.js";
import type { TopologyRequirement } from "./messages.js";

export const ZONE = "topology.kubernetes.io/zone";

/** The zones that are wished for, the best first. */
export function readZones(requirement: TopologyRequirement | null | undefined): string[] {
  if (requirement === null || requirement === undefined) return [];
  const { preferred, requisite } = requirement;
  const wished = [...preferred, ...requisite];
  if (wished.length === 0) {
    throw invalid("accessibility_requirements", "has neither requisite nor preferred");
  }
  const zones = wished.map(({ segments }) => segments[ZONE]).filter((zone) => zone !== undefined);
  return [...new Set(zones)];
}

/** Those in the best zones first, and in each of them in the order that they have. */
export function nearestFirst<T extends { node: { zone: string | null } }>(
  candidates: readonly T[],
  zones: readonly string[],
): T[] {
  const rank = ({ node }: T) => {
    const index = node.zone === null ? -1 : zones.indexOf(node.zone);
    return index < 0 ? zones.length : index;
  };
  return [...candidates].sort((a, b) => rank(a) - rank(b));
}
