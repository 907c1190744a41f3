import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { parseIp } from "#/base/address.ts";
import type { GetDestination, WeightedAddr } from "#/gen/linkerd/destination_pb.ts";
import {
  DestinationProfileSchema,
  GetDestinationSchema,
  UpdateSchema,
  WeightedAddrSchema,
} from "#/gen/linkerd/destination_pb.ts";
import type { TcpAddress } from "#/gen/linkerd/net_pb.ts";
import { TlsOriginationSchema } from "#/gen/pillion/traffic_pb.ts";
import { capabilitiesIn } from "#/model/capabilities.ts";
import { weightedAddr } from "../answers/endpoints.ts";
import { profileOf } from "../answers/profile.ts";
import { meaningOfName, parseAuthority } from "../answers/target.ts";
import { wireAddress } from "../answers/wire.ts";
import { externalKeyOf } from "../policy/external.ts";
import type { MeshView, ViewEndpoint } from "../services/mesh-view.ts";
import { endpointKey } from "../services/mesh-view.ts";
import type { LiveView } from "./live-view.ts";
import { sameBytes, SharedAnswers } from "./live-view.ts";
import type { MethodHandler, Watcher } from "./server.ts";
import { invalidArgument, notFound } from "./status.ts";

/** `io.linkerd.proxy.destination.Destination`. */
export function destinationMethods(live: LiveView): Map<string, MethodHandler> {
  const sets = new SharedAnswers<EndpointSet>(sameSet);
  const profiles = new SharedAnswers<Uint8Array>(sameBytes);
  return new Map<string, MethodHandler>([
    [
      "/io.linkerd.proxy.destination.Destination/Get",
      { isOpen: false, watch: (request, watcher) => watchEndpoints(live, sets, decode(request), watcher) },
    ],
    [
      "/io.linkerd.proxy.destination.Destination/GetProfile",
      { isOpen: false, watch: (request, watcher) => watchProfile(live, profiles, decode(request), watcher) },
    ],
  ]);
}

/** Endpoints of one name and port. `exists`: the Service is there, with or without endpoints. */
export interface EndpointSet {
  readonly exists: boolean;
  readonly labels: Readonly<Record<string, string>>;
  /** By address. */
  readonly endpoints: ReadonlyMap<string, EncodedEndpoint>;
}

/** The message, its bytes to compare, and the address alone for removals. */
interface EncodedEndpoint {
  readonly message: WeightedAddr;
  readonly bytes: Uint8Array;
  readonly address: TcpAddress;
}

function watchEndpoints(
  live: LiveView,
  sets: SharedAnswers<EndpointSet>,
  request: GetDestination,
  watcher: Watcher,
): () => void {
  const target = parseAuthority(request.path);
  if (target === null)
    throw invalidArgument(`${JSON.stringify(request.path.slice(0, 300))} is not of the form name:port`);
  if (parseIp(target.host) !== null)
    throw invalidArgument("Get is asked by name; an address has no other endpoints than itself");
  const { isExtended } = capabilitiesIn(request.contextToken);
  const compute = (view: MeshView): EndpointSet => endpointSet(view, target.host, target.port, isExtended);
  const first = compute(live.require());
  if (!first.exists) throw notFound(`no Service is called ${target.host}`);
  const key = `${isExtended ? "extended" : "standard"} ${request.path.toLowerCase()}`;
  const basis = (view: MeshView): readonly unknown[] => [view.node, ...partsOf(view, target.host)];
  return sets.watch(live, { key, compute, basis }, watcher, (next, before) => {
    for (const update of updatesOnce(before, next)) watcher.send(update);
  });
}

export function endpointSet(
  view: MeshView,
  host: string,
  port: number,
  isExtended: boolean = false,
): EndpointSet {
  const external = externalKeyOf(view, host);
  if (external !== null) return externalSet(view, external, port, isExtended);
  const meaning = meaningOfName(view, host);
  if (meaning.kind === "foreign")
    throw invalidArgument(`${host} is no Service's name in ${view.node.clusterDomain}`);
  if (meaning.kind === "missing") return { exists: false, labels: {}, endpoints: new Map() };
  const { service } = meaning;
  if (service.externalName !== null)
    throw invalidArgument(`${host} is of type ExternalName; ask for ${service.externalName}`);
  const found = service.ports.find((one) => one.port === port);
  const endpoints = (found === undefined ? [] : meaning.endpoints(found)).map(
    (endpoint) => [endpointKey(endpoint), encoded(endpoint, found?.protocol === "opaque")] as const,
  );
  return {
    exists: true,
    labels: { namespace: service.namespace, service: service.name },
    endpoints: new Map(endpoints),
  };
}

const ENCODED: Readonly<Record<"plain" | "opaque", WeakMap<ViewEndpoint, EncodedEndpoint>>> = {
  plain: new WeakMap(),
  opaque: new WeakMap(),
};

/** Once for each endpoint: its object is another one when anything of it has changed. */
function encoded(endpoint: ViewEndpoint, isOpaque: boolean): EncodedEndpoint {
  const known = ENCODED[isOpaque ? "opaque" : "plain"];
  let found = known.get(endpoint);
  if (found === undefined) {
    const message = weightedAddr(endpoint, isOpaque);
    const address = wireAddress(endpoint.ip, endpoint.port);
    known.set(endpoint, (found = { message, bytes: toBinary(WeightedAddrSchema, message), address }));
  }
  return found;
}

