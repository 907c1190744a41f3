import type { Fields } from "#/base/fields.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import type {
  ExplainedFilter,
  ExplainedRetry,
  ExplainedTimeouts,
  Explanation,
  ExplainQuestion,
  LosingMatch,
  RouteVerdict,
} from "#/model/explanation.ts";
import { dnsName } from "#/model/identity.ts";
import type { ControlAnswer } from "#/model/node-protocol.ts";
import type { OutboundPolicy, PolicySource } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { HttpFilter, TcpRoute } from "#/model/route.ts";
import type { RequestHead } from "#/stack/http/exchange.ts";
import { isGrpc, isGrpcType } from "#/stack/http/mesh-answer.ts";
import { grpcTimeoutMs } from "#/stack/retry/grpc-deadline.ts";
import { readOverrides } from "#/stack/retry/request-overrides.ts";
import { FieldTest, headerValue } from "#/stack/route/candidate.ts";
import type { Candidate } from "#/stack/route/candidate.ts";
import { isPreflight } from "#/stack/route/cors.ts";
import { filtersOf } from "#/stack/route/filters.ts";
import type { Filters } from "#/stack/route/filters.ts";
import { consider, RouteTable } from "#/stack/route/table.ts";
import { findTcpRoute } from "#/stack/route/tcp.ts";
import { latin1OfUtf8 } from "#/stack/route/text.ts";
import type { Target } from "../answers/target.ts";
import { outboundPolicyFor } from "../policy/policy.ts";
import type { MeshView, ViewPod } from "../services/mesh-view.ts";
import { serviceFqdn } from "../services/mesh-view.ts";
import { explainBackends } from "./explain-backends.ts";
import { DEFAULT, firstSaying, originOf } from "./origin.ts";
import type { FieldPath } from "./origin.ts";
import { clientName, resolveClient, resolveService } from "./resolve.ts";

type ServiceTarget = Extract<Target, { kind: "service" }>;

/** Everything that is explained is a function of these. */
export interface ExplainContext {
  readonly view: MeshView;
  readonly client: ViewPod;
  readonly target: ServiceTarget;
  readonly policy: OutboundPolicy;
  readonly head: RequestHead;
  readonly seenBy: "mesh" | "folder";
}

const OTHERS_MAX = 100;

/**
 * What becomes of a request, by the functions that sidecars decide with. Endpoints are all that are ready: how they do is only known
 * to the client's sidecar.
 */
export function explainRequest(
  view: MeshView,
  question: ExplainQuestion,
  seenBy: "mesh" | "folder" = "mesh",
): Extract<ControlAnswer, { kind: "explained" | "error" }> {
  const client = resolveClient(view, question);
  if (typeof client === "string") return { kind: "error", message: client };
  const service = resolveService(view, client.namespace, question.service);
  if (typeof service === "string") return { kind: "error", message: service };
  const target: ServiceTarget = { kind: "service", ...service };
  const policy = outboundPolicyFor(view, target, {
    namespace: client.namespace,
    serviceAccount: client.identity.serviceAccount,
  });
  const context = { view, client, target, policy, head: headOf(question), seenBy };
  return { kind: "explained", explanation: explain(context) };
}

function explain(context: ExplainContext): Explanation {
  const { view, client, target, policy } = context;
  const { service, port } = target;
  const from = originOf(view.policy, { ...SERVICE, namespace: service.namespace, name: service.name });
  const about = {
    client: {
      pod: `${client.namespace}/${client.name}`,
      podUid: client.uid,
      workload: clientName(client),
      identity: dnsName(client.identity),
      ip: client.ip,
      isMeshed: client.isMeshed,
    },
    target: { name: `${serviceFqdn(view, service)}:${port.port}`, protocol: policy.protocol, from },
  };
  const nothing = { others: [], filters: [], backends: [], timeouts: null, retry: null };
  if (!client.isMeshed)
    return {
      ...about,
      ...nothing,
      route: {
        kind: "none",
        why: "the client has no sidecar: no route, limit or identity applies to what it sends",
        from,
      },
    };
  if (policy.protocol === "opaque" || policy.protocol === "tls")
    return { ...about, ...nothing, ...explainBytes(context) };
  return { ...about, ...explainHttp(context) };
}

