import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { wireJwt } from "#/control/answers/encode-jwt.ts";
import { ServerSchema } from "#/gen/linkerd/inbound_pb.ts";
import { JwtPolicySchema } from "#/gen/pillion/access_pb.ts";
import type { JwtPolicy, RequestCondition } from "#/model/access.ts";
import { decodeInboundPolicy } from "#/proxy/control/decode-inbound.ts";
import { ProtoWriter } from "#/wire/proto.ts";

const SOURCE = {
  group: "pillion.dev",
  kind: "JwtPolicy",
  namespace: "shop",
  name: "users",
  section: "",
  port: 0,
};
const ANY: RequestCondition = { methods: null, paths: null, hosts: null, headers: [], query: [], claims: [] };
const ISSUER = {
  issuer: "https://login.test",
  audiences: ["a", "b"],
  jwks: '{"keys":[]}',
  leewayMs: 1_500,
  headers: ["authorization", "x-token"],
  forwards: true,
  claimHeaders: [{ claim: "sub", header: "X-User" }],
};

function read(jwt: ReturnType<typeof wireJwt>): JwtPolicy | null | undefined {
  const protocol = { kind: { case: "http2" as const, value: {} } };
  return decodeInboundPolicy(toBinary(ServerSchema, create(ServerSchema, { protocol, jwt })))?.jwt;
}

test("a policy on tokens comes out of the contract as it went in", () => {
  const bare = {
    ...ISSUER,
    issuer: "b",
    audiences: [],
    jwks: "",
    leewayMs: 0,
    forwards: false,
    claimHeaders: [],
  };
  const paths = [{ kind: "prefix", value: "/admin" }] as const;
  for (const required of [null, [], [ANY], [{ ...ANY, methods: ["POST"], paths }, ANY]]) {
    const policy = { source: SOURCE, issuers: [ISSUER, bare], required };
    assert.deepEqual(read(wireJwt(policy)), policy);
  }
});

test("a policy on tokens that is not known whole is not followed", () => {
  const wire = wireJwt({ source: SOURCE, issuers: [ISSUER], required: null });
  const server = toBinary(
    ServerSchema,
    create(ServerSchema, { protocol: { kind: { case: "http2", value: {} } } }),
  );
  const message = toBinary(JwtPolicySchema, create(JwtPolicySchema, wire));
  const withField = (...more: number[]): JwtPolicy | null | undefined => {
    const bytes = new ProtoWriter().bytes(10_002, Buffer.concat([message, Buffer.from(more)])).finish();
    return decodeInboundPolicy(Buffer.concat([server, bytes]))?.jwt;
  };
  assert.equal(withField()?.issuers.length, 1);
  // Field 15, a number.
  assert.equal(withField(0x78, 0x01), undefined);
  assert.equal(read({ ...wire, issuers: [] }), undefined);
  assert.equal(
    read(wireJwt({ source: SOURCE, issuers: [{ ...ISSUER, headers: [] }], required: null })),
    undefined,
  );
  const regex = { ...ANY, paths: [{ kind: "regex", value: "(" }] } as const;
  assert.equal(read(wireJwt({ source: SOURCE, issuers: [ISSUER], required: [regex] })), undefined);
});
