import type {
  AccessAction,
  AccessPolicy,
  AccessRoute,
  AccessRule,
  AccessSource,
  ClaimMatch,
  NetworkMatch,
  PeerMatch,
  RequestCondition,
} from "#/model/access.ts";
import type { FieldMatch, HostMatch, HttpMatch, PathMatch } from "#/model/route.ts";
import type { ProtoReader } from "#/wire/proto.ts";
import { decodeSource, NO_SOURCE } from "./decode-common.ts";
import { decodeNetwork } from "./decode-network.ts";
import {
  decodeField,
  decodeHeader,
  decodeHost,
  decodeHttpMatch,
  decodePath,
  decodeRpc,
} from "./decode-match.ts";

/**
 * `pillion.access.AccessPolicy`. Whatever is not understood, a new field among it, makes the policy one that cannot be followed: it could
 * be a condition, and without it the rule would hold for more.
 */
export function decodeAccess(reader: ProtoReader): AccessPolicy {
  const routes: AccessRoute[] = [];
  const rules: AccessRule[] = [];
  while (reader.next()) {
    if (reader.field === 1) routes.push(decodeRoute(reader.part()));
    else if (reader.field === 2) rules.push(decodeRule(reader.part()));
    else unknown(reader, "an access policy");
  }
  if (rules.some(({ route }) => route !== null && route >= routes.length))
    reader.reject("a rule is of a route that is not there");
  return { routes, rules };
}

function unknown(reader: ProtoReader, where: string): void {
  reader.reject(`field ${reader.field} of ${where} is not known`);
}

function decodeRoute(reader: ProtoReader): AccessRoute {
  let source = NO_SOURCE;
  const hosts: HostMatch[] = [];
  const matches: HttpMatch[] = [];
  while (reader.next()) {
    if (reader.field === 1) source = decodeSource(reader.part());
    else if (reader.field === 2) hosts.push(decodeHost(reader.part()));
    else if (reader.field === 3) matches.push(decodeHttpMatch(reader.part()));
    else unknown(reader, "a route");
  }
  return { source, hosts, matches };
}

const ACTIONS: Readonly<Record<number, AccessAction>> = {
  1: "exempt",
  2: "deny",
  3: "allow",
  4: "restrict",
  5: "default",
  6: "audit",
};
const STAGES: Readonly<Record<number, AccessRule["stage"]>> = { 1: "both", 2: "enforced", 3: "proposed" };
const LAYERS: Readonly<Record<number, AccessRule["layer"]>> = { 1: "both", 2: "connections", 3: "requests" };

function decodeRule(reader: ProtoReader): AccessRule {
  let source = NO_SOURCE;
  let action: AccessAction | undefined;
  let stage: AccessRule["stage"] | undefined;
  let layer: AccessRule["layer"] | undefined;
  let sources: AccessSource[] | null = null;
  let requests: RequestCondition[] | null = null;
  let route: number | null = null;
  while (reader.next()) {
    if (reader.field === 1) source = decodeSource(reader.part());
    else if (reader.field === 2) action = ACTIONS[reader.uint()];
    else if (reader.field === 3) stage = STAGES[reader.uint()];
    else if (reader.field === 4) layer = LAYERS[reader.uint()];
    else if (reader.field === 5) sources = decodeList(reader.part(), "sources", decodeAccessSource);
    else if (reader.field === 6) requests = decodeRequests(reader.part());
    else if (reader.field === 7) route = reader.uint();
    else unknown(reader, "a rule");
  }
  if (action === undefined || stage === undefined || layer === undefined)
    reader.reject("a rule whose action, stage or layer is not known");
  return {
    source,
    action: action ?? "deny",
    stage: stage ?? "both",
    layer: layer ?? "both",
    sources,
    requests,
    route,
  };
}

/** `AccessRule.Requests`. */
export function decodeRequests(reader: ProtoReader): RequestCondition[] {
  return decodeList(reader, "requests", decodeCondition);
}

/** A message of one repeated field. */
function decodeList<T>(reader: ProtoReader, where: string, decode: (reader: ProtoReader) => T): T[] {
  const list: T[] = [];
  while (reader.next()) {
    if (reader.field === 1) list.push(decode(reader.part()));
    else unknown(reader, where);
  }
  return list;
}

