import assert from "node:assert/strict";
import { test } from "node:test";
import { toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { encodeOutboundPolicy } from "#/control/answers/encode-outbound.ts";
import { OutboundPolicySchema } from "#/gen/linkerd/outbound_pb.ts";
import { defaultBackendOf } from "#/model/policy.ts";
import { decodeOutboundPolicy } from "#/proxy/control/decode-outbound.ts";
import { ProtoWriter } from "#/wire/proto.ts";
import { outboundPolicies } from "./policy-models.ts";

// What the control plane means, the sidecar understands: the model on one side of the contract is the model on the other.

test("an outbound policy comes out of the contract as it went in", () => {
  fc.assert(
    fc.property(outboundPolicies, (policy) => {
      const bytes = toBinary(OutboundPolicySchema, encodeOutboundPolicy(policy));
      assert.deepEqual(decodeOutboundPolicy(bytes), policy);
    }),
    { numRuns: 300 },
  );
});

test("a policy that is cut off anywhere is not followed at all", () => {
  fc.assert(
    fc.property(outboundPolicies, fc.nat(), (policy, cut) => {
      const bytes = toBinary(OutboundPolicySchema, encodeOutboundPolicy(policy));
      const read = decodeOutboundPolicy(bytes.subarray(0, cut % bytes.length));
      // Only the last field, where the target itself leads, may be missing whole.
      if (read !== null) assert.deepEqual(read, { ...policy, backend: defaultBackendOf(policy) });
    }),
    { numRuns: 300 },
  );
});

test("bytes that are no policy never throw", () => {
  const changed = fc
    .tuple(outboundPolicies, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }))
    .map(([policy, changes]) => {
      const bytes = toBinary(OutboundPolicySchema, encodeOutboundPolicy(policy));
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      return bytes;
    });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 64 }), changed), (bytes) => {
      decodeOutboundPolicy(bytes);
    }),
    { numRuns: 300 },
  );
});

test("what might restrict and is not known makes a policy that is not followed", () => {
  const unknown = new ProtoWriter().message(99, new ProtoWriter());
  const plain = new ProtoWriter().message(1, new ProtoWriter());
  assert.notEqual(decodeOutboundPolicy(routed(plain)), null);
  const path = new ProtoWriter().message(1, unknown);
  const header = new ProtoWriter().message(2, new ProtoWriter().text(1, "a").message(99, new ProtoWriter()));
  for (const rule of [
    new ProtoWriter().message(1, path),
    new ProtoWriter().message(1, header),
    new ProtoWriter().message(2, unknown),
    new ProtoWriter().message(10_001, unknown),
  ])
    assert.equal(decodeOutboundPolicy(routed(rule)), null);
});

test("a path that would end the line of a request makes a policy that is not followed", () => {
  const redirectTo = (path: string): Uint8Array => {
    const redirect = new ProtoWriter().message(3, new ProtoWriter().text(1, path));
    return routed(new ProtoWriter().message(2, new ProtoWriter().message(3, redirect)));
  };
  assert.notEqual(decodeOutboundPolicy(redirectTo("/a%20b")), null);
  for (const path of ["/a b", "/a\r\nX: y", "/a\x7f", "/a?b", "/a#b"])
    assert.equal(decodeOutboundPolicy(redirectTo(path)), null, path);
});

/** A policy of one route with this rule. */
function routed(rule: ProtoWriter): Uint8Array {
  return new ProtoWriter()
    .message(
      1,
      new ProtoWriter().message(3, new ProtoWriter().message(1, new ProtoWriter().message(3, rule))),
    )
    .message(2, new ProtoWriter())
    .finish();
}
