import type { LoadedObject } from "#/kube/folder.ts";
import { isRoute, LINKERD_POLICY, namespaceOf, objectKey } from "#/kube/objects.ts";
import type { KubeObject } from "#/kube/objects.ts";
import { trafficAnnotations } from "#/kube/traffic-annotations.ts";
import type { TrafficAnnotations } from "#/kube/traffic-annotations.ts";
import type { Condition, ParentReference, ParentStatus } from "#/model/node-protocol.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { HttpRoute, TcpRoute } from "#/model/route.ts";
import type { BackendTraffic } from "#/model/traffic.ts";
import type { MeshView, ViewServicePort } from "../services/mesh-view.ts";
import { noAccess } from "./access/access-index.ts";
import type { AccessIndex } from "./access/access-index.ts";
import { accessIndex } from "./access/compile.ts";
import { jwtIndex } from "./access/jwt.ts";
import type { JwtIndex } from "./access/jwt.ts";
import { parentStatus } from "./access/status.ts";
import type { AccessStatus } from "./access/status.ts";
import { attachments, consumerNamespace, serviceKey } from "./attach.ts";
import type { Attachment } from "./attach.ts";
import { condition } from "./conditions.ts";
import type { Finding } from "./conditions.ts";
import { egressIndex } from "./egress.ts";
import type { EgressIndex } from "./egress.ts";
import { externalIndex } from "./external.ts";
import type { ExternalIndex } from "./external.ts";
import { faultIndex } from "./faults.ts";
import type { FaultIndex } from "./faults.ts";
import { limitIndex } from "./limits.ts";
import type { LimitIndex } from "./limits.ts";
import { mirrorCycle, mirrorGraph } from "./mirror-cycles.ts";
import { compileConnectionRoute, compileHttpRoute, serviceDefaults } from "./routes.ts";
import type { RouteContext, RouteFindings, ServiceDefaults } from "./routes.ts";
import { settleConflicts, targetings } from "./targets.ts";
import type { Targeting } from "./targets.ts";
import { backendTraffic } from "./traffic.ts";

/** What all policy objects say together, ready to be asked: made once for each state of the folder. */
export interface CompiledPolicy {
  /** By `namespace/name`. A Service that nothing is said about has no entry. */
  readonly services: ReadonlyMap<string, ServicePolicy>;
  /** Of policy objects, by `objectKey`: how they stand with each parent or target. */
  readonly statuses: ReadonlyMap<string, readonly ParentStatus[]>;
  /** By `objectKey`: what of an object does not count, and where it stands. */
  readonly findings: ReadonlyMap<string, readonly Finding[]>;
  readonly trafficOf: (serviceKey: string, port: number) => BackendTraffic | null;
  /** The objects that `trafficOf` came from, the weightiest first. */
  readonly trafficFrom: (serviceKey: string, port: number) => readonly LoadedObject[];
  readonly faults: FaultIndex;
  readonly limits: LimitIndex;
  readonly access: AccessIndex;
  readonly jwt: JwtIndex;
  readonly egress: EgressIndex;
  readonly externals: ExternalIndex;
  /** The object that a decision came from; null for a default. */
  readonly objectOf: (source: PolicySource) => LoadedObject | null;
}

/** Routes at one Service, by port. */
export interface ServicePolicy {
  readonly producer: ReadonlyMap<number, PortRoutes>;
  /** By the namespace of the clients that they are for. */
  readonly consumers: ReadonlyMap<string, ReadonlyMap<number, PortRoutes>>;
  /** From the Service's annotations, for what no route is there for. */
  readonly defaults: ServiceDefaults | null;
}

/** The routes of the one kind that counts for a port, in the order of precedence. */
export interface PortRoutes {
  readonly kind: "http" | "tls" | "tcp";
  readonly http: HttpRoute[];
  readonly tcp: TcpRoute[];
}

export const NO_POLICY: CompiledPolicy = {
  services: new Map(),
  statuses: new Map(),
  findings: new Map(),
  trafficOf: () => null,
  trafficFrom: () => [],
  faults: new Map(),
  limits: new Map(),
  access: noAccess(),
  jwt: new Map(),
  egress: new Map(),
  externals: new Map(),
  objectOf: () => null,
};

export interface PolicyInput {
  readonly objects: ReadonlyMap<string, LoadedObject>;
  readonly view: MeshView;
}

/** Attaches and resolves every policy object. Pure, and total: an object that cannot count is told of, never thrown. */
export function compilePolicy(input: PolicyInput): CompiledPolicy {
  return new Compiler(input).compile();
}

