import assert from "node:assert/strict";
import { test } from "node:test";
import { describeProblem, loadFile } from "./folder.ts";

const WEB = 'targetRefs: [{group: "", kind: Service, name: web}]';

function problems(kind: string, spec: string, apiVersion = "pillion.dev/v1alpha1", annotations = ""): string {
  const text = `apiVersion: ${apiVersion}\nkind: ${kind}\nmetadata: {name: p, annotations: {${annotations}}}\nspec: ${spec}\n`;
  return loadFile({ path: "p.yaml", text }).problems.map(describeProblem).join("\n");
}

test("parts of our own policies must agree with each other", () => {
  for (const [kind, spec, expected] of [
    [
      "TrafficPolicy",
      `{${WEB}, balancing: {algorithm: ConsistentHash}}`,
      /spec\.balancing hashOn is missing/,
    ],
    [
      "TrafficPolicy",
      `{${WEB}, balancing: {hashOn: [{source: true}]}}`,
      /hashOn has an effect only with algorithm: ConsistentHash/,
    ],
    [
      "TrafficPolicy",
      `{${WEB}, balancing: {algorithm: ConsistentHash, hashOn: [{source: true, header: a}]}}`,
      /hashOn\[0\] must have exactly one of/,
    ],
    [
      "TrafficPolicy",
      `{${WEB}, circuitBreaking: {consecutiveFailures: 1, backoff: {min: 2m, max: 1m}}}`,
      /backoff min, 2m, must not be longer than max, 1m/,
    ],
    [
      "TrafficPolicy",
      `{${WEB}, circuitBreaking: {consecutiveFailures: 1, backoff: {min: 2m}}}`,
      /backoff min, 2m, must not be longer than max, 60s/,
    ],
    [
      "TrafficPolicy",
      `{${WEB}, circuitBreaking: {successRate: {percentMin: 9, window: 0s}}}`,
      /successRate\.window must be longer than 0/,
    ],
    [
      "TrafficPolicy",
      `{${WEB}, retryConstraint: {budget: {interval: 0s}}}`,
      /retryConstraint\.budget\.interval must be from 1s to 1h/,
    ],
    [
      "TrafficPolicy",
      `{${WEB}, retryConstraint: {minRetryRate: {interval: 0s}}}`,
      /minRetryRate\.interval must be longer than 0 and at most 1h/,
    ],
    [
      "TrafficPolicy",
      `{${WEB}, circuitBreaking: {backoff: {min: 2m}}}`,
      /has an effect only beside consecutiveFailures or successRate/,
    ],
    [
      "TrafficPolicy",
      `{${WEB}, sessionPersistence: {type: Cookie, cookieConfig: {lifetimeType: Permanent}}}`,
      /absoluteTimeout is missing/,
    ],
    ["TrafficPolicy", `{${WEB}, connectTimeout: 1.5s}`, /connectTimeout must be a duration/],
    ["TrafficPolicy", `{${WEB}, balancng: {}}`, /spec\.balancng unknown field; did you mean balancing\?/],
    [
      "TrafficPolicy",
      "{targetRefs: [{group: apps, kind: Deployment, name: web}]}",
      /targetRefs\[0\]\.group must be one of ""/,
    ],
    ["FaultPolicy", `{${WEB}, faults: [{percent: 5}]}`, /faults\[0\] must have exactly one of delay, abort/],
    [
      "FaultPolicy",
      `{${WEB}, faults: [{reset: {}, abort: {}}]}`,
      /faults\[0\] must have exactly one of delay, abort/,
    ],
    [
      "FaultPolicy",
      `{${WEB}, faults: [{percent: 5, fraction: {numerator: 1}, reset: {}}]}`,
      /says the same as percent/,
    ],
    [
      "FaultPolicy",
      `{${WEB}, faults: [{fraction: {numerator: 200}, reset: {}}]}`,
      /must not be more than one/,
    ],
    ["FaultPolicy", `{${WEB}, faults: []}`, /spec\.faults must not be empty/],
    ["RateLimitPolicy", "{rates: [{requests: 1}]}", /must have either targetRefs or selector/],
    ["RateLimitPolicy", `{${WEB}}`, /limits nothing/],
    [
      "RateLimitPolicy",
      `{${WEB}, ports: [80], rates: [{requests: 1}]}`,
      /ports has an effect only beside selector/,
    ],
    ["RateLimitPolicy", `{${WEB}, rates: [{requests: 1, window: 0s}]}`, /window must be longer than 0/],
    [
      "RateLimitPolicy",
      `{${WEB}, rates: [{requests: 1, per: {identity: true, header: a}}]}`,
      /per must have exactly one of/,
    ],
    ["RateLimitPolicy", `{${WEB}, concurrency: {min: 5, max: 4}}`, /min must not be above max, 4/],
    [
      "EgressPolicy",
      "{mode: Deny, allow: [{hosts: [A.example]}]}",
      /hosts\[0\] must be a host in lower case/,
    ],
    ["EgressPolicy", "{mode: Deny, allow: [{cidrs: [10.0.0.0/40]}]}", /cidrs\[0\] must be a network/],
    ["EgressPolicy", "{mode: Allow, allow: [{ports: [80]}]}", /allow has an effect only with mode: Audit/],
    ["EgressPolicy", "{mode: Deny, allow: [{}]}", /allow\[0\] must have hosts, cidrs or ports/],
  ] as const) {
    const found = problems(kind, spec);
    assert.match(found, expected, spec);
    assert.match(found, new RegExp(`^p\\.yaml:4: ${kind} default/p: `), spec);
  }
});

