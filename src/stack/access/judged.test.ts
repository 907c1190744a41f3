import assert from "node:assert/strict";
import { test } from "node:test";
import { judged } from "./judged.ts";

test("attack: what opens a WebSocket over HTTP/2 is a GET to rules, and what opens another tunnel is a CONNECT (RFC 8441 §5, RFC 9298)", () => {
  const methodOf = (method: string, upgrade: string | null): string =>
    judged({
      method,
      scheme: "https",
      authority: "web",
      path: "/",
      version: "2",
      absoluteForm: false,
      upgrade,
      fields: [],
    }).method;
  assert.deepEqual(
    [methodOf("CONNECT", "websocket"), methodOf("CONNECT", "WebSocket"), methodOf("CONNECT", "connect-udp")],
    ["GET", "GET", "CONNECT"],
  );
  assert.deepEqual([methodOf("CONNECT", null), methodOf("POST", null)], ["CONNECT", "POST"]);
});