class Compiler {
  readonly #input: PolicyInput;
  readonly #byKind: ReadonlyMap<string, readonly LoadedObject[]>;
  readonly #annotations = new Map<string, TrafficAnnotations>();
  readonly #statuses = new Map<string, ParentStatus[]>();
  readonly #findings = new Map<string, Finding[]>();

  constructor(input: PolicyInput) {
    this.#input = input;
    this.#byKind = Map.groupBy(input.objects.values(), (loaded) => loaded.object.kind);
  }

  compile(): CompiledPolicy {
    const { objects } = this.#input;
    for (const { object } of this.#byKind.get("Service") ?? [])
      if (object.metadata.annotations !== undefined)
        this.#annotations.set(
          `${namespaceOf(object)}/${object.metadata.name}`,
          trafficAnnotations(object.metadata.annotations),
        );
    const { trafficOf, trafficFrom } = this.#traffic();
    const externals = this.#externals();
    const services = this.#routes(trafficOf, externals);
    const faults = faultIndex(this.#targets("FaultPolicy"));
    const limits = this.#limits();
    const egress = this.#egress();
    const access = this.#access();
    const jwt = this.#jwt();
    for (const loaded of objects.values())
      if (isPolicy(loaded.object) && !this.#statuses.has(objectKey(loaded.object)))
        this.#statuses.set(objectKey(loaded.object), []);
    return {
      services,
      statuses: this.#statuses,
      findings: this.#findings,
      trafficOf,
      trafficFrom,
      faults,
      limits,
      access,
      jwt,
      egress,
      externals,
      objectOf: (source) => {
        const kind = source.group === LINKERD_POLICY ? `${source.kind}.linkerd` : source.kind;
        return objects.get(`${kind}/${source.namespace}/${source.name}`) ?? null;
      },
    };
  }

  /** Balancing and the like of each Service's ports. */
  #traffic(): Pick<CompiledPolicy, "trafficOf" | "trafficFrom"> {
    const { view } = this.#input;
    const ours = this.#targets("TrafficPolicy", settleConflicts);
    const standard = this.#targets("XBackendTrafficPolicy", settleConflicts);
    const oursByKey = Map.groupBy(ours, (each) => each.key);
    const standardByKey = Map.groupBy(standard, (each) => each.key);
    const known = new Map<string, BackendTraffic | null>();
    const nameOf = (key: string, port: number): string =>
      view.servicesByName.get(key)?.ports.find((each) => each.port === port)?.name ?? "";
    const trafficOf = (key: string, port: number): BackendTraffic | null => {
      const id = `${key} ${port}`;
      const before = known.get(id);
      if (before !== undefined) return before;
      const name = nameOf(key, port);
      const made = backendTraffic({
        serviceKey: key,
        accrual: this.#annotations.get(key)?.accrual ?? null,
        policy: narrowest(oursByKey.get(key), name)?.policy ?? null,
        standard: narrowest(standardByKey.get(key), name)?.policy ?? null,
      });
      known.set(id, made);
      return made;
    };
    const trafficFrom = (key: string, port: number): LoadedObject[] => {
      const name = nameOf(key, port);
      const isAnnotated = (this.#annotations.get(key)?.accrual ?? null) !== null;
      return [
        narrowest(standardByKey.get(key), name)?.loaded,
        narrowest(oursByKey.get(key), name)?.loaded,
        isAnnotated ? this.#input.objects.get(`Service/${key}`) : undefined,
      ].filter((each) => each !== undefined);
    };
    return { trafficOf, trafficFrom };
  }

  #limits(): LimitIndex {
    const policies = this.#byKind.get("RateLimitPolicy") ?? [];
    const targets = this.#targets("RateLimitPolicy");
    for (const loaded of policies) {
      const { object } = loaded;
      if (object.kind === "RateLimitPolicy" && object.spec.selector !== undefined)
        this.#add(loaded, {
          parent: podsOf(namespaceOf(object)),
          conditions: [condition("Accepted", "Accepted")],
        });
    }
    return limitIndex(policies, targets, (key) => this.#input.objects.get(`Service/${key}`));
  }

  #access(): AccessIndex {
    const { index, statuses } = accessIndex(this.#byKind, this.#input.view);
    for (const status of statuses) this.#tellAccess(status);
    return index;
  }

  #jwt(): JwtIndex {
    return jwtIndex(this.#byKind, this.#input.view, (status) => this.#tellAccess(status));
  }

