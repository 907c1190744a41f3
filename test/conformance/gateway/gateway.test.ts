import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { isMissing } from "../corpora.ts";
import { GATEWAY_TESTS, MESH_TESTS } from "./cases.ts";
import { GatewaySuite } from "./suite.ts";

describe("Gateway API's suite for meshes, in local pods", { skip: isMissing("gateway-api") }, () => {
  let suite: GatewaySuite;
  before(async () => {
    suite = new GatewaySuite();
    await suite.up();
  });
  after(async () => await suite.close());

  for (const one of [...MESH_TESTS, ...GATEWAY_TESTS]) {
    test(one.name, async () => assert.equal((await suite.run(one)).failure, ""));
  }
});
