import assert from "node:assert/strict";
import { test } from "node:test";
import { Connections } from "./connections.ts";

test("one client cannot take up all connections, and all together no more than there may be", () => {
  const connections = new Connections({ all: 5, perClient: 3 });
  const crowd = Array.from({ length: 3 }, () => connections.add("10.0.0.1", () => {}));
  assert.equal(connections.limitFor("10.0.0.1"), "connections_per_client");
  assert.equal(connections.limitFor("10.0.0.2"), null);
  crowd[0]!.remove();
  crowd[0]!.remove();
  assert.equal(connections.limitFor("10.0.0.1"), null);
  for (const client of ["10.0.0.1", "10.0.0.2", "10.0.0.3"]) connections.add(client, () => {});
  assert.equal(connections.limitFor("10.0.0.4"), "connections");
});
