/** The Gateway API's own files: its schemas are those that we carry, and its mesh conformance objects are taken as they are. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PolicyWorld } from "#/control/policy/testing.ts";
import { describeProblem, loadFile } from "#/kube/folder.ts";
import { condense, CRDS, CRDS_FOLDER } from "../../scripts/crds.ts";
import { corpusFolder, isMissing } from "./corpora.ts";

const skip = isMissing("gateway-api");
const folder = corpusFolder("gateway-api");

test("the schemas are the published ones", { skip }, () => {
  for (const [file, published] of Object.entries(CRDS)) {
    const fresh = condense(readFileSync(join(folder, "experimental", published), "utf8"));
    assert.equal(readFileSync(join(CRDS_FOLDER, file), "utf8"), fresh, `${file}: run scripts/crds.ts`);
  }
});

test("every route of the mesh conformance suite is taken as it is", { skip }, () => {
  const routes = readdirSync(join(folder, "mesh")).filter((file) => file !== "manifests.yaml");
  assert.ok(routes.length >= 20);
  for (const path of routes) {
    const { objects, problems } = loadFile({ path, text: readFileSync(join(folder, "mesh", path), "utf8") });
    assert.deepEqual(problems.map(describeProblem), []);
    assert.ok(objects.length > 0, path);
  }
});

test("each of them attaches to its Services and finds its backends", { skip }, () => {
  const read = (file: string): string => readFileSync(join(folder, "mesh", file), "utf8");
  // Their programs are images; which ones stand for them here is no matter of routes.
  const base = read("manifests.yaml")
    .split(/^---$/m)
    .filter((text) => !/^kind: Deployment/m.test(text))
    .join("\n---\n");
  for (const file of readdirSync(join(folder, "mesh")).filter((name) => name !== "manifests.yaml")) {
    const world = new PolicyWorld(`${base}\n---\n${read(file)}`);
    // A backend of weight 0 that is not there is part of the weight tests.
    const unexpected = world.problems.filter((line) => !line.includes("echo-v3 does not exist"));
    assert.deepEqual(unexpected, [], file);
  }
  const world = new PolicyWorld(`${base}\n---\n${read("mesh-consumer-route.yaml")}`);
  assert.deepEqual(
    world.routes("gateway-conformance-mesh/echo-v1", 80, "gateway-conformance-mesh-consumer"),
    ["HTTPRoute/gateway-conformance-mesh-consumer/mesh-echo-add-header"],
  );
});
