import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PolicyWorld } from "./testing.ts";

const NAMESPACES = ["shop", "desk"];
const NAMES = ["a", "b", "gone"];
const name = fc.constantFrom(...NAMES);
const namespace = fc.constantFrom(...NAMESPACES);
const port = fc.constantFrom(80, 81, 9);

const SERVICES = NAMESPACES.flatMap((each) =>
  ["a", "b"].map((service) => ({
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: service, namespace: each, annotations: { "timeout.linkerd.io/request": "1s" } },
    spec: {
      selector: { app: service },
      ports: [
        { name: "http", port: 80 },
        { name: "tcp-x", port: 81 },
      ],
    },
  })),
);

const options = { requiredKeys: [] };
const parentRef = fc.record(
  {
    group: fc.constantFrom("", "core", "gateway.networking.k8s.io"),
    kind: fc.constantFrom("Service", "Gateway"),
    name,
    namespace,
    port,
    sectionName: fc.constantFrom("http", "tcp-x", "no"),
  },
  { requiredKeys: ["group", "kind", "name"] },
);
const backendRef = { name, namespace: fc.option(namespace, { nil: undefined }), port, weight: fc.nat(3) };
const mirror = fc.record({
  type: fc.constant("RequestMirror"),
  requestMirror: fc.record({ backendRef: fc.record({ name, port }), percent: fc.nat(100) }),
});
const filter = fc.oneof(
  mirror,
  fc.constant({ type: "ResponseHeaderModifier", responseHeaderModifier: { remove: ["x"] } }),
  fc.constant({ type: "ExtensionRef", extensionRef: { group: "x.example", kind: "F", name: "f" } }),
);
const filters = fc.uniqueArray(filter, { maxLength: 3, selector: (each) => each.type });
const backends = fc.array(fc.record({ ...backendRef, filters }), { maxLength: 3 });
const plainBackends = fc.array(fc.record(backendRef), { minLength: 1, maxLength: 3 });
const httpRule = fc.record(
  {
    matches: fc.array(
      fc.record(
        {
          path: fc.record({
            type: fc.constantFrom("Exact", "PathPrefix"),
            value: fc.constantFrom("/", "/x"),
          }),
          method: fc.constantFrom("GET", "POST"),
          headers: fc.constant([{ name: "x", value: "1" }]),
        },
        options,
      ),
      { maxLength: 3 },
    ),
    filters,
    backendRefs: backends,
    timeouts: fc.constant({ request: "2s", backendRequest: "0s" }),
    retry: fc.constant({ attempts: 2 }),
  },
  options,
);
const grpcRule = fc.record(
  {
    matches: fc.array(
      fc.record({
        method: fc.record({
          type: fc.constantFrom("Exact", "RegularExpression"),
          service: fc.constant("a.B"),
        }),
      }),
      { maxLength: 2 },
    ),
    filters,
    backendRefs: backends,
  },
  options,
);

const GATEWAY = "gateway.networking.k8s.io/v1";
const OURS = "pillion.dev/v1alpha1";
type Written = Readonly<Record<string, unknown>>;

function object(apiVersion: string, kind: string, spec: fc.Arbitrary<unknown>): fc.Arbitrary<Written> {
  const metadata = fc.record(
    {
      name: fc.constantFrom("r", "s", "t"),
      namespace,
      creationTimestamp: fc.constantFrom("2026-01-01T00:00:00Z", "long ago"),
    },
    { requiredKeys: ["name", "namespace"] },
  );
  return fc.record({ apiVersion: fc.constant(apiVersion), kind: fc.constant(kind), metadata, spec });
}

const parentRefs = fc.uniqueArray(parentRef, {
  maxLength: 3,
  selector: (each) => [each.kind, each.name].join(" "),
});
const connection = fc.tuple(fc.record({ backendRefs: plainBackends }));
const targetRefs = fc.uniqueArray(fc.record({ group: fc.constant(""), kind: fc.constant("Service"), name }), {
  minLength: 1,
  maxLength: 2,
  selector: (each) => each.name,
});

const anyObject: fc.Arbitrary<Written> = fc.oneof(
  object(
    GATEWAY,
    "HTTPRoute",
    fc.record({ parentRefs, rules: fc.array(httpRule, { minLength: 1, maxLength: 3 }) }),
  ),
  object(
    GATEWAY,
    "GRPCRoute",
    fc.record({ parentRefs, rules: fc.array(grpcRule, { minLength: 1, maxLength: 3 }) }),
  ),
  object(
    GATEWAY,
    "TLSRoute",
    fc.record({ parentRefs, hostnames: fc.constant(["*.a.example"]), rules: connection }),
  ),
  object(GATEWAY, "TCPRoute", fc.record({ parentRefs, rules: connection })),
  object(OURS, "TrafficPolicy", fc.record({ targetRefs, balancing: fc.constant({ algorithm: "Random" }) })),
  object(OURS, "FaultPolicy", fc.record({ targetRefs, faults: fc.constant([{ reset: {} }]) })),
  object(OURS, "RateLimitPolicy", fc.record({ targetRefs, rates: fc.constant([{ requests: 1 }]) })),
);
const anyObjects = fc.uniqueArray(anyObject, {
  maxLength: 8,
  selector: (each) =>
    JSON.stringify([
      each["kind"],
      (each["metadata"] as Written)["name"],
      (each["metadata"] as Written)["namespace"],
    ]),
});

function worldOf(objects: readonly Written[]): PolicyWorld {
  return new PolicyWorld([...SERVICES, ...objects].map((each) => `---\n${JSON.stringify(each)}\n`).join(""));
}

function answers(world: PolicyWorld): unknown {
  return NAMESPACES.flatMap((where) =>
    ["a", "b"].flatMap((service) =>
      [80, 81].flatMap((each) => NAMESPACES.map((client) => world.ask(`${where}/${service}`, each, client))),
    ),
  );
}

test("whatever valid objects say together, each gets a status, every question an answer, and their order does not matter", () => {
  fc.assert(
    fc.property(anyObjects, (objects) => {
      const world = worldOf(objects);
      for (const [key, { object: written }] of world.objects) {
        if (written.kind === "Service") continue;
        const parents = world.view.policy.statuses.get(key);
        const spec = written as unknown as { spec: { parentRefs?: unknown[]; targetRefs?: unknown[] } };
        const wanted = (spec.spec.parentRefs ?? spec.spec.targetRefs ?? []).length;
        assert.equal(parents?.length, wanted, key);
        for (const { conditions } of parents) assert.equal(conditions[0]?.type, "Accepted");
      }
      assert.deepEqual(answers(worldOf(objects.toReversed())), answers(world));
    }),
    { numRuns: 25 },
  );
});

test("no request of a rule is lost: what a rule's backends weigh is what its object says", () => {
  fc.assert(
    fc.property(fc.array(fc.record(backendRef), { minLength: 1, maxLength: 4 }), (refs) => {
      const spec = {
        parentRefs: [{ group: "", kind: "Service", name: "a" }],
        rules: [{ backendRefs: refs }],
      };
      const world = worldOf([
        { apiVersion: GATEWAY, kind: "HTTPRoute", metadata: { name: "r", namespace: "shop" }, spec },
      ]);
      const [rule] = world.ask("shop/a").http[0]!.rules;
      assert.deepEqual(
        rule!.backends.map(({ weight, backend }) => [weight, backend.source.name]),
        refs.map((ref) => [ref.weight, ref.name]),
      );
    }),
    { numRuns: 30 },
  );
});
