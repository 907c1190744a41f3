import assert from "node:assert/strict";
import { test } from "node:test";
import { LIMITS } from "#/model/limits.ts";
import { Guard } from "#/stack/http/guard.ts";
import { ManualClock, memoryPair, type MemoryConn } from "#/stack/http/testing.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { Admin } from "./admin.ts";

const SUBJECT = {
  isReady: true,
  metrics: () => "",
  drainState: () => ({ draining: false, inboundRequests: 0, inboundConnections: 0, inboundAccepted: 0 }),
  logLevel: "info",
  shutdown: () => {},
};

test("one who holds all the connections of the admin port that it may cannot shut out the others", () => {
  const clock = new ManualClock();
  const registry = new Registry();
  const admin = new Admin(SUBJECT, clock, new Guard(LIMITS, "admin", clock, registry));
  const opened: MemoryConn[] = [];
  for (let i = 0; i < 130; i++) {
    const [client, server] = memoryPair(clock);
    opened.push(client);
    admin.accept(server);
  }
  clock.settle();
  assert.equal(opened.filter((conn) => conn.isClosed).length, 2);
  assert.match(
    registry.render(),
    /pillion_limit_reached_total\{limit="connections_per_client",direction="admin"\} 2\n/,
  );
  // Nor for ever: who says nothing is let go.
  clock.advance(LIMITS.idleMs + 2_000);
  for (const conn of opened) conn.end();
  clock.settle();
  const [, next] = memoryPair(clock);
  admin.accept(next);
  clock.settle();
  assert.equal(next.isClosed, false);
});
