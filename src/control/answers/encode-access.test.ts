import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { AccessPolicySchema, AccessRule_Action } from "#/gen/pillion/access_pb.ts";
import type { AccessRule } from "#/model/access.ts";
import { wireAccess } from "./encode-access.ts";

const RULE: AccessRule = {
  action: "allow",
  stage: "both",
  source: { group: "", kind: "default", namespace: "", name: "x", section: "", port: 0 },
  sources: null,
  requests: null,
  route: null,
  layer: "both",
};

function sent(...rules: readonly AccessRule[]) {
  const bytes = toBinary(AccessPolicySchema, wireAccess({ routes: [], rules }));
  return fromBinary(AccessPolicySchema, bytes).rules;
}

test("nobody and anyone, nothing and everything are told apart", () => {
  const [open, shut] = sent(RULE, { ...RULE, sources: [], requests: [] });
  assert.equal(open!.sources, undefined);
  assert.equal(open!.requests, undefined);
  assert.deepEqual(shut!.sources?.sources, []);
  assert.deepEqual(shut!.requests?.conditions, []);
});

test("the first route is a route, and no route is none", () => {
  const [first, none] = sent({ ...RULE, route: 0 }, RULE);
  assert.equal(first!.route, 0);
  assert.equal(none!.route, undefined);
});

test("addresses of both families are networks, also alone and with what they are less", () => {
  const networks = [
    { net: "10.0.0.0/8", except: ["10.1.0.0/16", "10.2.3.4"] },
    { net: "fd00::/8", except: ["fd00::1"] },
  ];
  const [rule] = sent({ ...RULE, action: "deny", sources: [{ peer: { kind: "anyone" }, networks }] });
  assert.equal(rule!.action, AccessRule_Action.DENY);
  const [source] = rule!.sources!.sources;
  assert.equal(source!.peer.case, "anyone");
  assert.deepEqual(
    source!.networks!.networks.map(({ net, except }) => [
      net!.prefixLen,
      except.map((each) => each.prefixLen),
    ]),
    [
      [8, [16, 32]],
      [8, [128]],
    ],
  );
});

test("a call by gRPC is one of the paths", () => {
  const condition = { methods: null, hosts: null, headers: [], query: [], claims: [] };
  const paths = [
    { kind: "rpc", service: "a.B", method: "" },
    { kind: "prefix", value: "/x" },
  ] as const;
  const [rule] = sent({ ...RULE, requests: [{ ...condition, paths }] });
  const kinds = rule!.requests!.conditions[0]!.paths!.paths.map(({ kind }) => kind.case);
  assert.deepEqual(kinds, ["rpc", "path"]);
});
