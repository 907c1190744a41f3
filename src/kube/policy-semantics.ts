import { fieldProblem, isToken } from "#/stack/route/header-change.ts";
import { pathProblem } from "#/stack/route/path-change.ts";
import { compilePattern } from "#/stack/route/pattern.ts";
import { durationMs } from "./duration.ts";
import type { KubeObject } from "./objects.ts";
import type {
  EgressPolicyObject,
  FaultPolicyObject,
  GrpcRouteMatch,
  GrpcRouteObject,
  HttpRouteMatch,
  HttpRouteObject,
  PathModifier,
  RateLimitPolicyObject,
  RetryConstraintSpec,
  RouteFilter,
  SessionPersistenceSpec,
  TargetRef,
  TrafficPolicyObject,
  ValueMatch,
} from "./policy-objects.ts";

type Path = readonly (string | number)[];
type Say = (path: Path, reason: string) => void;

/** What the schemas of routes and policies cannot say: fields that must agree with each other inside one object. */
export function checkPolicySemantics(object: KubeObject, say: Say): void {
  if (object.kind === "HTTPRoute" || object.kind === "GRPCRoute") checkRoute(object, say);
  else if (object.kind === "TrafficPolicy") checkTraffic(object, say);
  else if (object.kind === "XBackendTrafficPolicy")
    checkSession(object.spec.sessionPersistence, ["spec", "sessionPersistence"], say);
  else if (object.kind === "FaultPolicy") checkFaults(object, say);
  else if (object.kind === "RateLimitPolicy") checkRateLimit(object, say);
  else if (object.kind === "EgressPolicy") checkEgress(object, say);
}

function checkRoute(route: HttpRouteObject | GrpcRouteObject, say: Say): void {
  for (const [i, rule] of (route.spec.rules ?? []).entries()) {
    const at = ["spec", "rules", i];
    for (const [m, match] of (rule.matches ?? []).entries()) {
      if (route.kind === "HTTPRoute") checkHttpMatch(match as HttpRouteMatch, [...at, "matches", m], say);
      else checkGrpcMatch(match as GrpcRouteMatch, [...at, "matches", m], say);
    }
    checkSession(rule.sessionPersistence, [...at, "sessionPersistence"], say);
    checkFilters(rule.filters, at, say);
    for (const [b, ref] of (rule.backendRefs ?? []).entries())
      checkFilters(ref.filters, [...at, "backendRefs", b], say);
  }
}

function checkHttpMatch({ path, headers, queryParams }: HttpRouteMatch, at: Path, say: Say): void {
  if (path?.type === "RegularExpression") checkPattern(path.value, [...at, "path", "value"], say);
  checkValues(headers, [...at, "headers"], say);
  checkValues(queryParams, [...at, "queryParams"], say);
}

function checkGrpcMatch({ method, headers }: GrpcRouteMatch, at: Path, say: Say): void {
  if (method?.type === "RegularExpression")
    for (const part of ["service", "method"] as const)
      if (method[part] !== undefined) checkPattern(method[part], [...at, "method", part], say);
  checkValues(headers, [...at, "headers"], say);
}

function checkValues(matches: readonly ValueMatch[] | undefined, at: Path, say: Say): void {
  for (const [i, { type, value }] of (matches ?? []).entries())
    if (type === "RegularExpression") checkPattern(value, [...at, i, "value"], say);
}

/** As a sidecar would: what it could not match by, it would never match. */
function checkPattern(source: string, at: Path, say: Say): void {
  const compiled = compilePattern(source);
  if (compiled.kind === "problem") say(at, compiled.problem);
}

function checkFilters(filters: readonly RouteFilter[] | undefined, at: Path, say: Say): void {
  for (const [i, filter] of (filters ?? []).entries()) {
    for (const kind of ["requestHeaderModifier", "responseHeaderModifier"] as const) {
      const { set = [], add = [], remove = [] } = filter[kind] ?? {};
      const check = (name: string, ...path: Path): void => {
        const problem = fieldProblem(name);
        if (problem !== null)
          say([...at, "filters", i, kind, ...path], `cannot be changed by a filter: ${problem}`);
      };
      for (const [s, { name }] of set.entries()) check(name, "set", s, "name");
      for (const [a, { name }] of add.entries()) check(name, "add", a, "name");
      for (const [r, name] of remove.entries()) check(name, "remove", r);
    }
    for (const kind of ["requestRedirect", "urlRewrite"] as const)
      checkPathChange(filter[kind]?.path, [...at, "filters", i, kind, "path"], say);
  }
}

function checkPathChange(path: PathModifier | undefined, at: Path, say: Say): void {
  for (const field of ["replaceFullPath", "replacePrefixMatch"] as const) {
    const problem = pathProblem(path?.[field] ?? "");
    if (problem !== null) say([...at, field], problem);
  }
}

/** The name stands in each answer that begins a session. */
function checkSession(session: SessionPersistenceSpec | undefined, at: Path, say: Say): void {
  const name = session?.sessionName;
  if (name === undefined) return;
  const problem = session?.type === "Header" ? fieldProblem(name) : null;
  if (problem !== null) say([...at, "sessionName"], problem);
  else if (!isToken(name)) say([...at, "sessionName"], `"${name}" is no name of a cookie (RFC 6265 §4.1.1)`);
}

/** As the schema of XBackendTrafficPolicy has it: without an interval there would be no budget. */
function checkConstraint({ budget, minRetryRate }: RetryConstraintSpec, say: Say): void {
  const at = ["spec", "retryConstraint"];
  const within = (text: string | undefined, leastMs: number): boolean =>
    text === undefined || (durationMs(text)! >= leastMs && durationMs(text)! <= HOUR_MS);
  if (!within(budget?.interval, SECOND_MS)) say([...at, "budget", "interval"], "must be from 1s to 1h");
  if (!within(minRetryRate?.interval, 1))
    say([...at, "minRetryRate", "interval"], "must be longer than 0 and at most 1h");
}

