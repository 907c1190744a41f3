import assert from "node:assert/strict";
import { test } from "node:test";
import { LIMIT_SETTINGS } from "#/model/limits.ts";
import { describeProblem, loadFile } from "./folder.ts";
import { checkMeshAnnotation, meshSettings } from "./mesh-annotations.ts";

test("each limit is set by its annotation, and the narrowest wins", () => {
  for (const { annotation, variable, unit } of Object.values(LIMIT_SETTINGS)) {
    const [wide, narrow] = unit === "duration" ? ["10s", "20s"] : ["10", "20"];
    assert.equal(checkMeshAnnotation(annotation, narrow), null, annotation);
    assert.deepEqual(meshSettings({ [annotation]: wide }, { [annotation]: narrow }).env, {
      [variable]: narrow,
    });
  }
});

test("a limit that makes no sense is refused by name", () => {
  assert.match(checkMeshAnnotation("config.pillion.dev/head-timeout", "10") ?? "", /duration/);
  assert.match(checkMeshAnnotation("config.pillion.dev/connections-max", "0") ?? "", /above 0/);
  assert.match(checkMeshAnnotation("config.pillion.dev/head-time", "10s") ?? "", /is not honoured/);
});

test("a limit that a sidecar cannot serve within is refused", () => {
  const check = (value: string): string | null =>
    checkMeshAnnotation("config.linkerd.io/proxy-memory-limit", value);
  assert.match(check("32Mi") ?? "", /too little.*write 48Mi or more/);
  assert.match(check("much") ?? "", /must be a quantity/);
  assert.equal(check("48Mi"), null);
});

test("settings of our own may stand in the mesh's defaults, and are refused where nothing reads them", () => {
  const settings = "{config.pillion.dev/proxy-memory-guard: disabled}";
  const problems = (kind: string, metadata: string, rest: string): string =>
    loadFile({ path: "a.yaml", text: `apiVersion: v1\nkind: ${kind}\nmetadata: {${metadata}}\n${rest}\n` })
      .problems.map(describeProblem)
      .join("\n");
  assert.equal(problems("ConfigMap", "name: mesh-config, namespace: pillion", `data: ${settings}`), "");
  assert.equal(problems("Namespace", `name: shop, annotations: ${settings}`, ""), "");
  assert.match(
    problems("Service", `name: web, annotations: ${settings}`, "spec: {ports: [{port: 80}]}"),
    /^a\.yaml:3: Service default\/web: .*proxy-memory-guard"\] is read from pods and namespaces only; move it to the pod template$/,
  );
});

test("attack: a default that is narrower than everybody holds before the control plane has answered, too", () => {
  const annotation = "config.linkerd.io/default-inbound-policy";
  const { env } = meshSettings({ [annotation]: "audit" }, { [annotation]: "deny" });
  assert.deepEqual(env, { LINKERD2_PROXY_INBOUND_DEFAULT_POLICY: "deny" });
});
