import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ManifestFolder, readFolder } from "./folder.ts";

test("a file that is being written is left out and named, and read once it is closed", async () => {
  const path = mkdtempSync(join(tmpdir(), "pillion-folder-"));
  const file = join(path, "a.yaml");
  writeFileSync(file, "before");
  let changed = (): void => undefined;
  const folder = new ManifestFolder(path, () => changed());
  try {
    // As editors and shells do: emptied when opened, filled later.
    const fd = openSync(file, "w");
    const during = readFolder(path);
    assert.deepEqual(during.files, []);
    assert.match(during.problems.join(), /^a\.yaml is being written/);
    writeSync(fd, "half of");
    assert.deepEqual(readFolder(path).files, []);
    writeSync(fd, " it");

    const read = new Promise<void>((resolve) => {
      changed = () => {
        if (folder.content.files[0]?.text === "half of it") resolve();
        for (const { text } of folder.content.files) assert.match(text, /^(before|half of it)$/);
      };
    });
    closeSync(fd);
    await read;
    assert.deepEqual(folder.content.problems, []);
  } finally {
    folder.close();
    rmSync(path, { recursive: true });
  }
});
