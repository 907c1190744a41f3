import assert from "node:assert/strict";
import { test } from "node:test";
import { cannotRun } from "../../e2e/sidecar/rig/mesh.ts";
import { judgeWebSocket } from "./websocket.ts";

test(
  "libraries that nobody here wrote talk WebSocket through two sidecars (RFC 6455, RFC 7692, RFC 8441)",
  { skip: cannotRun() ?? false },
  async () => assert.deepEqual((await judgeWebSocket({ isShort: true })).problems, []),
);
