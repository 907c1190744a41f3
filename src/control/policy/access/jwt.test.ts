import assert from "node:assert/strict";
import { test } from "node:test";
import type { JwtPolicy } from "#/model/access.ts";
import type { PodPlan } from "#/model/pod-plan.ts";
import type { StandardLosses } from "../../answers/standard-losses.ts";
import type { KeySet } from "../../jwt/key-sets.ts";
import type { MeshView } from "../../services/mesh-view.ts";
import { PolicyWorld, service } from "../testing.ts";
import { inboundServerOf } from "../../answers/inbound-policy.ts";
import { inboundJwtFor, keyFindings, keySetSources } from "./jwt.ts";

const JWKS = JSON.stringify({ keys: [{ kty: "OKP", crv: "Ed25519", x: "AA", kid: "one" }] });
const URL_A = "https://login.test/keys";
const SERVICE_REF = '{group: "", kind: Service, name: web}';

function jwt(name: string, spec: string, more = ""): string {
  return `---\napiVersion: pillion.dev/v1alpha1\nkind: JwtPolicy\nmetadata: {name: ${name}, namespace: shop${more}}\nspec: ${spec}\n`;
}

function spec(targets: string, jwks = `{inline: '${JWKS}'}`, more = ""): string {
  return `{targetRefs: [${targets}], issuers: [{issuer: "https://login.test", jwks: ${jwks}${more}}]}`;
}

function world(text: string): PolicyWorld {
  const pod = {
    plan: {
      uid: "web",
      name: "web-0",
      namespace: "shop",
      owner: "Deployment/shop/web",
      labels: { app: "web" },
      annotations: {},
      serviceAccount: "web",
      hostname: "web",
      subdomain: null,
      templateHash: "1",
      sidecar: null,
      containers: [],
      initContainers: [],
      volumes: [],
    } as unknown as PodPlan,
    status: null,
    isLeaving: false,
    opaquePorts: [],
  };
  return new PolicyWorld(service("web", "shop", "{name: http, port: 80, targetPort: 8080}") + text, [pod]);
}

function policyAt({ view }: { readonly view: MeshView }, port = 8080): JwtPolicy | null {
  return inboundJwtFor(view, view.podsByName.get("shop/web-0")!, port);
}

test("a JwtPolicy is of the ports of its target, with its defaults", () => {
  const w = world(jwt("users", spec(SERVICE_REF)));
  const source = {
    group: "pillion.dev",
    kind: "JwtPolicy",
    namespace: "shop",
    name: "users",
    section: "",
    port: 0,
  };
  assert.deepEqual(policyAt(w), {
    source,
    required: null,
    issuers: [
      {
        issuer: "https://login.test",
        audiences: [],
        jwks: JWKS,
        leewayMs: 60_000,
        headers: ["authorization"],
        forwards: false,
        claimHeaders: [],
      },
    ],
  });
  assert.equal(policyAt(w, 9000), null);
  assert.deepEqual(w.conditions("JwtPolicy", "shop/users"), [""]);
});

test("headers of claims are in lower case, as HTTP/2 has to have them (RFC 9113 §8.2.1)", () => {
  const more = ", claimHeaders: [{claim: sub, header: X-User}]";
  const w = world(jwt("users", spec(SERVICE_REF, undefined, more)));
  assert.deepEqual(policyAt(w)?.issuers[0]?.claimHeaders, [{ claim: "sub", header: "x-user" }]);
});

test("of several the one about less counts, then the older", () => {
  const older = ', creationTimestamp: "2020-01-01T00:00:00Z"';
  const ofService = jwt("a-service", spec(SERVICE_REF));
  const ofPods = jwt("b-pods", spec('{group: "", kind: Pod, selector: {matchLabels: {app: web}}}'));
  const ofAll = jwt("c-all", spec('{group: "", kind: Namespace}'), older);
  const older_ = jwt("d-older", spec(SERVICE_REF), older);
  const named = (text: string, port?: number): string | undefined => policyAt(world(text), port)?.source.name;
  assert.equal(named(ofAll + ofPods + ofService), "a-service");
  assert.equal(named(ofAll + ofPods + ofService, 9000), "b-pods");
  assert.equal(named(ofAll, 9000), "c-all");
  assert.equal(named(ofService + older_), "d-older");
});

