import assert from "node:assert/strict";
import { test } from "node:test";
import { app, route, Scratch } from "./testing.ts";
import { validate } from "./validate.ts";

function run(files: Readonly<Record<string, string>>, json = false): { code: number; text: string } {
  const folder = new Scratch(files);
  try {
    const lines: string[] = [];
    const code = validate({ folder: folder.path, json }, (line) => lines.push(line));
    return { code, text: lines.join("\n") };
  } finally {
    folder.remove();
  }
}

test("a folder that is taken whole exits with 0", () => {
  const good = { "web.yaml": app("web") + route("r", "{backendRefs: [{name: web, port: 80}]}") };
  assert.deepEqual(run(good), { code: 0, text: "3 objects: everything is taken" });
});

test("schemas, semantics, references and attachment complain with file and line, and exit with 1", () => {
  const bad = {
    "schema.yaml": `${app("a")}---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{prot: 1}]}\n`,
    "web.yaml": app("web"),
    "reference.yaml": route("dangling", "{backendRefs: [{name: nobody, port: 80}]}"),
    "attached.yaml": route("lost", "{backendRefs: [{name: web, port: 80}]}").replace(
      "name: web}]",
      "name: gone}]",
    ),
    "secret.yaml": app("s").replace("command: [app]", "command: [app], envFrom: [{secretRef: {name: none}}]"),
  };
  const { code, text } = run(bad);
  assert.equal(code, 1);
  assert.match(text, /^schema\.yaml:\d+: Service default\/b: spec\.ports\[0\]/m);
  assert.match(
    text,
    /^reference\.yaml:8: HTTPRoute shop\/dangling: spec\.rules\[0\]\.backendRefs\[0\]\.name .*nobody does not exist/m,
  );
  assert.match(text, /^attached\.yaml:6: HTTPRoute shop\/lost: spec\.parentRefs\[0\]/m);
  assert.match(text, /^secret\.yaml:\d+: Deployment shop\/s: spec\.template\.spec.*none/m);
  assert.match(text, /HTTPRoute shop\/dangling: ResolvedRefs=False \(BackendNotFound\) at Service shop\/web/);
  assert.match(text, /HTTPRoute shop\/lost: Accepted=False/);

  const told = JSON.parse(run(bad, true).text) as {
    ok: boolean;
    problems: { file: string }[];
    conditions: unknown[];
  };
  assert.equal(told.ok, false);
  assert.deepEqual([...new Set(told.problems.map(({ file }) => file))].toSorted(), [
    "attached.yaml",
    "reference.yaml",
    "schema.yaml",
    "secret.yaml",
  ]);
  assert.equal(told.conditions.length, 2);
});

test("a folder that is not there is an error of use", () => {
  assert.throws(() => validate({ folder: "/nowhere/at/all", json: false }, () => {}), { exitCode: 2 });
});
