import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { IpAddress } from "#/base/address.ts";
import type { Fields } from "#/base/fields.ts";
import type { AccessDecision } from "#/model/access.ts";
import { ANY_METHOD, ANY_PATH } from "#/model/flow.ts";
import type { Flow } from "#/model/flow.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import { FLOW_BOUNDS, FlowRecorder } from "./flows.ts";
import type { FlowBounds } from "./flows.ts";

type NotedRequest = NonNullable<Parameters<FlowRecorder["decided"]>[4]>;
const IP = "10.0.0.7" as IpAddress;

function source(name: string): AccessDecision["by"] {
  return {
    group: "pillion.dev",
    kind: "AuthorizationPolicy",
    namespace: "shop",
    name,
    section: "0",
    port: 0,
  };
}

const ALLOWED: AccessDecision = {
  verdict: "allowed",
  by: source("web"),
  reason: "",
  would: null,
  audits: [],
};
const DENIED: AccessDecision = { ...ALLOWED, verdict: "denied", reason: "nobody may" };
const WOULD: AccessDecision = { ...ALLOWED, would: { verdict: "would_deny", by: source("strict") } };

function peer(account: string): PeerIdentity {
  const identity = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: account };
  return { identity, name: `${account}.shop.serviceaccount.identity.pillion.cluster.local` };
}

function request(method: string, path: string, fields: Fields = []): NotedRequest {
  return { method, path, version: "2", fields };
}

/** A recorder with a clock that goes on by one with each look at it. */
class Scene {
  nowMs = 1000;
  readonly recorder: FlowRecorder;
  constructor(bounds: Partial<FlowBounds> = {}) {
    this.recorder = new FlowRecorder(() => this.nowMs++, { ...FLOW_BOUNDS, ...bounds });
  }
  note(who: string, asked: NotedRequest | null, decision: AccessDecision = ALLOWED, port = 80): void {
    const isAddress = /^[0-9a-f:.]+$/.test(who) && /[.:]/.test(who);
    const ip = isAddress ? (who as IpAddress) : IP;
    this.recorder.decided(decision, port, { ip }, isAddress ? null : peer(who), asked);
  }
  flows(): readonly Flow[] {
    return this.recorder.page().flows;
  }
}

test("requests that are alike are one flow; client, port, method, path and verdict tell them apart", () => {
  const scene = new Scene();
  for (const path of ["/orders/17", "/orders/18?full=1", "/orders/9"])
    scene.note("front", request("GET", path));
  scene.note("front", request("PUT", "/orders/17"));
  scene.note("front", request("GET", "/orders"));
  scene.note("front", request("GET", "/orders/17"), DENIED);
  scene.note("front", request("GET", "/orders/17"), WOULD);
  scene.note("front", request("GET", "/orders/17"), ALLOWED, 81);
  scene.note("back", request("GET", "/orders/17"));
  scene.note("front", null);
  scene.note("front", null);
  assert.deepEqual(
    scene
      .flows()
      .map(({ client, port, protocol, method, path, verdict, would, count }) =>
        [client.identity.split(".")[0], port, protocol, method, path, verdict, would?.verdict, count].join(
          " ",
        ),
      )
      .toSorted(),
    [
      "back 80 http GET /orders/{number} allowed  1",
      "front 80 http GET /orders allowed  1",
      "front 80 http GET /orders/{number} allowed  3",
      "front 80 http GET /orders/{number} allowed would_deny 1",
      "front 80 http GET /orders/{number} denied  1",
      "front 80 http PUT /orders/{number} allowed  1",
      "front 80 opaque   allowed  2",
      "front 81 http GET /orders/{number} allowed  1",
    ],
  );
  const first = scene.flows()[0]!;
  assert.deepEqual(
    [first.firstSeenMs < first.lastSeenMs, first.rule],
    [true, "AuthorizationPolicy/shop/web 0"],
  );
});

test("ids are folded to their kind, words and versions stay", () => {
  for (const [path, template] of [
    ["/v1/orders/17/lines/3?x=1", "/v1/orders/{number}/lines/{number}"],
    ["/u/5f0c0e7a-7b1e-4c8e-9a53-0b7a5d1c2e3f", "/u/{uuid}"],
    ["/commit/deadbeef01", "/commit/{hex}"],
    ["/facade/customer7/p1", "/facade/customer7/p1"],
    ["/s/0a1B2c3D4e5F6g7H8i9J0k", "/s/{token}"],
    ["/assets/bootstrap-5.3.0.min.css", "/assets/bootstrap-5.3.0.min.css"],
    ["/", "/"],
    ["//x/", "//x/"],
    ["*", "*"],
    ["/{number}/\u00e9", "/%7Bnumber%7D/%E9"],
  ] as const)
    assert.equal(folded(path), template);
});

function folded(path: string): string {
  const scene = new Scene();
  scene.note("front", request("GET", path));
  return scene.flows()[0]!.path;
}

