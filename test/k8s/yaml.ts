// YAML as Helm reads it, so that no reader of our own is needed: a chart of nothing but files,
// whose template says each of them again as JSON.
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** `helm template CHART`: what it prints. */
export type Template = (chart: string) => string;

const CHART = "apiVersion: v2\nname: files\nversion: 0.1.0\n";
const TEMPLATE = `apiVersion: v1
kind: ConfigMap
metadata:
  name: files
data:
{{- range $path, $_ := .Files.Glob "files/*" }}
  {{ base $path }}: {{ $.Files.Get $path | fromYaml | toJson | toJson }}
{{- end }}
`;

/** All documents of these texts, in their order. */
export function readYaml(folder: string, template: Template, texts: string[]): unknown[] {
  const chart = mkdtempSync(join(folder, "yaml-"));
  for (const name of ["templates", "files"]) mkdirSync(join(chart, name));
  writeFileSync(join(chart, "Chart.yaml"), CHART);
  writeFileSync(join(chart, "templates/files.yaml"), TEMPLATE);
  const documents = texts
    .flatMap((text) => text.split(/^---\s*$/m))
    .filter((text) => /^[^#\s]/m.test(text));
  documents.forEach((text, index) => {
    writeFileSync(join(chart, "files", `d${String(index).padStart(4, "0")}`), text);
  });
  const said = template(chart).matchAll(/^ {2}d\d{4}: (".*")$/gm);
  const read = [...said].map(([, json = ""]) => JSON.parse(JSON.parse(json) as string) as unknown);
  if (read.length !== documents.length) throw new Error(`${read.length} of ${documents.length}`);
  return read;
}
