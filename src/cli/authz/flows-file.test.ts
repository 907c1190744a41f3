import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { FlowRecorder } from "#/stack/access/flows.ts";
import type { IpAddress } from "#/base/address.ts";
import { CommandError } from "../exit.ts";
import { flowsText } from "./flows-text.ts";
import { joined, joinedFlows, parseFlowPage, parseFlowsFile } from "./flows-file.ts";
import { file, flow, server } from "./testing.ts";

const SAMPLE = { atMs: 1, address: "10.0.0.1", method: "GET", path: "/x", reason: "nobody may" };
const SEEN = file(
  server("web", [
    flow("front", "GET /a", { would: { verdict: "would_deny", rule: "r" }, samples: [SAMPLE] }),
    flow("10.0.0.0/24", "", { port: 6379 }),
    flow("front", "gRPC shop.Pricing/Quote"),
  ]),
  server("bare", [], { selector: null, services: [] }),
);

test("what is printed as JSON is read back as it was", () => {
  assert.deepEqual(parseFlowsFile(JSON.stringify(SEEN), "flows.json"), SEEN);
});

test("what is no file of flows is refused with file and field", () => {
  const broken = (change: (seen: { servers: { flows: Record<string, unknown>[] }[] }) => void): string => {
    const copy = JSON.parse(JSON.stringify(SEEN)) as { servers: { flows: Record<string, unknown>[] }[] };
    change(copy);
    try {
      parseFlowsFile(JSON.stringify(copy), "flows.json");
    } catch (error) {
      assert.ok(error instanceof CommandError);
      assert.equal(error.exitCode, 2);
      return error.message;
    }
    return "taken";
  };
  const first = (name: string, value: unknown): string =>
    broken((seen) => void (seen.servers[0]!.flows[0]![name] = value));
  assert.equal(first("port", 0), "flows.json: servers[0].flows[0].port must be a port, not 0");
  assert.match(first("count", -1), /flows\[0\]\.count must be a number of 0 or more/);
  assert.match(first("verdict", "maybe"), /flows\[0\]\.verdict must be one of "allowed"/);
  assert.match(first("protocol", "opaque"), /flows\[0\]\.method must be one of ""/);
  assert.match(
    first("client", { identity: "a\nb", address: "10.0.0.1" }),
    /client\.identity must be an identity/,
  );
  assert.match(first("client", { identity: "a", address: "here" }), /client\.address must be an address/);
  assert.match(first("extra", 1), /flows\[0\]\.extra is not known here/);
  for (const name of ["rule", "path"])
    for (const text of ["/x\u001b[2J", "/a\n# b", "/\u009b", "/\u202e"])
      assert.match(first(name, text), new RegExp(`${name} must be`));
  assert.match(
    broken((seen) => void ((seen as unknown as { kind: string }).kind = "x")),
    /is no file of flows/,
  );
  assert.throws(() => parseFlowsFile("{", "flows.json"), /flows\.json is no JSON/);
  assert.throws(() => parseFlowsFile("[]", "flows.json"), /flows\.json: must be an object/);
});

test("no text makes it throw anything but an error for people", () => {
  fc.assert(
    fc.property(fc.json(), (text) => {
      try {
        parseFlowsFile(text, "x");
      } catch (error) {
        assert.ok(error instanceof CommandError);
      }
    }),
  );
});

test("whatever clients write, what a sidecar tells of it is taken, and prints without control characters", () => {
  const text = fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)) });
  fc.assert(
    fc.property(fc.array(text), text, (paths, reason) => {
      const recorder = new FlowRecorder(() => 1);
      const by = { group: "", kind: "default", namespace: "", name: "deny", section: "", port: 0 };
      for (const path of paths)
        recorder.decided(
          { verdict: "denied", by, reason, would: null, audits: [] },
          80,
          { ip: "10.0.0.1" as IpAddress },
          null,
          { method: "GET", path: `/${path}`, version: "1.1", fields: [] },
        );
      const page = parseFlowPage(JSON.stringify(recorder.page()), "x");
      const printed = flowsText(file(server("web", page.flows)));
      // eslint-disable-next-line no-control-regex
      assert.doesNotMatch(printed, /[^\n\x20-\x7e]/);
    }),
  );
});

test("flows of several pods and files that are alike are added up", () => {
  const one = flow("front", "GET /a", { firstSeenMs: 5, lastSeenMs: 9 });
  const other = flow("front", "GET /a", { firstSeenMs: 2, lastSeenMs: 7, count: 1 });
  const beyond = { count: 1, denied: 1, wouldDeny: 0 };
  const both = joinedFlows([
    { flows: [one], beyond },
    { flows: [other, flow("front", "GET /b")], beyond },
  ]);
  assert.deepEqual(
    both.flows.map(({ path, count, firstSeenMs, lastSeenMs }) => [path, count, firstSeenMs, lastSeenMs]),
    [
      ["/a", 11, 2, 9],
      ["/b", 10, flow("front", "GET /b").firstSeenMs, flow("front", "GET /b").lastSeenMs],
    ],
  );
  assert.equal(both.beyond.count, 2);
  const files = joined([file(server("web", [one])), file(server("web", [other]), server("api", [one]))]);
  assert.deepEqual(
    files.servers.map(({ workload, flows }) => [workload, flows.map(({ count }) => count)]),
    [
      ["deployment/web", [11]],
      ["deployment/api", [10]],
    ],
  );
});
