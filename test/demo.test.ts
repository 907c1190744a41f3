/** What stands in demo/ is accepted by the mesh, and names programs that exist. */
import assert from "node:assert/strict";
import { existsSync, globSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { describeProblem, loadFolder } from "#/kube/folder.ts";
import { read, ROOT } from "./source-tree.ts";

for (const folder of ["demo/shop", "demo/pair"]) {
  const files = globSync(`${folder}/*.yaml`, { cwd: ROOT }).map((path) => ({ path, text: read(path) }));

  test(`${folder} is accepted as it stands`, () => {
    assert.notEqual(files.length, 0);
    const { problems } = loadFolder(files, new Map());
    assert.deepEqual(problems.map(describeProblem), []);
  });

  test(`${folder} starts programs that exist`, () => {
    const named = files.flatMap(({ text }) =>
      [...text.matchAll(/\/\.pillion\/mesh\/([\w./-]+)/g)].map((match) => match[1]!),
    );
    assert.notEqual(named.length, 0);
    assert.deepEqual(
      named.filter((path) => !existsSync(join(ROOT, path))),
      [],
    );
  });
}