  #tellAccess(status: AccessStatus): void {
    this.#add(status.loaded, parentStatus(status));
    for (const finding of [status.refusal, status.reference, ...status.findings])
      if (finding !== null) this.#tell(status.loaded, finding);
  }

  #externals(): ExternalIndex {
    const all = this.#byKind.get("XBackend") ?? [];
    const index = externalIndex(all, (key) => this.#input.objects.get(`ConfigMap/${key}`));
    for (const loaded of all) {
      const namespace = namespaceOf(loaded.object);
      const entry = index.get(`${namespace}/${loaded.object.metadata.name}`);
      const finding = entry?.kind === "refused" ? entry.finding : null;
      this.#add(loaded, {
        parent: podsOf(namespace),
        conditions: [condition("Accepted", finding?.reason ?? "Accepted", finding?.message)],
      });
      if (finding !== null) this.#tell(loaded, finding);
    }
    return index;
  }

  #egress(): EgressIndex {
    const policies = this.#byKind.get("EgressPolicy") ?? [];
    for (const loaded of policies) {
      const { object } = loaded;
      if (object.kind !== "EgressPolicy") continue;
      const byHostAlone = (object.spec.allow ?? []).some(
        ({ hosts, cidrs }) => hosts !== undefined && cidrs === undefined,
      );
      this.#add(loaded, {
        parent: podsOf(namespaceOf(object)),
        conditions: [condition("Accepted", "Accepted", byHostAlone ? HOSTS_ALONE : "")],
      });
    }
    return egressIndex(policies);
  }

  /** The targets of all policies of a kind, told of. Policies of some kinds add up, of others one counts (`settle`). */
  #targets<K extends KubeObject["kind"]>(
    kind: K,
    settle: (all: readonly Targeting<KubeObject>[]) => void = () => {},
  ): Targeting<Extract<KubeObject, { kind: K }>>[] {
    const all = targetings(kind, this.#byKind, this.#input.view);
    settle(all);
    for (const each of all) this.#tellTarget(each);
    return all;
  }

  #routes(
    trafficOf: CompiledPolicy["trafficOf"],
    externals: ExternalIndex,
  ): ReadonlyMap<string, ServicePolicy> {
    const { objects, view } = this.#input;
    const all = attachments(objects.values(), view);
    const mirrors = mirrorGraph(all);
    const grants = this.#byKind.get("ReferenceGrant") ?? [];
    const services = new Map<string, MutableServicePolicy>();
    const of = (key: string): MutableServicePolicy => {
      const found = services.get(key) ?? { producer: new Map(), consumers: new Map(), defaults: null };
      services.set(key, found);
      return found;
    };
    for (const [key, annotations] of this.#annotations) {
      const defaults = serviceDefaults(annotations);
      if (defaults !== null) of(key).defaults = defaults;
    }
    for (const each of all) {
      const findings: RouteFindings = { references: [], unsupported: [], droppedRules: new Set() };
      if (each.refusal === null && each.service !== null) {
        const key = serviceKey(each.service);
        const context = {
          view,
          trafficOf,
          grants,
          externals,
          parent: this.#annotations.get(key) ?? NO_ANNOTATIONS,
          mirrorRefusal: (...[route, mirror]: Parameters<CycleOf>) => {
            const way = mirrorCycle(mirrors, key, route, mirror);
            return way === null
              ? null
              : `mirrors in a circle (${way.join(" to ")}), so requests could multiply without end; this mirror is left out: remove one of them`;
          },
        };
        const policy = of(key);
        const consumer = consumerNamespace(each);
        const ports = consumer === null ? policy.producer : consumerPorts(policy, consumer);
        const { route } = each;
        if (route.kind === "HTTPRoute" || route.kind === "GRPCRoute") {
          const compiled = compileHttpRoute(route, context, findings);
          for (const port of each.ports) routesAt(ports, port, "http").http.push(compiled);
        } else {
          const compiled = compileConnectionRoute(route, context, findings);
          const kind = route.kind === "TLSRoute" ? "tls" : "tcp";
          for (const port of each.ports) routesAt(ports, port, kind).tcp.push(compiled);
        }
      }
      this.#tellRoute(each, findings);
    }
    return services;
  }

  #tellRoute(each: Attachment, findings: RouteFindings): void {
    const { loaded, ref, refusal } = each;
    const parent = {
      group: ref.group,
      kind: ref.kind,
      namespace: ref.namespace ?? namespaceOf(each.route),
      name: ref.name,
      section: ref.sectionName ?? null,
      port: ref.port ?? null,
    };
    const conditions: Condition[] = [];
    const rules = each.route.spec.rules ?? [];
    const isWhole = rules.length > 0 && findings.droppedRules.size === rules.length;
    const unsupported = findings.unsupported[0];
    if (refusal !== null) conditions.push(condition("Accepted", refusal.reason, refusal.message));
    else if (isWhole) conditions.push(condition("Accepted", "UnsupportedValue", unsupported!.message));
    else conditions.push(condition("Accepted", "Accepted", noteOf(each)));
    const reference = findings.references[0];
    if (refusal === null)
      conditions.push(
        reference === undefined
          ? condition("ResolvedRefs", "ResolvedRefs")
          : condition("ResolvedRefs", reference.reason, messagesOf(findings.references)),
      );
    if (refusal === null && !isWhole && unsupported !== undefined)
      conditions.push(
        condition(
          "PartiallyInvalid",
          "UnsupportedValue",
          `Dropped Rule ${[...findings.droppedRules].join(", ")}: ${messagesOf(findings.unsupported)}`,
        ),
      );
    this.#add(loaded, { parent, conditions });
    for (const finding of [
      ...(refusal === null ? [] : [refusal]),
      ...findings.references,
      ...findings.unsupported,
    ])
      this.#tell(loaded, finding);
  }

  #tellTarget(each: Targeting<KubeObject>): void {
    const { ref, refusal, policy } = each;
    this.#add(each.loaded, {
      parent: {
        group: ref.group,
        kind: ref.kind,
        namespace: namespaceOf(policy),
        name: ref.name,
        section: ref.sectionName ?? null,
        port: null,
      },
      conditions: [
        refusal === null
          ? condition("Accepted", "Accepted")
          : condition("Accepted", refusal.reason, refusal.message),
      ],
    });
    if (refusal !== null) this.#tell(each.loaded, refusal);
  }

  #add(loaded: LoadedObject, status: ParentStatus): void {
    const key = objectKey(loaded.object);
    const before = this.#statuses.get(key);
    if (before === undefined) this.#statuses.set(key, [status]);
    else before.push(status);
  }

  /** Once, however many parents the object has. */
  #tell({ object }: LoadedObject, finding: Finding): void {
    const before = this.#findings.get(objectKey(object));
    if (before === undefined) this.#findings.set(objectKey(object), [finding]);
    else if (
      !before.some(
        (each) => each.message === finding.message && each.path.join("/") === finding.path.join("/"),
      )
    )
      before.push(finding);
  }
}

