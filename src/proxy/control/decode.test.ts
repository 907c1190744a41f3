import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { UpdateSchema, WeightedAddrSchema } from "#/gen/linkerd/destination_pb.ts";
import { OutboundPolicySchema, type BackendSchema } from "#/gen/linkerd/outbound_pb.ts";
import { ProtoReader } from "#/wire/proto.ts";
import { decodeEndpoint } from "./decode-endpoint.ts";
import { policyTo } from "#/model/policy.ts";
import { decodeInboundPolicy } from "./decode-inbound.ts";
import { decodeOutboundPolicy } from "./decode-outbound.ts";

// What the library for all of protobuf writes, our reader understands.

const WEB = "web.shop.serviceaccount.identity.linkerd.cluster.local";
const meta = {
  kind: {
    case: "resource" as const,
    value: { group: "core", kind: "Service", name: "web", namespace: "shop", port: 80 },
  },
};
const source = { group: "core", kind: "Service", namespace: "shop", name: "web", section: "", port: 80 };

function endpoint(init: MessageInitShape<typeof WeightedAddrSchema>): ReturnType<typeof decodeEndpoint> {
  return decodeEndpoint(new ProtoReader(toBinary(WeightedAddrSchema, create(WeightedAddrSchema, init))), {
    service: "web",
  });
}

test("reads a meshed endpoint, IPv4 and IPv6 (facts §10)", () => {
  const init: MessageInitShape<typeof WeightedAddrSchema> = {
    addr: { ip: { ip: { case: "ipv4", value: 0x0a000001 } }, port: 8080 },
    weight: 10_000,
    metricLabels: { pod: "web-1" },
    tlsIdentity: { strategy: { case: "dnsLikeIdentity", value: { name: WEB } } },
    protocolHint: { protocol: { case: "h2", value: {} }, opaqueTransport: { inboundPort: 4143 } },
  };
  assert.deepEqual(endpoint(init), {
    address: { ip: "10.0.0.1", port: 8080 },
    weight: 10_000,
    identity: { name: WEB, serverName: WEB },
    protocolHint: "http2",
    tunnelPort: 4143,
    authorityOverride: null,
    labels: { service: "web", pod: "web-1" },
  });
  const six = endpoint({
    ...init,
    addr: { ip: { ip: { case: "ipv6", value: { first: 0xfd00_0000_0000_0000n, last: 1n } } }, port: 1 },
  });
  assert.deepEqual(six?.address, { ip: "fd00::1", port: 1 });
});

test("an endpoint with a URI identity needs a server name, one without an address is none", () => {
  const addr = { ip: { ip: { case: "ipv4" as const, value: 1 } }, port: 1 };
  const strategy = { case: "uriLikeIdentity" as const, value: { uri: "spiffe://x/y" } };
  assert.equal(endpoint({ addr, tlsIdentity: { strategy } })?.identity, null);
  assert.deepEqual(endpoint({ addr, tlsIdentity: { strategy, serverName: { name: "n" } } })?.identity, {
    name: "spiffe://x/y",
    serverName: "n",
  });
  assert.equal(endpoint({ weight: 1 }), null);
  assert.equal(
    endpoint({ addr, protocolHint: { protocol: { case: "opaque", value: {} } } })?.protocolHint,
    "opaque",
  );
  assert.equal(
    endpoint({ addr, authorityOverride: { authorityOverride: "a.b:80" } })?.authorityOverride,
    "a.b:80",
  );
});

const balancer: MessageInitShape<typeof BackendSchema> = {
  metadata: meta,
  queue: { capacity: 100 },
  kind: {
    case: "balancer",
    value: {
      discovery: { kind: { case: "dst", value: { path: "web.shop.svc.cluster.local:80" } } },
      load: { case: "peakEwma", value: { defaultRtt: { nanos: 40_000_000 }, decay: { seconds: 5n } } },
    },
  },
};
const distribution = {
  kind: { case: "firstAvailable" as const, value: { backends: [{ backend: balancer }] } },
};

