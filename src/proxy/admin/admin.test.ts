import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSocketAddress, type IpAddress, type SocketAddress } from "#/base/address.ts";
import type { Fields } from "#/base/fields.ts";
import { LIMITS } from "#/model/limits.ts";
import { Guard } from "#/stack/http/guard.ts";
import { ManualClock, memoryPair, MemoryConn } from "#/stack/http/testing.ts";
import { latin1Bytes } from "#/wire/latin1.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { Admin } from "./admin.ts";

const SUBJECT = {
  isReady: true,
  metrics: () => "",
  drainState: () => ({ draining: false, inboundRequests: 0, inboundConnections: 0, inboundAccepted: 0 }),
  endpoints: (backend: string, fields: Fields) => (backend === "web:80" ? JSON.stringify(fields) : null),
  flows: () => ({
    version: 1 as const,
    sinceMs: 0,
    flows: [],
    beyond: { count: 0, denied: 0, wouldDeny: 0 },
  }),
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

test("who calls what is told to loopback and to root on the machine alone", () => {
  const clock = new ManualClock();
  const admin = new Admin(
    SUBJECT,
    clock,
    new Guard(LIMITS, "admin", clock, new Registry()),
    "10.0.0.254" as IpAddress,
  );
  const answerTo = (from: string): string => {
    const [here, there] = ["10.0.0.2:4191", from].map((text) => parseSocketAddress(text)!) as [
      SocketAddress,
      SocketAddress,
    ];
    const client = new MemoryConn(clock, 65_536, there, here);
    const server = new MemoryConn(clock, 65_536, here, there);
    client.peer = server;
    server.peer = client;
    admin.accept(server);
    client.write(latin1Bytes("GET /flows HTTP/1.1\r\nHost: a\r\n\r\n"));
    clock.settle();
    return server.written;
  };
  for (const from of ["127.0.0.1:40000", "[::1]:40000", "10.0.0.254:1023"])
    assert.match(answerTo(from), /^HTTP\/1\.1 200 .*"flows":\[\]/s, from);
  for (const from of ["10.0.0.254:1024", "10.0.0.7:1023"])
    assert.match(answerTo(from), /^HTTP\/1\.1 403 /, from);
});

test("how endpoints look is told of a Service that the workload uses, and of no other", () => {
  const clock = new ManualClock();
  const registry = new Registry();
  const admin = new Admin(SUBJECT, clock, new Guard(LIMITS, "admin", clock, registry));
  const answerTo = (target: string): string => {
    const [client, server] = memoryPair(clock);
    admin.accept(server);
    client.write(latin1Bytes(`GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`));
    clock.settle();
    return server.written;
  };
  const found = answerTo("/endpoints?backend=web:80&header=X-User:%20u1&header=cookie:a%3Db");
  assert.match(found, /^HTTP\/1\.1 200 .*\["x-user","u1","cookie","a=b"\]\n$/s);
  assert.match(answerTo("/endpoints?backend=nobody:80"), /^HTTP\/1\.1 404 /);
  assert.match(answerTo("/endpoints"), /^HTTP\/1\.1 400 /);
});

function answers(request: string): string {
  const clock = new ManualClock();
  const admin = new Admin(SUBJECT, clock, new Guard(LIMITS, "admin", clock, new Registry()));
  const [here, there] = ["127.0.0.1:4191", "127.0.0.1:40000"].map((text) => parseSocketAddress(text)!) as [
    SocketAddress,
    SocketAddress,
  ];
  const client = new MemoryConn(clock, 65_536, there, here);
  const server = new MemoryConn(clock, 65_536, here, there);
  client.peer = server;
  server.peer = client;
  admin.accept(server);
  client.write(latin1Bytes(request));
  clock.settle();
  return server.written;
}

test("attack: a page whose name was bound to a sidecar's address gets nothing (DNS rebinding)", () => {
  for (const host of [
    "attacker.example",
    "attacker.example:4191",
    "web.svc.attacker.example",
    "1.2.3.4.example",
    "127.0.0.1.nip.io",
  ])
    for (const path of ["/metrics", "/flows", "/ready"])
      assert.match(answers(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`), /^HTTP\/1\.1 421 /, host);
  for (const host of [
    "localhost:4191",
    "10.0.0.2:4191",
    "[::1]:4191",
    "[fd00::2]",
    "web-0",
    "web.shop.svc",
    "web.shop.svc.cluster.local:4191",
  ])
    assert.match(answers(`GET /ready HTTP/1.1\r\nHost: ${host}\r\n\r\n`), /^HTTP\/1\.1 200 /, host);
});

test("attack: no page in a browser changes a sidecar's state, or reads what it shows (cross-site requests)", () => {
  const change = (fields: string): string =>
    answers(
      `PUT /proxy-log-level HTTP/1.1\r\nHost: localhost:4191\r\n${fields}Content-Length: 4\r\n\r\ninfo`,
    );
  for (const fields of [
    "Origin: https://attacker.example\r\n",
    "Origin: null\r\n",
    "Origin: http://localhost:4191\r\n",
    "Sec-Fetch-Site: cross-site\r\n",
    "Sec-Fetch-Site: same-site\r\n",
    "sec-fetch-site: same-origin\r\n",
  ])
    assert.match(change(fields), /^HTTP\/1\.1 403 /, fields);
  assert.match(change(""), /^HTTP\/1\.1 204 /);
  assert.match(
    answers("POST /shutdown HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nContent-Length: 0\r\n\r\n"),
    /^HTTP\/1\.1 403 /,
  );
  const read = answers(
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: https://attacker.example\r\n\r\n",
  );
  assert.match(read, /x-content-type-options: nosniff\r\ncross-origin-resource-policy: same-origin\r\n/);
  assert.doesNotMatch(read, /access-control/i);
  assert.match(
    answers("OPTIONS /shutdown HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\n\r\n"),
    /^HTTP\/1\.1 40\d /,
  );
});