function explainHttp(context: ExplainContext): Omit<Explanation, "client" | "target"> {
  const { view, policy, head } = context;
  const table = new RouteTable(policy.http);
  const considered = consider(table, head);
  const others = considered.flatMap(({ candidate, wins, why }): LosingMatch[] =>
    wins ? [] : [{ ...placeOf(context, candidate), why }],
  );
  const winner = considered.find(({ wins }) => wins)?.candidate;
  const rest = { others: others.slice(0, OTHERS_MAX) };
  if (winner === undefined) {
    const from = originOf(view.policy, policy.source);
    const why = "no match of any route takes it: it is answered with 404 (gRPC: UNIMPLEMENTED)";
    return {
      ...rest,
      route: { kind: "none", why, from },
      filters: [],
      backends: [],
      timeouts: null,
      retry: null,
    };
  }
  const { rule } = winner;
  const path = rulePath(winner);
  const filters = explainFilters(context, rule.filters, winner, path);
  const own = rule.allowsRequestHeaders ? readOverrides(head.fields, rule.timeouts, rule.retry) : null;
  const sent = changedBy(
    rule.filters,
    winner,
    own === null ? head : { ...head, fields: own.fields },
    context,
  );
  return {
    ...rest,
    route: { kind: "http", ...placeOf(context, winner), why: winner.why },
    filters,
    backends: explainBackends(context, rule.choice, rule.backends, {
      head: sent,
      filtersOf: (backend, i) =>
        explainFilters(context, backend.filters, winner, [...path, "backendRefs", i]),
      headFor: (backend) => changedBy(backend.filters, winner, sent, context),
      originOf: (i) => originOf(view.policy, winner.route.source, [...path, "backendRefs", i]),
    }),
    timeouts: timeoutsOf(context, winner, own?.timeouts ?? rule.timeouts, [
      own?.requestFrom,
      own?.responseFrom,
    ]),
    retry: retryOf(context, winner, own?.retry ?? rule.retry),
  };
}

/** Of connections that nobody looks into: a TLSRoute goes by the server name, which is the request's host. */
function explainBytes(context: ExplainContext): Pick<Explanation, "route" | "backends"> {
  const { view, policy, head } = context;
  const asked = policy.protocol === "tls" ? head.authority : null;
  const route: TcpRoute | null = findTcpRoute(policy.tcp, asked);
  const from = originOf(view.policy, route?.source ?? policy.source);
  if (route === null || route.refusal !== null) {
    const why = route?.refusal ?? `no route takes server name "${asked ?? ""}": the connection is refused`;
    return { route: { kind: "none", why, from }, backends: [] };
  }
  const why =
    route.serverNames.length === 0
      ? `bytes of protocol "${policy.protocol}" are not looked into: the connection goes as a whole`
      : `server name "${asked ?? ""}"`;
  return {
    route: { kind: "connection", route: routeName(context, route.source), why, from },
    backends: explainBackends(context, route.choice, route.backends, {
      head,
      filtersOf: () => [],
      headFor: () => head,
      originOf: (i) => originOf(view.policy, route.source, ["spec", "rules", 0, "backendRefs", i]),
    }),
  };
}

function placeOf(
  context: ExplainContext,
  candidate: Candidate,
): Omit<Extract<RouteVerdict, { kind: "http" }>, "kind" | "why"> {
  const { route, rule, ruleIndex, match, matchIndex } = candidate;
  const at = match === null ? rulePath(candidate) : [...rulePath(candidate), "matches", matchIndex];
  return {
    route: routeName(context, route.source),
    rule: ruleIndex + 1,
    ruleName: rule.name,
    match: match === null ? 0 : matchIndex + 1,
    from: originOf(context.view.policy, route.source, isOwn(context, route) ? [] : at),
  };
}

/** A target without routes of its own has the default one, under the name that metrics and traces have for it. */
function routeName(context: ExplainContext, source: PolicySource): string {
  if (!isOwn(context, { source })) return ruleOf(source);
  return context.policy.protocol === "opaque" ? "default/opaq" : "default/http";
}

function isOwn({ policy }: ExplainContext, { source }: { readonly source: PolicySource }): boolean {
  return source.kind === policy.source.kind && source.kind === "Service";
}

function rulePath({ ruleIndex }: Candidate): FieldPath {
  return ["spec", "rules", ruleIndex];
}

/** Filters in the order in which they act (`Filters`), those of FaultPolicies among them. */
function explainFilters(
  { view, head, target }: ExplainContext,
  filters: readonly HttpFilter[],
  candidate: Candidate,
  path: FieldPath,
): ExplainedFilter[] {
  // Faults of policies stand before what the rule itself lists.
  const faults = filters.filter(({ kind }) => kind === "fault").length;
  return filters
    .map((filter, i): ExplainedFilter => {
      const from =
        filter.kind === "fault"
          ? originOf(view.policy, filter.source, ["spec", "faults"])
          : originOf(view.policy, candidate.route.source, [...path, "filters", i - faults]);
      const applies = isApplied(filter, head);
      return { filter, applies, note: noteOn(filter, candidate, head, target.port.port), from };
    })
    .toSorted((a, b) => ORDER.indexOf(a.filter.kind) - ORDER.indexOf(b.filter.kind));
}

