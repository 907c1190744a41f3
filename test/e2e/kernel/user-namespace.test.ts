/** Interception without root: nftables inside a user namespace, where one uid is all there is. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

const UNSHARE = ["--user", "--map-root-user", "--net", "--fork", "--kill-child"];
const probe = spawnSync("unshare", [...UNSHARE, "nft", "list", "tables"], { encoding: "utf8" });
const skip = probe.status === 0 ? false : `no user namespaces with nftables here: ${probe.stderr?.trim()}`;

test("the sidecar is known by its source address, and everything else goes to it", { skip }, () => {
  const fixture = join(import.meta.dirname, "fixtures/user-namespace.ts");
  const args = [...UNSHARE, process.execPath, "--disable-warning=ExperimentalWarning", fixture];
  const run = spawnSync("unshare", args, { encoding: "utf8", timeout: 20_000 });
  assert.equal(run.status, 0, run.stderr);
  const seen = JSON.parse(run.stdout) as { app: string; beyond: string };
  assert.equal(seen.app, "sidecar 10.78.0.1:80");
  assert.match(seen.beyond, /^world /);
});
