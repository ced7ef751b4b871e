// JSON schemas of what is in our manifests, a file for each kind, as kubeconform looks for them:
// Kubernetes' own from its OpenAPI document, the others from their definitions of custom resources.
// A field that is not in the schema is an error, as it is for `kubectl apply`.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type Fields = { [key: string]: Json };

/** For kubeconform's `-schema-location`. */
export const SCHEMA_NAMES = "{{.ResourceKind}}{{.KindSuffix}}.json";

const QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity";

export function writeSchemas(
  folder: string,
  sources: { openApi: string; customResources: unknown[] },
): void {
  mkdirSync(folder, { recursive: true });
  writeKubernetes(folder, sources.openApi);
  writeCustomResources(folder, sources.customResources);
}

interface Kind {
  group: string;
  version: string;
  kind: string;
}

function writeKubernetes(folder: string, path: string): void {
  const document = JSON.parse(readFileSync(path, "utf8")) as { definitions: Fields };
  const definitions = strict(document.definitions) as Fields;
  definitions[QUANTITY] = { type: ["string", "number"] };
  for (const [name, definition] of Object.entries(definitions)) {
    const kinds = (definition as Fields)["x-kubernetes-group-version-kind"];
    if (!Array.isArray(kinds) || kinds.length !== 1) continue;
    const schema = { $ref: `#/definitions/${name}`, definitions };
    writeSchema(folder, kinds[0] as unknown as Kind, schema);
  }
}

function writeCustomResources(folder: string, documents: unknown[]): void {
  for (const document of documents) {
    const { kind, spec } = document as { kind?: string; spec?: CustomResource };
    if (kind !== "CustomResourceDefinition" || spec === undefined) continue;
    for (const { name: version, schema } of spec.versions) {
      const whole = strict(schema.openAPIV3Schema) as { properties: Fields };
      whole.properties.metadata = { type: "object" };
      const names = { group: spec.group, version, kind: spec.names.kind };
      writeSchema(folder, names, whole);
    }
  }
}

interface CustomResource {
  group: string;
  names: { kind: string };
  versions: { name: string; schema: { openAPIV3Schema: Json } }[];
}

function writeSchema(folder: string, { group, version, kind }: Kind, schema: object): void {
  const first = group.split(".")[0] ?? "";
  const suffix = first === "" ? version : `${first}-${version}`;
  const name = `${kind}-${suffix}.json`.toLowerCase();
  writeFileSync(join(folder, name), JSON.stringify(schema));
}

/** Only the fields that are named; and numbers where text is one. */
function strict(schema: Json): Json {
  if (Array.isArray(schema)) return schema.map(strict);
  if (typeof schema !== "object" || schema === null) return schema;
  const fields = Object.fromEntries(
    Object.entries(schema).map(([key, value]) => [key, strict(value)]),
  );
  if (fields.format === "int-or-string" || fields["x-kubernetes-int-or-string"] === true) {
    const { format: _format, anyOf: _anyOf, ...rest } = fields;
    return { ...rest, type: ["string", "integer"] };
  }
  const open =
    fields["x-kubernetes-preserve-unknown-fields"] === true || "additionalProperties" in fields;
  const isObject = typeof fields.properties === "object" && !Array.isArray(fields.properties);
  return isObject && !open ? { ...fields, additionalProperties: false } : fields;
}