const ORDER: readonly HttpFilter["kind"][] = [
  "cors",
  "fail",
  "redirect",
  "fault",
  "rewrite",
  "request-headers",
  "mirror",
  "response-headers",
];

function isApplied(filter: HttpFilter, head: RequestHead): boolean {
  switch (filter.kind) {
    case "cors":
      return isPreflight(head) || headerValue(head, "origin") !== null;
    case "fail":
    case "mirror":
      return filter.ratio.numerator > 0;
    case "fault":
      return (
        filter.ratio.numerator > 0 &&
        filter.headers
          .map((each) => new FieldTest(each))
          .every((test) => test.holds(headerValue(head, test.name)))
      );
    default:
      return true;
  }
}

/** Where a redirect leads, or what a rewrite makes of the path. */
function noteOn(filter: HttpFilter, candidate: Candidate, head: RequestHead, port: number): string {
  if (filter.kind !== "redirect" && filter.kind !== "rewrite") return "";
  const made = filtersOf([filter], { candidate, port, random: NEVER, label: "" });
  if (made === null) return "";
  if (filter.kind === "rewrite") {
    const { authority, path } = made.change(head);
    return `${authority}${path}`;
  }
  let location = "";
  made.answer(head, true, {
    ...DEAF,
    head: ({ fields }) =>
      void (location = fields[fields.findIndex((each) => each.toLowerCase() === "location") + 1] ?? ""),
  });
  return location;
}

function changedBy(
  filters: readonly HttpFilter[],
  candidate: Candidate,
  head: RequestHead,
  { target }: ExplainContext,
): RequestHead {
  const made: Filters | null = filtersOf(filters, {
    candidate,
    port: target.port.port,
    random: NEVER,
    label: "",
  });
  return made === null ? head : made.change(head);
}

function timeoutsOf(
  context: ExplainContext,
  candidate: Candidate,
  timeouts: Pick<ExplainedTimeouts, "requestMs" | "responseMs" | "attemptMs" | "idleMs">,
  fields: readonly (string | undefined)[],
): ExplainedTimeouts {
  const { head } = context;
  const isSaid = Object.values(timeouts).some((each) => each !== null);
  const path = [...rulePath(candidate), "timeouts"];
  return {
    ...timeouts,
    callMs: isGrpc(head) ? grpcTimeoutMs(head.fields) : null,
    from: isSaid ? sayingOf(context, candidate, path, "timeout.linkerd.io/") : DEFAULT,
    fields: fields.filter((each) => each !== undefined && each !== "") as string[],
  };
}

function retryOf(
  context: ExplainContext,
  candidate: Candidate,
  policy: ExplainedRetry["policy"] | null,
): ExplainedRetry | null {
  if (policy === null) return null;
  return {
    policy,
    from: sayingOf(context, candidate, [...rulePath(candidate), "retry"], "retry.linkerd.io/"),
  };
}

/** A rule says it, or its route's annotations, or those of the Service. */
function sayingOf(
  { view, target }: ExplainContext,
  { route }: Candidate,
  path: FieldPath,
  prefix: string,
): ReturnType<typeof originOf> {
  const { service } = target;
  const own: LoadedObject | null = view.policy.objectOf(route.source);
  const parent = view.policy.objectOf({ ...SERVICE, namespace: service.namespace, name: service.name });
  return firstSaying([
    [own, own?.object.kind === "Service" ? [] : path, prefix],
    [parent, [], prefix],
  ]);
}

/** The request as the client's sidecar reads it. */
function headOf({ method, path, headers, service, isHttp2 }: ExplainQuestion): RequestHead {
  const named = headers.map(([name, value]) => [name.toLowerCase(), latin1OfUtf8(value)] as const);
  const isTwo = isHttp2 || named.some(([name, value]) => name === "content-type" && isGrpcType(value));
  const authority = named.find(([name]) => name === "host" || name === ":authority")?.[1] ?? service;
  const fields: Fields = isTwo ? [] : ["Host", authority];
  for (const [name, value] of named) if (name !== "host" && name !== ":authority") fields.push(name, value);
  return {
    method,
    scheme: "http",
    authority,
    path: latin1OfUtf8(path),
    version: isTwo ? "2" : "1.1",
    absoluteForm: false,
    upgrade: null,
    fields,
  };
}

const SERVICE: PolicySource = {
  group: "core",
  kind: "Service",
  namespace: "",
  name: "",
  section: "",
  port: 0,
};

/** Chance is not asked: what may be is told with its share. */
const NEVER = { next: () => 1 };

const DEAF = {
  informational: () => {},
  head: () => {},
  body: () => {},
  finish: () => {},
  fail: () => {},
  requestConsumed: () => {},
};