function decodeTexts(reader: ProtoReader, where: string): string[] {
  const list: string[] = [];
  while (reader.next()) {
    if (reader.field === 1) list.push(reader.text());
    else unknown(reader, where);
  }
  return list;
}

function decodeAccessSource(reader: ProtoReader): AccessSource {
  let peer: PeerMatch | null = null;
  let networks: NetworkMatch[] | null = null;
  while (reader.next()) {
    if (reader.field === 9) networks = decodeList(reader.part(), "networks", decodeNetworkMatch);
    else {
      const found = decodePeer(reader);
      if (found === null) unknown(reader, "a source");
      else peer = found;
    }
  }
  // Left out it would be anyone.
  if (peer === null) reader.reject("a source of no known kind");
  return { peer: peer ?? { kind: "name", name: "" }, networks };
}

function decodePeer(reader: ProtoReader): PeerMatch | null {
  switch (reader.field) {
    case 1:
      return { kind: "anyone" };
    case 2:
      return { kind: "unauthenticated" };
    case 3:
      return { kind: "authenticated" };
    case 4:
      return { kind: "trust-domain", trustDomain: reader.text() };
    case 5: {
      const [trustDomain, namespace] = decodeParts(reader.part(), 2);
      return { kind: "namespace", trustDomain, namespace };
    }
    case 6: {
      const [trustDomain, namespace, serviceAccount] = decodeParts(reader.part(), 3);
      return { kind: "identity", trustDomain, namespace, serviceAccount };
    }
    case 7:
      return { kind: "name", name: reader.text() };
    case 8:
      return { kind: "suffix", labels: decodeTexts(reader.part(), "a suffix") };
    default:
      return null;
  }
}

/** A message of so many strings, in fields 1 and up. */
function decodeParts(reader: ProtoReader, count: number): [string, string, string] {
  const parts: [string, string, string] = ["", "", ""];
  while (reader.next()) {
    if (reader.field <= count) parts[reader.field - 1] = reader.text();
    else unknown(reader, "an identity");
  }
  return parts;
}

function decodeNetworkMatch(reader: ProtoReader): NetworkMatch {
  const network = decodeNetwork(reader);
  if (network === null) reader.reject("a network that cannot be read");
  return network ?? { net: "", except: [] };
}

function decodeCondition(reader: ProtoReader): RequestCondition {
  let methods: string[] | null = null;
  let paths: PathMatch[] | null = null;
  let hosts: HostMatch[] | null = null;
  const headers: FieldMatch[] = [];
  const query: FieldMatch[] = [];
  const claims: ClaimMatch[] = [];
  while (reader.next()) {
    if (reader.field === 1) methods = decodeTexts(reader.part(), "methods");
    else if (reader.field === 2) paths = decodeList(reader.part(), "paths", decodeAccessPath);
    else if (reader.field === 3) hosts = decodeList(reader.part(), "hosts", decodeHost);
    else if (reader.field === 4) headers.push(decodeHeader(reader.part()));
    else if (reader.field === 5) query.push(decodeField(reader.part()));
    else if (reader.field === 6) claims.push(decodeClaim(reader.part()));
    else unknown(reader, "a condition");
  }
  return { methods, paths, hosts, headers, query, claims };
}

function decodeAccessPath(reader: ProtoReader): PathMatch {
  let path: PathMatch | null = null;
  while (reader.next()) {
    if (reader.field === 1) path = decodePath(reader.part());
    else if (reader.field === 2) path = decodeRpc(reader.part());
    else unknown(reader, "a path");
  }
  if (path === null) reader.reject("a path of no known kind");
  return path ?? { kind: "exact", value: "" };
}

function decodeClaim(reader: ProtoReader): ClaimMatch {
  let claim = "";
  const values: string[] = [];
  while (reader.next()) {
    if (reader.field === 1) claim = reader.text();
    else if (reader.field === 2) values.push(reader.text());
    else unknown(reader, "a claim");
  }
  if (claim === "") reader.reject("a condition on a claim without its name");
  return { claim, values };
}
