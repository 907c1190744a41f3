import fc from "fast-check";
import type {
  AccessPolicy,
  AccessRoute,
  AccessRule,
  AccessSource,
  NetworkMatch,
  PeerMatch,
  RequestCondition,
} from "#/model/access.ts";
import type { FieldMatch, HttpMatch, PathMatch } from "#/model/route.ts";
import { hosts, sources } from "./policy-models.ts";

// Arbitrary models of who may, in the one form that each has: networks with the bits of their prefix alone.

const lower = fc.stringMatching(/^[a-z0-9-]{1,8}$/);
const few = <T>(arbitrary: fc.Arbitrary<T>, maxLength = 3): fc.Arbitrary<T[]> =>
  fc.array(arbitrary, { maxLength });

const peers: fc.Arbitrary<PeerMatch> = fc.oneof(
  fc.record({ kind: fc.constantFrom("anyone", "unauthenticated", "authenticated") }),
  fc.record({ kind: fc.constant("trust-domain"), trustDomain: lower }),
  fc.record({ kind: fc.constant("namespace"), trustDomain: lower, namespace: lower }),
  fc.record({
    kind: fc.constant("identity"),
    trustDomain: lower,
    namespace: lower,
    serviceAccount: lower,
  }),
  fc.record({ kind: fc.constant("name"), name: lower }),
  fc.record({ kind: fc.constant("suffix"), labels: few(lower) }),
);

const nets = fc.constantFrom("10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "0.0.0.0/0", "fd00::/8", "::/0");

const networks: fc.Arbitrary<NetworkMatch> = fc.record({ net: nets, except: few(nets, 2) });

const accessSources: fc.Arbitrary<AccessSource> = fc.record({
  peer: peers,
  networks: fc.option(few(networks, 2)),
});

// What a sidecar could not match by it would not follow: expressions are such, and prefixes begin with a slash.
const text = fc.string({ unit: "grapheme", maxLength: 6 });
const stringMatches: fc.Arbitrary<FieldMatch["value"]> = fc.oneof(
  fc.record({ kind: fc.constant("exact"), value: text }),
  fc.record({ kind: fc.constant("regex"), value: fc.constantFrom("a.*", "[0-9]+", "") }),
);
const fields: fc.Arbitrary<FieldMatch> = fc.record({ name: lower, value: stringMatches });
const paths: fc.Arbitrary<PathMatch> = fc.oneof(
  fc.record({ kind: fc.constantFrom("exact", "prefix"), value: text.map((rest) => `/${rest}`) }),
  fc.record({ kind: fc.constant("regex"), value: fc.constantFrom("/a.*", "/[0-9]+") }),
  fc.record({ kind: fc.constant("rpc"), service: text, method: text }),
);
const matches: fc.Arbitrary<HttpMatch> = fc.record({
  path: fc.option(paths),
  headers: few(fields),
  query: few(fields),
  method: fc.option(fc.constantFrom("GET", "PURGE", "get")),
});

const conditions: fc.Arbitrary<RequestCondition> = fc.record({
  methods: fc.option(few(fc.constantFrom("GET", "POST", "PURGE", "get"))),
  paths: fc.option(few(paths)),
  hosts: fc.option(few(hosts)),
  headers: few(fields),
  query: few(fields),
  claims: few(fc.record({ claim: lower, values: few(lower) })),
});

const accessRules: fc.Arbitrary<AccessRule> = fc.record({
  action: fc.constantFrom("exempt", "deny", "allow", "restrict", "default", "audit"),
  stage: fc.constantFrom("both", "enforced", "proposed"),
  source: sources,
  sources: fc.option(few(accessSources)),
  requests: fc.option(few(conditions)),
  route: fc.option(fc.nat(3)),
  layer: fc.constantFrom("both", "connections", "requests"),
});

const accessRoutes: fc.Arbitrary<AccessRoute> = fc.record({
  source: sources,
  hosts: few(hosts),
  matches: few(matches),
});

export const accessPolicies: fc.Arbitrary<AccessPolicy> = fc
  .record({ routes: few(accessRoutes), rules: few(accessRules, 6) })
  .map(({ routes, rules }) =>
    // Plain objects all the way down, as decoders make them.
    structuredClone({
      routes,
      // A rule is of a route that there is.
      rules: rules.map((rule) => ({
        ...rule,
        route: routes.length === 0 || rule.route === null ? null : rule.route % routes.length,
      })),
    }),
  );
