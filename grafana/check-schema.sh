#!/usr/bin/env bash
# Checks the dashboards against Grafana's own schema. Each JSON file becomes a TypeScript literal of the type Dashboard, and each panel's
# options and field settings become literals of its panel's types: the compiler finds misspelt, missing and impossible values.
# Needs node and npm.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund @grafana/schema@12.3.1 typescript@5.9.3
cat >generate.mjs <<'JS'
import fs from "node:fs";
const raw = "./node_modules/@grafana/schema/dist/types/raw";
const lines = [
  `import type { Dashboard } from "${raw}/dashboard/x/dashboard_types.gen";`,
  // Enums as their values; JSON has null for minus infinity, the first step of thresholds.
  "type Loose<T> = T extends string ? `${T}` : T extends number ? T | null : T extends Array<infer U> ? Array<Loose<U>>",
  "  : T extends object ? { [K in keyof T]: Loose<T[K]> } : T;",
];
// Prometheus's fields of an annotation: the data source defines them, not the schema.
const promql = ["expr", "step", "titleFormat", "textFormat", "tagKeys", "useValueForTime"];
const kinds = new Set();
let count = 0;
for (const file of fs.readdirSync(process.argv[2]).sort()) {
  const board = JSON.parse(fs.readFileSync(`${process.argv[2]}/${file}`));
  for (const annotation of board.annotations.list) for (const key of promql) delete annotation[key];
  lines.push(`// ${file}`, `export const d${++count}: Loose<Dashboard> = ${JSON.stringify(board)};`);
  for (const { type: name, title, options, fieldConfig } of board.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])])) {
    if (name === "row") continue;
    const type = name.replaceAll("-", "");
    kinds.add(type);
    lines.push(`// ${file}: ${title}`, `export const o${++count}: Loose<${type}.Options> = ${JSON.stringify(options)};`);
    const custom = fieldConfig?.defaults.custom;
    if (custom) lines.push(`export const c${count}: Loose<${type}.FieldConfig> = ${JSON.stringify(custom)};`);
  }
}
for (const kind of kinds) {
  const dir = `${raw}/composable/${kind}/panelcfg/x`;
  const [types] = fs.readdirSync(dir).filter((name) => name.endsWith(".d.ts"));
  lines.unshift(`import type * as ${kind} from "${dir}/${types.replace(".d.ts", "")}";`);
}
fs.writeFileSync("check.ts", lines.join("\n"));
console.log(`${count} literals`);
JS
node generate.mjs "$here/dashboards"
npx tsc --noEmit --strict --skipLibCheck --moduleResolution bundler --module esnext --target es2022 check.ts
echo "the dashboards fit Grafana's schema"
