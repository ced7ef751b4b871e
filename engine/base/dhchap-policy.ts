// How hosts may prove themselves to the target, out of the configuration.
import { DEFAULT_POLICY, DH_GROUPS, DHCHAP_HASHES, type DhchapPolicy } from "./dhchap-key.js";
import { PandoError } from "./errors.js";
import { quote } from "./quote.js";

export function parsePolicy(settings: { authHashes?: string; authGroups?: string }): DhchapPolicy {
  const { authHashes, authGroups } = settings;
  return Object.freeze({
    hashes: parseChoice(authHashes, "authHashes", DHCHAP_HASHES) ?? DEFAULT_POLICY.hashes,
    groups: parseChoice(authGroups, "authGroups", DH_GROUPS) ?? DEFAULT_POLICY.groups,
  });
}

/** Some of the known words, with commas between, in the order of the text. */
function parseChoice<T extends string>(
  text: string | undefined,
  field: string,
  known: readonly T[],
): T[] | undefined {
  return text?.split(",").map((each) => {
    const word = known.find((one) => one === each.trim());
    if (word !== undefined) return word;
    throw new PandoError("EINVAL", `${field}: ${quote(each.trim())} is not known`, {
      field,
      hint: `some of ${known.join(",")}`,
    });
  });
}
