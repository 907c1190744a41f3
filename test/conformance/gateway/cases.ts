import type { Ask } from "./client.ts";

/** One question and what must come back. What is left out is not looked at. */
export interface Case {
  readonly ask: Ask;
  /** 200 unless it says otherwise; any of several. */
  readonly status?: number | readonly number[];
  /** The Deployment whose pod answers. */
  readonly backend?: string;
  /** Path that the application saw. */
  readonly seenPath?: string;
  readonly seenHost?: string;
  /** Headers that the application saw (several of one name joined by a comma), null: none of the name. */
  readonly seen?: Readonly<Record<string, string | null>>;
  /** Headers of the answer, null: none of the name. */
  readonly answer?: Readonly<Record<string, string | null>>;
  /** Parts of the answer's Location that must be so; what is left out must be as the request was. */
  readonly location?: {
    readonly scheme?: string;
    readonly host?: string;
    readonly port?: string;
    readonly path?: string;
  };
}

export interface Test {
  readonly name: string;
  /** Feature of the mesh profile that it shows; "core" for core tests; "gateway" for those that exist for gateways only. */
  readonly feature: string;
  /** Of the corpus (`mesh/…`), or of `objects/` here; "" for none. */
  readonly objects: string;
  /** Namespace of the pod that asks, if it is another. */
  readonly from?: "gateway-conformance-mesh-consumer";
  readonly cases?: readonly Case[];
  /** Share of each Deployment when this is asked many times. */
  readonly shares?: { readonly ask: Ask; readonly expected: Readonly<Record<string, number>> };
  /** Requests that each Deployment's pods get for one of the application's: what is mirrored. */
  readonly mirrors?: readonly {
    readonly ask: Ask;
    readonly backend: string;
    readonly expected: Readonly<Record<string, number>>;
  }[];
}

const ECHO = "echo";

/** A question to `echo` by path. */
const to = (path: string, headers: Readonly<Record<string, string>> = {}, more: Partial<Ask> = {}): Ask => ({
  to: ECHO,
  path,
  headers,
  ...more,
});

const goes = (backend: string, path: string, headers: Readonly<Record<string, string>> = {}): Case => ({
  ask: to(path, headers),
  backend,
});

const refused = (path: string, status = 404): Case => ({ ask: to(path), status });

const redirected = (path: string, status: number, location: NonNullable<Case["location"]>): Case => ({
  ask: to(path),
  status,
  location,
});

const modified = (
  path: string,
  headers: Readonly<Record<string, string>>,
  seen: Readonly<Record<string, string | null>>,
): Case => ({ ask: to(path, headers), backend: "echo-v1", seenPath: path, seen });

/** The same for the filters of a rule and for those of a backend. */
const REQUEST_HEADERS: readonly Case[] = [
  modified(
    "/set",
    { "some-other-header": "val" },
    { "some-other-header": "val", "x-header-set": "set-overwrites-values" },
  ),
  modified(
    "/set",
    { "some-other-header": "val", "x-header-set": "some-other-value" },
    { "some-other-header": "val", "x-header-set": "set-overwrites-values" },
  ),
  modified(
    "/add",
    { "some-other-header": "val" },
    { "some-other-header": "val", "x-header-add": "add-appends-values" },
  ),
  modified(
    "/add",
    { "some-other-header": "val", "x-header-add": "some-other-value" },
    { "some-other-header": "val", "x-header-add": "some-other-value,add-appends-values" },
  ),
  modified("/remove", { "x-header-remove": "val" }, { "x-header-remove": null }),
  modified(
    "/multiple",
    {
      "x-header-set-2": "set-val-2",
      "x-header-add-2": "add-val-2",
      "x-header-remove-2": "remove-val-2",
      "another-header": "another-header-val",
    },
    {
      "x-header-set-1": "header-set-1",
      "x-header-set-2": "header-set-2",
      "x-header-add-1": "header-add-1",
      "x-header-add-2": "add-val-2,header-add-2",
      "x-header-add-3": "header-add-3",
      "another-header": "another-header-val",
      "x-header-remove-1": null,
      "x-header-remove-2": null,
    },
  ),
  modified(
    "/case-insensitivity",
    {
      "x-header-set": "original-val-set",
      "x-header-add": "original-val-add",
      "x-header-remove": "original-val-remove",
      "another-header": "another-header-val",
    },
    {
      "x-header-set": "header-set",
      "x-header-add": "original-val-add,header-add",
      "x-header-remove": null,
      "another-header": "another-header-val",
    },
  ),
];