test("Linkerd's annotations are checked, and refused where they have no effect", () => {
  const gateway = "gateway.networking.k8s.io/v1";
  for (const [annotation, expected] of [
    ["retry.linkerd.io/http: 5xx", /^$/],
    ["retry.linkerd.io/http: bad", /must list statuses/],
    ["retry.linkerd.io/grpc: ok", /must list codes of cancelled/],
    ["retry.linkerd.io/limit: '0'", /must be a number from 1/],
    ["retry.linkerd.io/limits: '1'", /is not honoured/],
    ["timeout.linkerd.io/request: 10d", /must be a duration/],
    [
      "balancer.linkerd.io/failure-accrual: consecutive",
      /has no effect on a HTTPRoute; move it to a Service/,
    ],
    ["config.pillion.dev/allow-request-headers: 'yes'", /must be true or false/],
  ] as const)
    assert.match(problems("HTTPRoute", "{}", gateway, annotation), expected, annotation);
  assert.match(
    loadFile({
      path: "n.yaml",
      text: "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {retry.linkerd.io/http: 5xx}}\n",
    })
      .problems.map(describeProblem)
      .join("\n"),
    /^n\.yaml:3: Namespace shop: metadata\.annotations\["retry\.linkerd\.io\/http"\] has no effect on a Namespace/,
  );
});

test("kinds of the Gateway API that are for gateways, and of other meshes, are answered with what to do", () => {
  for (const [apiVersion, kind, expected] of [
    [
      "gateway.networking.k8s.io/v1",
      "Gateway",
      /Gateway is not honoured: there is no gateway in this mesh.*parentRefs/,
    ],
    ["gateway.networking.k8s.io/v1", "BackendTLSPolicy", /mutual TLS/],
    ["linkerd.io/v1alpha2", "ServiceProfile", /write an HTTPRoute/],
    ["networking.istio.io/v1", "DestinationRule", /write a TrafficPolicy/],
  ] as const)
    assert.match(problems(kind, "{}", apiVersion), expected);
});

