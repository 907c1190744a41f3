import assert from "node:assert/strict";
import { test } from "node:test";
import { LIMIT_SETTINGS } from "#/model/limits.ts";
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