const grpc = (of: string, headers: Readonly<Record<string, string>>): Ask => ({
  protocol: "grpc",
  to: ECHO,
  headers: { "x-test-case": of, ...headers },
});

/** What the suite for service meshes asks (Gateway API v1.6, and the GRPCRoute test after it): all 23. */
export const MESH_TESTS: readonly Test[] = [
  {
    name: "MeshBasic",
    feature: "core",
    objects: "",
    cases: [{ ask: to("/") }, { ask: { to: ECHO, protocol: "grpc" } }],
  },
  {
    name: "MeshTrafficSplit",
    feature: "core",
    objects: "mesh/mesh-split.yaml",
    cases: [goes("echo-v1", "/v1"), goes("echo-v2", "/v2")],
  },
  {
    name: "MeshHTTPRouteSimpleSameNamespace",
    feature: "core",
    objects: "mesh/httproute-simple-same-namespace.yaml",
    cases: [goes("echo-v1", "/")],
  },
  {
    name: "MeshHTTPRouteMatching",
    feature: "core",
    objects: "mesh/httproute-matching.yaml",
    cases: [
      goes("echo-v1", "/"),
      goes("echo-v1", "/example"),
      goes("echo-v1", "/", { Version: "one" }),
      goes("echo-v2", "/v2"),
      goes("echo-v2", "/v2/example"),
      goes("echo-v2", "/", { Version: "two" }),
      goes("echo-v2", "/v2/"),
      goes("echo-v1", "/v2example"),
      goes("echo-v1", "/foo/v2/example"),
    ],
  },
  {
    name: "MeshHTTPRouteWeight",
    feature: "core",
    objects: "mesh/httproute-weight.yaml",
    shares: { ask: to("/"), expected: { "echo-v1": 0.7, "echo-v2": 0.3 } },
  },
  {
    name: "MeshHTTPRouteRequestHeaderModifier",
    feature: "core",
    objects: "mesh/httproute-request-header-modifier.yaml",
    cases: REQUEST_HEADERS,
  },
  {
    name: "MeshHTTPRouteRedirectHostAndStatus",
    feature: "core",
    objects: "mesh/httproute-redirect-host-and-status.yaml",
    cases: [
      redirected("/hostname-redirect", 302, { host: "example.org" }),
      redirected("/host-and-status", 301, { host: "example.org" }),
    ],
  },
  {
    name: "MeshGRPCRouteWeight",
    feature: "core",
    objects: "mesh/grpcroute-weight.yaml",
    shares: { ask: { protocol: "grpc", to: ECHO }, expected: { "echo-v1": 0.7, "echo-v2": 0.3 } },
  },
  {
    name: "MeshGRPCRouteRequestHeaderModifier",
    feature: "core",
    objects: "objects/grpcroute-request-header-modifier.yaml",
    cases: [
      {
        ask: grpc("set", {
          "some-other-header": "this-header-should-be-set",
          "x-header-set": "to-be-overwritten",
        }),
        backend: "echo-v1",
        seen: { "some-other-header": "this-header-should-be-set", "x-header-set": "set-overwrites-values" },
      },
      {
        ask: grpc("add", { "x-header-add": "was-there" }),
        backend: "echo-v1",
        seen: { "x-header-add": "was-there,add-appends-values" },
      },
      {
        ask: grpc("remove", { "x-header-remove": "was-there" }),
        backend: "echo-v1",
        seen: { "x-header-remove": null },
      },
      {
        ask: grpc("multi", {
          "x-header-set-2": "2",
          "x-header-add-2": "was-there",
          "x-header-remove-2": "2",
        }),
        backend: "echo-v2",
        seen: {
          "x-header-set-1": "header-set-1",
          "x-header-set-2": "header-set-2",
          "x-header-add-1": "header-add-1",
          "x-header-add-2": "was-there,header-add-2",
          "x-header-remove-1": null,
          "x-header-remove-2": null,
        },
      },
    ],
  },
  {
    name: "MeshHTTPRouteBackendRequestHeaderModifier",
    feature: "MeshHTTPRouteBackendRequestHeaderModification",
    objects: "mesh/httproute-request-header-modifier-backend.yaml",
    cases: REQUEST_HEADERS,
  },
  {
    name: "MeshHTTPRouteQueryParamMatching",
    feature: "MeshHTTPRouteQueryParamMatching",
    objects: "mesh/httproute-query-param-matching.yaml",
    cases: [
      goes("echo-v1", "/?animal=whale"),
      goes("echo-v2", "/?animal=dolphin"),
      goes("echo-v1", "/?animal=whale&otherparam=irrelevant"),
      goes("echo-v2", "/?animal=dolphin&color=yellow"),
      refused("/?color=blue"),
      refused("/?animal=dog"),
      refused("/?animal=whaledolphin"),
      refused("/"),
      goes("echo-v1", "/path1?animal=whale"),
      goes("echo-v2", "/?animal=whale", { version: "one" }),
      goes("echo-v1", "/path3?animal=shark"),
      goes("echo-v1", "/path4?animal=kraken", { version: "three" }),
      refused("/?animal=shark"),
      refused("/path4?animal=kraken"),
      goes("echo-v1", "/path5?animal=hydra"),
    ],
  },
  {
    name: "MeshHTTPRouteRedirectPath",
    feature: "MeshHTTPRouteRedirectPath",
    objects: "mesh/httproute-redirect-path.yaml",
    cases: [
      redirected("/original-prefix/lemon", 302, { path: "/replacement-prefix/lemon" }),
      redirected("/full/path/original", 302, { path: "/full-path-replacement" }),
      redirected("/path-and-host", 302, { host: "example.org", path: "/replacement-prefix" }),
      redirected("/path-and-status", 301, { path: "/replacement-prefix" }),
      redirected("/full-path-and-host", 302, { host: "example.org", path: "/replacement-full" }),
      redirected("/full-path-and-status", 301, { path: "/replacement-full" }),
    ],
  },
  {
    name: "MeshHTTPRouteRedirectPort",
    feature: "MeshHTTPRouteRedirectPort",
    objects: "mesh/httproute-redirect-port.yaml",
    cases: [
      redirected("/port", 302, { port: "8083" }),
      redirected("/port-and-host", 302, { host: "example.org", port: "8083" }),
      redirected("/port-and-status", 301, { port: "8083" }),
      redirected("/port-and-host-and-status", 302, { host: "example.org", port: "8083" }),
    ],
  },
  {
    name: "MeshHTTPRouteSchemeRedirect",
    feature: "MeshHTTPRouteSchemeRedirect",
    objects: "mesh/httproute-redirect-scheme.yaml",
    cases: [
      redirected("/scheme", 302, { scheme: "https" }),
      redirected("/scheme-and-host", 302, { scheme: "https", host: "example.org" }),
      redirected("/scheme-and-status", 301, { scheme: "https" }),
      redirected("/scheme-and-host-and-status", 302, { scheme: "https", host: "example.org" }),
    ],
  },
  {
    name: "MeshHTTPRouteRewritePath",
    feature: "MeshHTTPRouteRewritePath",
    objects: "mesh/httproute-rewrite-path.yaml",
    cases: [
      { ask: to("/prefix/one/two"), backend: "echo-v1", seenPath: "/one/two" },
      { ask: to("/strip-prefix/three"), backend: "echo-v1", seenPath: "/three" },
      { ask: to("/strip-prefix"), backend: "echo-v1", seenPath: "/" },
      { ask: to("/full/one/two"), backend: "echo-v1", seenPath: "/one" },
      ...(
        [
          ["/full/rewrite-path-and-modify-headers/test", "/test"],
          ["/prefix/rewrite-path-and-modify-headers/one", "/prefix/one"],
        ] as const
      ).map(([path, seenPath]) => ({
        ask: to(path, {
          "x-header-remove": "remove-val",
          "x-header-add-append": "append-val-1",
          "x-header-set": "set-val",
        }),
        backend: "echo-v1",
        seenPath,
        seen: {
          "x-header-add": "header-val-1",
          "x-header-add-append": "append-val-1,header-val-2",
          "x-header-set": "set-overwrites-values",
          "x-header-remove": null,
        },
      })),
    ],
  },
  {
    name: "MeshHTTPRouteNamedRule",
    feature: "MeshHTTPRouteNamedRouteRule",
    objects: "mesh/httproute-named-rule.yaml",
    cases: [goes("echo-v1", "/named"), goes("echo-v2", "/unnamed")],
  },
  {
    name: "MeshConsumerRoute (consumer)",
    feature: "MeshConsumerRoute",
    objects: "mesh/mesh-consumer-route.yaml",
    from: "gateway-conformance-mesh-consumer",
    cases: [
      {
        ask: { to: "echo-v1.gateway-conformance-mesh" },
        backend: "echo-v1",
        answer: { "x-header-set": "set" },
      },
    ],
  },
  {
    name: "MeshConsumerRoute (producer)",
    feature: "MeshConsumerRoute",
    objects: "mesh/mesh-consumer-route.yaml",
    cases: [
      {
        ask: { to: "echo-v1.gateway-conformance-mesh" },
        backend: "echo-v1",
        answer: { "x-header-set": null },
      },
    ],
  },
  {
    name: "MeshFrontend",
    feature: "core",
    objects: "mesh/mesh-frontend.yaml",
    cases: [
      { ask: { to: "echo-v2" }, backend: "echo-v2", answer: { "x-header-set": "set" } },
      { ask: { to: "POD(echo-v2):8080" }, backend: "echo-v2", answer: { "x-header-set": null } },
    ],
  },
  {
    name: "MeshFrontendHostname",
    feature: "MeshClusterIPMatching",
    objects: "mesh/mesh-frontend.yaml",
    cases: [
      {
        ask: { to: "echo-v2", headers: { host: "echo-v1" } },
        backend: "echo-v2",
        answer: { "x-header-set": "set" },
      },
      {
        ask: { to: "echo-v1", headers: { host: "echo-v2" } },
        backend: "echo-v1",
        answer: { "x-header-set": null },
      },
    ],
  },
  {
    name: "MeshPorts",
    feature: "HTTPRouteParentRefPort",
    objects: "mesh/mesh-ports.yaml",
    cases: [
      { ask: { to: "echo-v1" }, backend: "echo-v1", answer: { "x-header-set": "v1" } },
      { ask: { to: "echo-v1:8080" }, backend: "echo-v1", answer: { "x-header-set": null } },
      { ask: { to: "echo-v2" }, backend: "echo-v2", answer: { "x-header-set": "v2" } },
      { ask: { to: "echo-v2:8080" }, backend: "echo-v2", answer: { "x-header-set": "v2" } },
    ],
  },
  ...(
    [
      ["303", "/redirect"],
      ["307", "/temporary"],
      ["308", "/permanent"],
    ] as const
  ).map(([status, path]) => ({
    name: `MeshHTTPRoute${status}Redirect`,
    feature: `HTTPRoute${status}RedirectStatusCode`,
    objects: `mesh/httproute-${status}-redirect.yaml`,
    cases: [redirected(path, Number(status), { path })],
  })),
];