test("a header filter may not touch what belongs to a connection, to the host or to the mesh (RFC 9110 §7.6.1)", () => {
  const gateway = "gateway.networking.k8s.io/v1";
  const rule = (change: string): string =>
    `{rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: ${change}}]}]}`;
  for (const [change, expected] of [
    [
      "{set: [{name: Transfer-Encoding, value: chunked}]}",
      /set\[0\]\.name cannot be changed by a filter: Transfer-Encoding/,
    ],
    ["{add: [{name: connection, value: close}]}", /add\[0\]\.name cannot be changed/],
    ["{remove: [upgrade]}", /requestHeaderModifier\.remove\[0\] cannot be changed/],
    ["{set: [{name: Host, value: a.example}]}", /rewrite's hostname/],
    ["{remove: [l5d-client-id]}", /belongs to the mesh/],
    ["{set: [{name: X-Fine, value: a}], remove: [accept]}", /^$/],
  ] as const)
    assert.match(problems("HTTPRoute", rule(change), gateway), expected, change);
  assert.match(
    problems(
      "GRPCRoute",
      "{rules: [{backendRefs: [{name: a, port: 1, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [te]}}]}]}]}",
      gateway,
    ),
    /spec\.rules\[0\]\.backendRefs\[0\]\.filters\[0\]\.responseHeaderModifier\.remove\[0\] cannot/,
  );
});

test("what would end a line of a request, or of an answer, is no path and no name of a session", () => {
  const gateway = "gateway.networking.k8s.io/v1";
  const full = (type: string, field: string, path: string): string =>
    `{rules: [{filters: [{type: ${type}, ${field}: {path: {type: ReplaceFullPath, replaceFullPath: ${JSON.stringify(path)}}}}]}]}`;
  const session = (spec: string): string => `{${WEB}, sessionPersistence: ${spec}}`;
  for (const [kind, apiVersion, spec, expected] of [
    [
      "HTTPRoute",
      gateway,
      full("URLRewrite", "urlRewrite", "/a HTTP/1.1\r\nX: y"),
      /filters\[0\]\.urlRewrite\.path\.replaceFullPath has white space/,
    ],
    [
      "HTTPRoute",
      gateway,
      full("RequestRedirect", "requestRedirect", "/a\r\nSet-Cookie: b=c"),
      /requestRedirect\.path\.replaceFullPath has white space/,
    ],
    [
      "HTTPRoute",
      gateway,
      "{rules: [{matches: [{path: {type: PathPrefix, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /a?b=c}}}]}]}",
      /replacePrefixMatch has .*\?/,
    ],
    ["HTTPRoute", gateway, full("URLRewrite", "urlRewrite", "/gr\u00f6\u00dfe/a%20b"), /^$/],
    [
      "HTTPRoute",
      gateway,
      '{rules: [{sessionPersistence: {sessionName: "a; Domain=b"}}]}',
      /rules\[0\]\.sessionPersistence\.sessionName "a; Domain=b" is no name of a cookie/,
    ],
    [
      "TrafficPolicy",
      undefined,
      session("{type: Header, sessionName: content-length}"),
      /sessionPersistence\.sessionName content-length .*frames a message/,
    ],
    ["TrafficPolicy", undefined, session("{type: Cookie, sessionName: ''}"), /no name of a cookie/],
    ["TrafficPolicy", undefined, session("{type: Header, sessionName: X-Session}"), /^$/],
    [
      "XBackendTrafficPolicy",
      "gateway.networking.x-k8s.io/v1alpha1",
      session('{type: Cookie, sessionName: "a=b"}'),
      /sessionName "a=b" is no name/,
    ],
  ] as const)
    assert.match(problems(kind, spec, apiVersion), expected, spec);
});

test("a regular expression that a sidecar could not match by refuses its file", () => {
  const gateway = "gateway.networking.k8s.io/v1";
  for (const [kind, spec, expected] of [
    [
      "HTTPRoute",
      "{rules: [{matches: [{path: {type: RegularExpression, value: '/(a'}}]}]}",
      /matches\[0\]\.path\.value the regular expression \/\(a cannot be used/,
    ],
    [
      "HTTPRoute",
      "{rules: [{matches: [{path: {type: RegularExpression, value: '/(?:a{900}){3}'}}]}]}",
      /path\.value .*it is too large/,
    ],
    [
      "HTTPRoute",
      "{rules: [{matches: [{headers: [{name: a, type: RegularExpression, value: '['}]}]}]}",
      /headers\[0\]\.value /,
    ],
    [
      "HTTPRoute",
      "{rules: [{matches: [{queryParams: [{name: a, type: RegularExpression, value: '(?=a)'}]}]}]}",
      /queryParams\[0\]\.value /,
    ],
    [
      "GRPCRoute",
      "{rules: [{matches: [{method: {type: RegularExpression, service: 'a**['}}]}]}",
      /method\.service /,
    ],
    ["HTTPRoute", "{rules: [{matches: [{path: {type: Exact, value: '/(a'}}]}]}", /^$/],
    ["HTTPRoute", "{rules: [{matches: [{path: {type: RegularExpression, value: '/a/[0-9]+'}}]}]}", /^$/],
  ] as const)
    assert.match(problems(kind, spec, gateway), expected, spec);
  assert.match(
    problems(
      "FaultPolicy",
      `{${WEB}, faults: [{reset: {}, headers: [{name: a, value: "[", type: RegularExpression}]}]}`,
    ),
    /faults\[0\]\.headers\[0\]\.value the regular expression/,
  );
  assert.match(
    problems(
      "RateLimitPolicy",
      `{${WEB}, rates: [{requests: 1, matches: [{path: {type: RegularExpression, value: "["}}]}]}`,
    ),
    /rates\[0\]\.matches\[0\]\.path\.value the regular expression/,
  );
});
