import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { prepareRole } from "./stripped-source.ts";

const folder = mkdtempSync(join(tmpdir(), "pillion-strip-"));
after(() => rmSync(folder, { recursive: true }));
function source(path: string, text: string): void {
  mkdirSync(dirname(join(folder, "src", path)), { recursive: true });
  writeFileSync(join(folder, "src", path), text);
}
const prepare = (): string => prepareRole(join(folder, "src"), "role/main.ts", "run", join(folder, "out"));

test("writes what the entry imports, and nothing else, ready to run", () => {
  source(
    "role/main.ts",
    'import { word } from "#/deep/word.ts";\nimport type { Word } from "./type.ts";\nexport async function run(env: Record<string, unknown>): Promise<void> {\n  const { tail } = await import("./tail.ts");\n  const w: Word = word;\n  process.stdout.write(w + tail + typeof env);\n}\n',
  );
  source("role/type.ts", "export type Word = string;\n");
  source("role/tail.ts", 'export const tail: string = "!";\n');
  source("role/other.ts", 'export { x } from "some-package";\n');
  source("deep/word.ts", 'export const word: string = "hello";\n');
  const main = prepare();
  assert.equal(execFileSync(process.execPath, [main]).toString(), "hello!object");
  assert.throws(() => readFileSync(join(dirname(main), "role/other.js")));
  assert.equal(prepare(), main, "the same source is written once");
});

test("other source is another folder, and a package is refused", () => {
  const before = prepare();
  source("role/tail.ts", 'export const tail: string = "?";\n');
  assert.notEqual(prepare(), before);
  source("role/tail.ts", 'export { tail } from "some-package";\n');
  assert.throws(prepare, /some-package/);
});

test("the sidecar can be prepared so: it imports no package", () => {
  const main = prepareRole(
    join(import.meta.dirname, ".."),
    "proxy/main.ts",
    "runSidecar",
    join(folder, "sidecar"),
  );
  // Without settings it starts and says what is missing.
  let status = 0;
  try {
    execFileSync(process.execPath, [main], { env: {}, stdio: ["ignore", "ignore", "pipe"] });
  } catch (error) {
    status = (error as { status: number }).status;
  }
  assert.equal(status, 64);
});