test("a path belongs to the flow of its folded form and to no other", () => {
  const segment = fc.constantFrom(
    "a",
    "b1",
    "17",
    "003",
    "deadbeef01",
    "",
    "{number}",
    "%41",
    "x".repeat(30),
  );
  const path = fc.array(segment, { maxLength: 5 }).map((parts) => `/${parts.join("/")}`);
  fc.assert(
    fc.property(fc.array(path, { minLength: 1, maxLength: 30 }), (paths) => {
      const scene = new Scene();
      for (const each of paths) scene.note("front", request("GET", each));
      const expected = new Map<string, number>();
      for (const each of paths) expected.set(folded(each), (expected.get(folded(each)) ?? 0) + 1);
      assert.deepEqual(new Map(scene.flows().map((flow) => [flow.path, flow.count])), expected);
    }),
  );
});

test("a gRPC call is told by its content type, and its method is never folded", () => {
  const scene = new Scene();
  const fields: Fields = ["content-type", "application/grpc+proto"];
  scene.note("front", request("POST", "/shop.Orders/12345678", fields));
  scene.note("front", request("POST", "/shop.Orders/87654321", fields));
  scene.note("front", request("POST", "/shop.Orders/12345678", fields));
  assert.deepEqual(
    scene.flows().map(({ protocol, path, count }) => [protocol, path, count]),
    [
      ["grpc", "/shop.Orders/87654321", 1],
      ["grpc", "/shop.Orders/12345678", 2],
    ],
  );
});

test("one client's inventions become one flow, and leave others their places", () => {
  const scene = new Scene({ flowsPerClientMax: 10 });
  for (let i = 0; i < 1000; i++) scene.note("noisy", request("GET", `/made-up-${i}`));
  for (let i = 0; i < 1000; i++) scene.note("noisy", request(`M${i}`, "/"));
  scene.note("front", request("GET", "/x"));
  const noisy = scene.flows().filter((flow) => flow.client.identity.startsWith("noisy"));
  assert.equal(noisy.length, 11);
  const any = noisy.find((flow) => flow.path === ANY_PATH)!;
  assert.deepEqual([any.method, any.count], [ANY_METHOD, 1990]);
  assert.equal(scene.recorder.page().beyond.count, 0);
  assert.ok(scene.flows().some((flow) => flow.client.identity.startsWith("front")));
});

test("beyond the bound requests are counted as one; clients without identity cannot take more than their part", () => {
  const scene = new Scene({ flowsMax: 20, anonymousFlowsMax: 8, addressesMax: 4 });
  for (let i = 0; i < 200; i++) scene.note(`10.${i >> 4}.${i & 15}.1`, request("GET", "/"), DENIED);
  assert.equal(scene.flows().length, 8);
  assert.deepEqual(scene.recorder.page().beyond, { count: 192, denied: 192, wouldDeny: 0 });
  for (let i = 0; i < 50; i++) scene.note(`account-${i}`, null, WOULD);
  assert.equal(scene.flows().length, 20);
  assert.deepEqual(scene.recorder.page().beyond, { count: 230, denied: 192, wouldDeny: 38 });
});

test("many addresses without identity are told by network", () => {
  const scene = new Scene({ addressesMax: 2 });
  for (const ip of ["10.0.0.1", "10.0.0.2", "10.0.9.3", "10.0.9.4", "fd00:1:2:3::9"]) scene.note(ip, null);
  assert.deepEqual(
    scene.flows().map(({ client, count }) => [client.identity, client.address, count]),
    [
      ["", "10.0.0.1", 1],
      ["", "10.0.0.2", 1],
      ["", "10.0.9.0/24", 2],
      ["", "fd00:1:2:3::/64", 1],
    ],
  );
});

test("what the pod asks of itself is not noted", () => {
  const scene = new Scene();
  scene.note("127.0.0.1", null);
  scene.note("::1", request("GET", "/"));
  assert.deepEqual(scene.flows(), []);
});

test("refusals have samples, a few, without query and header values, and nothing a terminal could take for its own", () => {
  const scene = new Scene();
  for (let i = 0; i < 5; i++)
    scene.note(
      "front",
      request("GET", `/x\u001b[2J\n\u009b/${i}?token=secret`, ["authorization", "Bearer secret"]),
      { ...DENIED, reason: "no\r\nrule" },
    );
  scene.note("front", request("GET", "/fine"));
  const [refused, fine] = scene.flows();
  assert.equal(refused!.count, 5);
  assert.equal(refused!.samples.length, 2);
  assert.deepEqual(fine!.samples, []);
  const { path, reason, address } = refused!.samples[0]!;
  assert.deepEqual([path, reason, address], ["/x%1B[2J%0A%9B/0", "no%0D%0Arule", IP]);
  const text = JSON.stringify(scene.recorder.page());
  assert.doesNotMatch(text, /secret/);
  assert.match(text, /^[\x20-\x7e]*$/);
});

test("paths longer than are looked at are one flow", () => {
  const scene = new Scene();
  scene.note("front", request("GET", `/${"x".repeat(600)}`));
  scene.note("front", request("GET", `/${"y".repeat(700)}`));
  assert.deepEqual(
    scene.flows().map(({ path, count }) => [path, count]),
    [[ANY_PATH, 2]],
  );
});