test("required is all, or conditions", () => {
  const of = (required: string): JwtPolicy["required"] | undefined =>
    policyAt(world(jwt("users", spec(SERVICE_REF).replace(/\}$/, `, required: ${required}}`))))?.required;
  assert.deepEqual(of("{all: true}"), []);
  assert.deepEqual(of("{requests: [{paths: [{type: PathPrefix, value: /admin}]}]}")?.[0]?.paths, [
    { kind: "prefix", value: "/admin" },
  ]);
});

test("keys come from a ConfigMap of the namespace; where they cannot be had, the policy says so and no token is taken", () => {
  const map = (key: string, text: string): string =>
    `---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: keys, namespace: shop}\ndata: {${key}: '${text}'}\n`;
  const ref = "{configMap: {name: keys, key: jwks}}";
  assert.equal(
    policyAt(world(map("jwks", JWKS) + jwt("users", spec(SERVICE_REF, ref))))?.issuers[0]?.jwks,
    JWKS,
  );
  for (const [text, problem] of [
    ["", /ConfigMap shop\/keys does not exist; no token of https:\/\/login\.test is taken/],
    [map("other", JWKS), /has no key jwks/],
    [map("jwks", "{}"), /the key set cannot be used: it is no JWKS/],
  ] as const) {
    const w = world(text + jwt("users", spec(SERVICE_REF, ref)));
    assert.equal(policyAt(w)?.issuers[0]?.jwks, "");
    assert.match(w.problems.join("\n"), problem);
    assert.deepEqual(w.conditions("JwtPolicy", "shop/users"), ["ResolvedRefs=False (InvalidKeys)"]);
  }
});

test("fetched keys are those of this moment, and equal ones give the same object", () => {
  const { view } = world(jwt("users", spec(SERVICE_REF, `{url: "${URL_A}"}`)));
  const withKeys = (jwks: string, problem = ""): MeshView => ({
    ...view,
    keySets: new Map<string, KeySet>([[URL_A, { jwks, problem }]]),
  });
  assert.equal(policyAt({ view })?.issuers[0]?.jwks, "");
  const one = policyAt({ view: withKeys(JWKS) });
  assert.equal(one?.issuers[0]?.jwks, JWKS);
  assert.equal(policyAt({ view: withKeys(JWKS, "down") }), one);
  assert.notEqual(policyAt({ view: withKeys("{}") }), one);
  assert.deepEqual(keySetSources(view), [{ url: URL_A, at: null }]);
});

test("the status says what is wrong with fetched keys, and whether any are left", () => {
  const { objects } = world(jwt("users", spec(SERVICE_REF, `{url: "${URL_A}"}`)));
  const object = objects.get("JwtPolicy/shop/users")!.object;
  assert.ok(object.kind === "JwtPolicy");
  const told = (set: KeySet): ReturnType<typeof keyFindings> => keyFindings(object, new Map([[URL_A, set]]));
  assert.deepEqual(told({ jwks: "", problem: "" }), { findings: [], hasAll: true });
  assert.match(
    told({ jwks: JWKS, problem: "status 500" }).findings[0]!.message,
    /status 500; what was good last stays/,
  );
  assert.equal(told({ jwks: JWKS, problem: "status 500" }).hasAll, true);
  assert.match(
    told({ jwks: "", problem: "refused" }).findings[0]!.message,
    /no token of https:\/\/login\.test is taken until it can/,
  );
  assert.equal(told({ jwks: "", problem: "refused" }).hasAll, false);
});

test("a proxy that verifies no tokens is told to let nobody in, and the status says so", () => {
  const w = world(jwt("users", spec(SERVICE_REF)));
  const pod = w.view.podsByName.get("shop/web-0")!;
  const told: string[] = [];
  const losses = {
    note: (_view: MeshView, some: readonly { readonly what: string }[]) =>
      told.push(...some.map(({ what }) => what)),
  } as unknown as StandardLosses;
  const serverAt = (port: number, isExtended: boolean): ReturnType<typeof inboundServerOf> =>
    inboundServerOf(w.view, pod, port, { isExtended }, losses);
  const standard = serverAt(8080, false);
  assert.deepEqual([standard.authorizations, standard.jwt, standard.access], [[], undefined, undefined]);
  assert.deepEqual(told, ["refuse these requests: they verify no tokens"]);
  assert.equal(serverAt(9000, false).authorizations.length, 1);
  assert.equal(serverAt(8080, true).jwt?.issuers.length, 1);
});