const retried = (path: string, code: number, after: number, status: number): Case => ({
  ask: to(`${path}?responseCode=${code}&succeedAfter=${after}&id=ID`),
  status,
});

const cors = (origin: string, method: string, more: Readonly<Record<string, string>> = {}): Ask =>
  to("/cors", { origin, ...more }, { method });

/** What the suite asks of gateways and no test asks of meshes, with objects of our own that have a Service for a parent. */
export const GATEWAY_TESTS: readonly Test[] = [
  {
    name: "HTTPRouteTimeoutRequest",
    feature: "HTTPRouteRequestTimeout",
    objects: "objects/timeouts.yaml",
    cases: [
      { ask: to("/request-timeout") },
      refused("/request-timeout?delay=1s", 504),
      { ask: to("/disable-request-timeout?delay=1s") },
    ],
  },
  {
    name: "HTTPRouteTimeoutBackendRequest",
    feature: "HTTPRouteBackendTimeout",
    objects: "objects/timeouts.yaml",
    cases: [
      { ask: to("/backend-timeout") },
      refused("/backend-timeout?delay=1s", 504),
      { ask: to("/disable-backend-timeout?delay=1s") },
    ],
  },
  {
    name: "HTTPRouteRetry",
    feature: "HTTPRouteRetry",
    objects: "objects/retries.yaml",
    cases: [
      retried("/retry/code-500-attempts-3", 500, 2, 200),
      retried("/retry/code-500-attempts-3", 500, 4, 500),
      retried("/retry/code-500-attempts-3", 503, 2, 503),
      ...[500, 502, 503, 504].flatMap((code) => [
        retried("/retry/code-all-attempts-2", code, 1, 200),
        retried("/retry/code-all-attempts-2", code, 3, code),
      ]),
    ],
  },
  {
    name: "HTTPRouteRetryBackendTimeout",
    feature: "HTTPRouteRetryBackendTimeout",
    objects: "objects/retries.yaml",
    cases: [
      // Each attempt takes too long, and the request's own timeout ends them.
      refused("/retry/timeout?delay=400ms", 504),
      { ask: to("/retry/timeout?delay=10ms") },
    ],
  },
  {
    name: "HTTPRouteRetryConnectionError",
    feature: "HTTPRouteRetryConnectionError",
    objects: "objects/retries.yaml",
    // Half of the draws go to a Service on whose port nobody listens.
    cases: Array.from({ length: 12 }, () => ({ ask: to("/retry/connection"), backend: "echo-v1" })),
  },
  {
    name: "HTTPRouteRequestMirror",
    feature: "HTTPRouteRequestMirror",
    objects: "objects/mirrors.yaml",
    cases: [
      modified(
        "/mirror-and-modify-headers",
        { "x-header-remove": "remove-val", "x-header-add-append": "append-val-1" },
        {
          "x-header-add": "header-val-1",
          "x-header-add-append": "append-val-1,header-val-2",
          "x-header-set": "set-overwrites-values",
          "x-header-remove": null,
        },
      ),
    ],
    mirrors: [
      { ask: to("/mirror"), backend: "echo-v1", expected: { "echo-v2": 1 } },
      { ask: to("/mirror-and-modify-headers"), backend: "echo-v1", expected: { "echo-v2": 1 } },
    ],
  },
  {
    name: "HTTPRouteRequestMultipleMirrors",
    feature: "HTTPRouteRequestMultipleMirrors",
    objects: "objects/mirrors.yaml",
    mirrors: [{ ask: to("/multi-mirror"), backend: "echo-v1", expected: { "echo-v2": 1, "echo-v1": 2 } }],
  },
  {
    name: "HTTPRouteRequestPercentageMirror",
    feature: "HTTPRouteRequestPercentageMirror",
    objects: "objects/mirrors.yaml",
    mirrors: [
      { ask: to("/percent-mirror"), backend: "echo-v1", expected: { "echo-v2": 0.2 } },
      { ask: to("/percent-mirror-fraction"), backend: "echo-v1", expected: { "echo-v2": 0.5 } },
    ],
  },
  {
    name: "HTTPRouteMethodMatching",
    feature: "HTTPRouteMethodMatching",
    objects: "objects/methods.yaml",
    cases: [
      { ask: to("/", {}, { method: "POST" }), backend: "echo-v1" },
      { ask: to("/", {}, { method: "GET" }), backend: "echo-v2" },
      { ask: to("/", {}, { method: "HEAD" }), status: 404 },
      { ask: to("/path1", {}, { method: "GET" }), backend: "echo-v1" },
      { ask: to("/", { version: "one" }, { method: "PUT" }), backend: "echo-v2" },
      { ask: to("/path2", { version: "two" }, { method: "POST" }), backend: "echo-v2" },
      { ask: to("/path3", {}, { method: "PATCH" }), backend: "echo-v1" },
      { ask: to("/path4", { version: "three" }, { method: "DELETE" }), backend: "echo-v1" },
      { ask: to("/path3", {}, { method: "DELETE" }), status: 404 },
      { ask: to("/path5", {}, { method: "PATCH" }), backend: "echo-v1" },
    ],
  },
  {
    name: "HTTPRouteWeight (zero and invalid backends)",
    feature: "HTTPRoute",
    objects: "objects/weights.yaml",
    cases: [
      { ask: to("/zero"), backend: "echo-v2" },
      refused("/all-zero", 500),
      refused("/invalid", 500),
      refused("/not-granted", 500),
    ],
    shares: { ask: to("/half-invalid"), expected: { "echo-v1": 0.5, "500": 0.5 } },
  },
  {
    name: "HTTPRouteCORS",
    feature: "HTTPRouteCORS",
    objects: "objects/cors.yaml",
    cases: [
      {
        ask: cors("https://www.foo.com", "OPTIONS", {
          "access-control-request-method": "GET",
          "access-control-request-headers": "x-header-1, x-header-2",
        }),
        status: [200, 204],
        answer: {
          "access-control-allow-origin": "https://www.foo.com",
          "access-control-allow-methods": "GET, OPTIONS",
          "access-control-allow-headers": "x-header-1, x-header-2",
          "access-control-max-age": "3600",
          "access-control-allow-credentials": "true",
        },
      },
      {
        ask: cors("https://www.bar.com", "OPTIONS", { "access-control-request-method": "GET" }),
        status: [200, 204],
        answer: { "access-control-allow-origin": "https://www.bar.com" },
      },
      {
        ask: cors("https://foobar.com", "OPTIONS", { "access-control-request-method": "GET" }),
        status: [200, 204],
        answer: { "access-control-allow-origin": null },
      },
      {
        ask: cors("https://www.foo.com", "GET"),
        backend: "echo-v1",
        answer: {
          "access-control-allow-origin": "https://www.foo.com",
          "access-control-expose-headers": "x-header-3, x-header-4",
          "access-control-allow-credentials": "true",
        },
      },
      {
        ask: cors("https://foobar.com", "GET"),
        backend: "echo-v1",
        answer: { "access-control-allow-origin": null },
      },
    ],
  },
  {
    name: "HTTPRouteRewriteHost",
    feature: "HTTPRouteHostRewrite",
    objects: "objects/rewrites.yaml",
    cases: [
      { ask: to("/one"), backend: "echo-v1", seenHost: "one.example.org", seenPath: "/one" },
      {
        ask: to("/rewrite-host-and-modify-headers", { "x-header-remove": "remove-val" }),
        backend: "echo-v2",
        seenHost: "test.example.org",
        seen: { "x-header-remove": null, "x-header-add": "header-val-1" },
      },
    ],
  },
  {
    name: "HTTPRouteResponseHeaderModifier",
    feature: "HTTPRouteResponseHeaderModification",
    objects: "objects/answers.yaml",
    cases: [
      {
        ask: to("/set"),
        answer: { "x-header-set": "set-overwrites-values", "x-header-remove": "from the application" },
      },
      { ask: to("/set?answer=theirs"), answer: { "x-header-set": "set-overwrites-values" } },
      { ask: to("/add?answer=theirs"), answer: { "x-header-add": "theirs, add-appends-values" } },
      { ask: to("/remove"), answer: { "x-header-remove": null } },
      { ask: to("/backend"), answer: { "x-header-remove": null, "x-backend": "echo-v1" } },
    ],
  },
  {
    name: "GRPCRouteExactMethodMatching",
    feature: "GRPCRoute",
    objects: "objects/grpc-methods.yaml",
    cases: [
      { ask: { protocol: "grpc", to: ECHO, path: "Echo" }, backend: "echo-v1" },
      { ask: { protocol: "grpc", to: ECHO, path: "Other" }, backend: "echo-v2" },
      // UNIMPLEMENTED.
      { ask: { protocol: "grpc", to: "echo-v2", path: "Other" }, status: 1012 },
    ],
  },
  {
    name: "TLSRouteSimpleSameNamespace",
    feature: "TLSRoute",
    objects: "objects/tls.yaml",
    cases: [
      { ask: { protocol: "tls", to: ECHO, serverName: "one.example.com" }, backend: "echo-v1" },
      { ask: { protocol: "tls", to: ECHO, serverName: "any.example.org" }, backend: "echo-v2" },
      { ask: { protocol: "tls", to: ECHO, serverName: "nobody.example.net" }, status: 0 },
    ],
  },
  {
    name: "TCPRoute",
    feature: "TCPRoute",
    objects: "objects/tcp.yaml",
    cases: [{ ask: { protocol: "tcp", to: "echo-v1" }, backend: "echo-v2" }],
    shares: { ask: { protocol: "tcp", to: ECHO }, expected: { "echo-v1": 0.2, "echo-v2": 0.8 } },
  },
];