const HOSTS_ALONE =
  "hosts without cidrs are what the client says: they keep to the list who wants to, and stop nobody who lies";

type CycleOf = RouteContext["mirrorRefusal"];

function podsOf(namespace: string): ParentReference {
  return { group: "", kind: "Pod", namespace, name: "", section: null, port: null };
}

interface MutableServicePolicy {
  readonly producer: Map<number, PortRoutes>;
  readonly consumers: Map<string, Map<number, PortRoutes>>;
  defaults: ServicePolicy["defaults"];
}

const NO_ANNOTATIONS: TrafficAnnotations = trafficAnnotations(undefined);

function consumerPorts(policy: MutableServicePolicy, namespace: string): Map<number, PortRoutes> {
  const found = policy.consumers.get(namespace) ?? new Map<number, PortRoutes>();
  policy.consumers.set(namespace, found);
  return found;
}

function routesAt(
  ports: Map<number, PortRoutes>,
  { port }: ViewServicePort,
  kind: PortRoutes["kind"],
): PortRoutes {
  const found = ports.get(port) ?? { kind, http: [], tcp: [] };
  ports.set(port, found);
  return found;
}

/** What is about the one port goes before what is about the whole Service. */
function narrowest<T extends Targeting<KubeObject>>(
  all: readonly T[] | undefined,
  portName: string,
): T | null {
  const accepted = (all ?? []).filter((each) => each.refusal === null);
  return (
    accepted.find((each) => each.ref.sectionName === portName) ??
    accepted.find((each) => each.ref.sectionName === undefined) ??
    null
  );
}

function noteOf({ route }: Attachment): string {
  return (route.kind === "HTTPRoute" || route.kind === "GRPCRoute") && (route.spec.hostnames ?? []).length > 0
    ? "hostnames are not looked at for a Service, which is known by its address (GEP-1294); match the Host header"
    : "";
}

function messagesOf(findings: readonly Finding[]): string {
  return [...new Set(findings.map((finding) => finding.message))].join("; ");
}

/** Objects that have conditions. */
export function isPolicy(object: KubeObject): boolean {
  return isRoute(object) || POLICIES.has(object.kind);
}

const POLICIES = new Set([
  "XBackendTrafficPolicy",
  "TrafficPolicy",
  "FaultPolicy",
  "RateLimitPolicy",
  "EgressPolicy",
  "XBackend",
  "AuthorizationPolicy",
  "JwtPolicy",
  "Server",
  "ServerAuthorization",
]);
