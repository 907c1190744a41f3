import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { strippedSources } from "./stripped-sources.ts";

test("stripped sources run in the place of src, and are made once", () => {
  const root = mkdtempSync(join(tmpdir(), "pillion-stripped-"));
  try {
    write("package.json", JSON.stringify({ type: "module", imports: { "#/*": "./src/*" } }));
    write(
      "src/main.ts",
      'import type { A } from "./a/a.ts";\nimport { a } from "#/a/a.ts";\nconst late = await import("./late.ts");\nimport data from "./data.json" with { type: "json" };\nconst x: A = a;\nconsole.log(x, late.name, data.from, import.meta.filename.slice(-3));\n',
    );
    write(
      "src/a/a.ts",
      'import { late } from "../late.ts";\nexport type A = string;\nexport const a: A = `a ${late as string}`;\n',
    );
    write("src/late.ts", 'export const late = "late";\nexport { late as name };\n');
    write("src/data.json", '{ "from": "./b.ts" }');
    write("src/a/a.test.ts", "this is no program\n");

    const first = strippedSources(root, join(root, "out"));
    assert.equal(strippedSources(root, join(root, "out")), first);
    assert.deepEqual(readdirSync(join(root, "out")).length, 1);

    rmSync(join(root, "src"), { recursive: true });
    cpSync(first, join(root, "src"), { recursive: true });
    // Without the compiler, a type left over would be a syntax error.
    const output = execFileSync(process.execPath, ["--no-strip-types", join(root, "src/main.js")], {
      encoding: "utf8",
    });
    assert.equal(output, "a late late ./b.ts .js\n");
  } finally {
    rmSync(root, { recursive: true });
  }

  function write(path: string, text: string): void {
    mkdirSync(join(root, path, ".."), { recursive: true });
    writeFileSync(join(root, path), text);
  }
});