const SECOND_MS = 1_000;
const HOUR_MS = 3_600_000;

function checkTraffic({ spec }: TrafficPolicyObject, say: Say): void {
  checkTargets(spec.targetRefs, say);
  checkSession(spec.sessionPersistence, ["spec", "sessionPersistence"], say);
  const { balancing, circuitBreaking: breaking, sessionPersistence: session } = spec;
  const at = ["spec", "balancing"];
  if (balancing?.algorithm === "ConsistentHash" && balancing.hashOn === undefined)
    say(at, "hashOn is missing; say which header, cookie or source decides");
  if (balancing?.algorithm !== "ConsistentHash") {
    for (const field of ["hashOn", "boundedLoadPercent"] as const)
      if (balancing?.[field] !== undefined)
        say([...at, field], "has an effect only with algorithm: ConsistentHash");
  }
  for (const [i, key] of (balancing?.hashOn ?? []).entries()) {
    if (Object.keys(key).length !== 1)
      say([...at, "hashOn", i], "must have exactly one of header, cookie and source");
    if (key.source === false) say([...at, "hashOn", i, "source"], "must be true; delete the entry otherwise");
  }
  const { min = "1s", max = "60s" } = breaking?.backoff ?? {};
  if (durationMs(min)! > durationMs(max)!)
    say(["spec", "circuitBreaking", "backoff"], `min, ${min}, must not be longer than max, ${max}`);
  const window = breaking?.successRate?.window;
  if (window !== undefined && durationMs(window) === 0)
    say(["spec", "circuitBreaking", "successRate", "window"], "must be longer than 0");
  if (spec.retryConstraint !== undefined) checkConstraint(spec.retryConstraint, say);
  if (
    breaking !== undefined &&
    breaking.consecutiveFailures === undefined &&
    breaking.successRate === undefined
  ) {
    for (const field of ["backoff", "respectRetryAfter"] as const)
      if (breaking[field] !== undefined)
        say(
          ["spec", "circuitBreaking", field],
          "has an effect only beside consecutiveFailures or successRate, which say when an endpoint is set aside",
        );
  }
  if (session?.cookieConfig?.lifetimeType === "Permanent" && session.absoluteTimeout === undefined)
    say(
      ["spec", "sessionPersistence"],
      "absoluteTimeout is missing; a permanent cookie needs an end (GEP-1619)",
    );
  if (session?.type === "Header" && session.cookieConfig !== undefined)
    say(["spec", "sessionPersistence", "cookieConfig"], "has an effect only with type: Cookie");
}

const ACTIONS = ["delay", "abort", "reset", "bandwidth", "slowClose"] as const;

function checkFaults({ spec }: FaultPolicyObject, say: Say): void {
  checkTargets(spec.targetRefs, say);
  for (const [i, fault] of spec.faults.entries()) {
    const at = ["spec", "faults", i];
    checkValues(fault.headers, [...at, "headers"], say);
    if (ACTIONS.filter((action) => fault[action] !== undefined).length !== 1)
      say(at, `must have exactly one of ${ACTIONS.join(", ")}; write several faults for several actions`);
    if (fault.percent !== undefined && fault.fraction !== undefined)
      say([...at, "fraction"], "says the same as percent; remove one of them");
    if (fault.fraction !== undefined && fault.fraction.numerator > (fault.fraction.denominator ?? 100))
      say([...at, "fraction"], "must not be more than one: the numerator is above the denominator");
  }
}

function checkRateLimit({ spec }: RateLimitPolicyObject, say: Say): void {
  checkTargets(spec.targetRefs ?? [], say);
  if ((spec.targetRefs === undefined) === (spec.selector === undefined))
    say(["spec"], "must have either targetRefs or selector, which say whose requests are limited");
  if (spec.ports !== undefined && spec.selector === undefined)
    say(
      ["spec", "ports"],
      "has an effect only beside selector; name a Service's port by targetRefs[].sectionName",
    );
  if (spec.rates === undefined && spec.concurrency === undefined)
    say(["spec"], "limits nothing; write rates or concurrency");
  for (const [i, { window, per, matches = [] }] of (spec.rates ?? []).entries()) {
    const at = ["spec", "rates", i];
    for (const [m, match] of matches.entries()) checkHttpMatch(match, [...at, "matches", m], say);
    if (window !== undefined && durationMs(window) === 0) say([...at, "window"], "must be longer than 0");
    if (per !== undefined && (per.header !== undefined) === (per.identity === true))
      say(
        [...at, "per"],
        "must have exactly one of identity: true and header; delete it for one count of all",
      );
  }
  const { min, max } = spec.concurrency ?? {};
  if (min !== undefined && max !== undefined && min > max)
    say(["spec", "concurrency", "min"], `must not be above max, ${max}`);
}

function checkEgress({ spec }: EgressPolicyObject, say: Say): void {
  if (spec.mode === "Allow" && spec.allow !== undefined)
    say(["spec", "allow"], "has an effect only with mode: Audit or mode: Deny");
  for (const [i, entry] of (spec.allow ?? []).entries())
    if (Object.keys(entry).length === 0)
      say(["spec", "allow", i], "must have hosts, cidrs or ports; write mode: Allow to allow everything");
}

function checkTargets(targets: readonly TargetRef[], say: Say): void {
  const seen = new Set<string>();
  for (const [i, ref] of targets.entries()) {
    const key = `${ref.kind} ${ref.name} ${ref.sectionName ?? ""}`;
    if (seen.has(key)) say(["spec", "targetRefs", i], "is listed twice; remove one");
    seen.add(key);
  }
}