/** A proxy that would speak plaintext to a server of TLS is told of no endpoint. */
function externalSet(view: MeshView, key: string, port: number, isExtended: boolean): EndpointSet {
  const entry = view.policy.externals.get(key);
  if (entry?.kind !== "backend" || entry.backend.port !== port)
    return { exists: false, labels: {}, endpoints: new Map() };
  const { hostname, source, tls } = entry.backend;
  const ips = tls !== null && !isExtended ? [] : (view.outsideAddresses?.get(hostname) ?? []);
  const endpoints = ips.map((ip) => {
    const address = wireAddress(ip, port);
    const message = weightedAddr({ ip, port, hostname: null, pod: null }, false);
    if (tls !== null) message.originateTls = create(TlsOriginationSchema, tls);
    return [
      endpointKey({ ip, port, hostname: null, pod: null }),
      { message, bytes: toBinary(WeightedAddrSchema, message), address },
    ] as const;
  });
  const labels = { namespace: source.namespace, xbackend: source.name };
  return { exists: true, labels, endpoints: new Map(endpoints) };
}

const UPDATES = new WeakMap<
  EndpointSet,
  { readonly before: EndpointSet | null; readonly messages: Uint8Array[] }
>();

/** As `updates`. All who watch the same name go from the same set to the same set, so that it is encoded once for them. */
function updatesOnce(before: EndpointSet | null, next: EndpointSet): Uint8Array[] {
  let found = UPDATES.get(next);
  if (found === undefined || found.before !== before)
    UPDATES.set(next, (found = { before, messages: updates(before, next) }));
  return found.messages;
}

/** What to tell a client that knows `before` (null: nothing). Add goes before Remove, so that no moment is without endpoints. */
export function updates(before: EndpointSet | null, next: EndpointSet): Uint8Array[] {
  const out: Uint8Array[] = [];
  if (!next.exists || (before === null && next.endpoints.size === 0)) {
    out.push(
      toBinary(
        UpdateSchema,
        create(UpdateSchema, { update: { case: "noEndpoints", value: { exists: next.exists } } }),
      ),
    );
    return out;
  }
  const added: WeightedAddr[] = [];
  for (const [key, endpoint] of next.endpoints) {
    const old = before?.endpoints.get(key);
    if (old === undefined || !sameBytes(old.bytes, endpoint.bytes)) added.push(endpoint.message);
  }
  const removed = [...(before?.endpoints ?? [])]
    .filter(([key]) => !next.endpoints.has(key))
    .map(([, endpoint]) => endpoint.address);
  if (added.length > 0)
    out.push(
      toBinary(
        UpdateSchema,
        create(UpdateSchema, {
          update: { case: "add", value: { addrs: added, metricLabels: { ...next.labels } } },
        }),
      ),
    );
  if (removed.length > 0)
    out.push(
      toBinary(UpdateSchema, create(UpdateSchema, { update: { case: "remove", value: { addrs: removed } } })),
    );
  return out;
}

function sameSet(a: EndpointSet, b: EndpointSet): boolean {
  if (a.exists !== b.exists || a.endpoints.size !== b.endpoints.size) return false;
  for (const [key, endpoint] of a.endpoints) {
    const other = b.endpoints.get(key);
    if (other === undefined || !sameBytes(endpoint.bytes, other.bytes)) return false;
  }
  return true;
}

function watchProfile(
  live: LiveView,
  profiles: SharedAnswers<Uint8Array>,
  request: GetDestination,
  watcher: Watcher,
): () => void {
  const target = parseAuthority(request.path);
  if (target === null)
    throw invalidArgument(
      `${JSON.stringify(request.path.slice(0, 300))} is not of the form name:port or ip:port`,
    );
  const compute = (view: MeshView): Uint8Array => {
    const profile = profileOf(view, target.host, target.port);
    if (profile === null) throw invalidArgument(`${target.host} is no name of ${view.node.clusterDomain}`);
    return toBinary(DestinationProfileSchema, profile);
  };
  const ip = parseIp(target.host);
  const basis = (view: MeshView): readonly unknown[] =>
    ip === null
      ? [view.node, ...partsOf(view, target.host)]
      : [view.node, view.policy, view.servicesByIp.get(ip), view.podsByIp.get(ip)];
  return profiles.watch(live, { key: request.path.toLowerCase(), compute, basis }, watcher, (bytes) =>
    watcher.send(bytes),
  );
}

/** What of the mesh a name is, as the objects of the view. */
function partsOf(view: MeshView, host: string): readonly unknown[] {
  if (externalKeyOf(view, host) !== null) return [view.policy, view.outsideAddresses];
  const meaning = meaningOfName(view, host);
  return [meaning.kind, meaning.kind === "service" ? meaning.service : null];
}

function decode(request: Uint8Array): GetDestination {
  try {
    return fromBinary(GetDestinationSchema, request);
  } catch {
    throw invalidArgument("the request is no GetDestination");
  }
}
