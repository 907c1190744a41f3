import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { wireAccess } from "#/control/answers/encode-access.ts";
import { ServerSchema } from "#/gen/linkerd/inbound_pb.ts";
import type { AccessPolicy } from "#/model/access.ts";
import { decodeInboundPolicy } from "#/proxy/control/decode-inbound.ts";
import { accessPolicies } from "./access-models.ts";

// Who may, as the control plane means it, is what the sidecar keeps.

function sent(access: AccessPolicy): Uint8Array {
  const protocol = { kind: { case: "http2" as const, value: {} } };
  return toBinary(ServerSchema, create(ServerSchema, { protocol, access: wireAccess(access) }));
}

test("who may use a port comes out of the contract as it went in", () => {
  fc.assert(
    fc.property(accessPolicies, (access) => {
      assert.deepEqual(decodeInboundPolicy(sent(access))?.access, access);
    }),
    { numRuns: 500 },
  );
});

test("bytes that were changed never throw", () => {
  fc.assert(
    fc.property(
      accessPolicies,
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      (access, changes) => {
        const bytes = sent(access);
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        decodeInboundPolicy(bytes);
      },
    ),
    { numRuns: 500 },
  );
});