function policy(
  init: MessageInitShape<typeof OutboundPolicySchema>,
): ReturnType<typeof decodeOutboundPolicy> {
  return decodeOutboundPolicy(toBinary(OutboundPolicySchema, create(OutboundPolicySchema, init)));
}

test("reads a detect policy with its balancer", () => {
  const http = { routes: [{ metadata: meta, rules: [{ backends: distribution }] }] };
  const opaque = { routes: [{ metadata: meta, rules: [{ backends: distribution }] }] };
  const decoded = policy({
    metadata: meta,
    protocol: {
      kind: { case: "detect", value: { timeout: { seconds: 10n }, opaque, http1: http, http2: http } },
    },
  });
  const backend = {
    kind: "balancer",
    source,
    path: "web.shop.svc.cluster.local:80",
    defaultRttMs: 40,
    decayMs: 5000,
    traffic: null,
  } as const;
  assert.deepEqual(decoded, policyTo(backend, source, "detect"));
});

test("reads each protocol's own number, and weighted and opaque backends", () => {
  const routes = [
    {
      metadata: meta,
      rules: [
        {
          backends: {
            kind: {
              case: "randomAvailable" as const,
              value: { backends: [{ weight: 1, backend: { backend: balancer } }] },
            },
          },
        },
      ],
    },
  ];
  for (const name of ["opaque", "http1", "http2", "grpc", "tls"] as const) {
    const decoded = policy({
      metadata: meta,
      protocol: { kind: { case: name, value: { routes } } } as never,
    });
    assert.equal(decoded?.protocol, name);
    assert.equal(decoded?.backend.kind, "balancer");
  }
});

test("what forbids, fails or leads nowhere is forbidden, with its reason", () => {
  const opaque = (rule: object): ReturnType<typeof policy> =>
    policy({
      metadata: meta,
      protocol: { kind: { case: "opaque", value: { routes: [{ metadata: meta, rules: [rule] }] } } },
    });
  const forbidding = opaque({
    backends: distribution,
    filters: [{ kind: { case: "forbidden", value: {} } }],
  });
  assert(forbidding?.backend.kind === "forbidden");
  assert.match(forbidding.backend.reason, /forbids/);
  assert.equal(opaque({ backends: { kind: { case: "empty", value: {} } } })?.backend.kind, "forbidden");
  const http = policy({
    metadata: meta,
    protocol: {
      kind: {
        case: "http1",
        value: {
          routes: [
            {
              metadata: meta,
              rules: [
                {
                  backends: distribution,
                  filters: [
                    { kind: { case: "failureInjector", value: { status: 500, message: "no such port" } } },
                  ],
                },
              ],
            },
          ],
        },
      },
    },
  });
  assert(http?.backend.kind === "forbidden");
  assert.equal(http.backend.reason, "no such port");
  assert.equal(policy({ metadata: meta }), null);
});

test("a message that is cut off anywhere allows nothing and never throws", () => {
  const update = toBinary(
    UpdateSchema,
    create(UpdateSchema, { update: { case: "noEndpoints", value: { exists: true } } }),
  );
  const bytes = toBinary(
    OutboundPolicySchema,
    create(OutboundPolicySchema, {
      metadata: meta,
      protocol: {
        kind: {
          case: "opaque",
          value: { routes: [{ metadata: meta, rules: [{ backends: distribution }] }] },
        },
      },
    }),
  );
  for (const whole of [update, bytes]) {
    for (let stop = 0; stop < whole.length; stop++) {
      decodeOutboundPolicy(whole.subarray(0, stop));
      assert.deepEqual(
        decodeInboundPolicy(whole.subarray(0, stop))?.access.rules.filter(
          ({ action }) => action !== "default",
        ) ?? [],
        [],
      );
    }
  }
});
