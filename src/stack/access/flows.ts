import { parseIpBytes, type IpAddress, type SocketAddress } from "#/base/address.ts";
import type { AccessDecision } from "#/model/access.ts";
import { ANY_METHOD, ANY_PATH, ID_KINDS } from "#/model/flow.ts";
import type { Flow, FlowPage, FlowSample } from "#/model/flow.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import type { PolicySource } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { RequestHead } from "../http/exchange.ts";
import { isGrpc } from "../http/mesh-answer.ts";
import { isLoopback } from "../networks.ts";
import type { AccessObserver } from "./observer.ts";

export interface FlowBounds {
  /** Flows kept apart; what comes beyond is only counted. */
  readonly flowsMax: number;
  /** … of one client. Its further methods and paths are one flow, so that nobody's inventions leave others no place. */
  readonly flowsPerClientMax: number;
  /** … of all clients without identity, for of those one can be many. */
  readonly anonymousFlowsMax: number;
  /** Clients without identity that are told apart by address; later ones by network (/24, /64). */
  readonly addressesMax: number;
  /** Kept of each flow that was refused, or would be. */
  readonly samplesMax: number;
}

export const FLOW_BOUNDS: FlowBounds = {
  flowsMax: 1000,
  flowsPerClientMax: 128,
  anonymousFlowsMax: 500,
  addressesMax: 64,
  samplesMax: 2,
};

/** What is looked at of a request. */
type NotedRequest = Pick<RequestHead, "method" | "path" | "version" | "fields">;

/** A longer path is not looked at, and counts as one of `ANY_PATH`. */
const PATH_CHARS_MAX = 512;
/** Of what a sample shows. */
const SHOWN_CHARS_MAX = 300;
/** Of a name: no identity, object or folded path is longer. */
const NAME_CHARS_MAX = 2048;

/**
 * Remembers what was asked of a workload and what was decided, for `/flows` of the admin port. What the pod asks of itself over loopback is
 * not noted.
 *
 * A request that is like one before costs one look-up and no allocation. Fields of requests are not kept.
 */
export class FlowRecorder implements AccessObserver {
  readonly #bounds: FlowBounds;
  readonly #wallMs: () => number;
  readonly #sinceMs: number;
  /** By identity, address or network. No more than there are flows. */
  readonly #clients = new Map<string, FlowClient>();
  #flowCount = 0;
  #anonymousFlowCount = 0;
  #addressCount = 0;
  readonly #beyond = { count: 0, denied: 0, wouldDeny: 0 };
  /** Requests come in runs from one connection: whose the last one was. */
  #lastPeer: PeerIdentity | null = null;
  #lastIp = "" as IpAddress;
  #last: FlowClient | null = null;

  constructor(wallMs: () => number, bounds: FlowBounds = FLOW_BOUNDS) {
    this.#bounds = bounds;
    this.#wallMs = wallMs;
    this.#sinceMs = wallMs();
  }

  /** `head` null: a connection whose bytes are passed on as they are. */
  decided(
    decision: AccessDecision,
    port: number,
    { ip }: Pick<SocketAddress, "ip">,
    peer: PeerIdentity | null,
    head: NotedRequest | null,
  ): void {
    if (peer !== this.#lastPeer || ip !== this.#lastIp) {
      this.#last = this.#clientOf(ip, peer);
      this.#lastPeer = peer;
      this.#lastIp = ip;
    }
    this.#last?.note(ip, port, head, decision);
  }

  /** Null: not noted. */
  #clientOf(ip: IpAddress, peer: PeerIdentity | null): FlowClient | null {
    if (isLoopback(ip)) return null;
    if (peer !== null) return this.#clients.get(peer.name) ?? this.#newClient(peer.name, peer.name, ip);
    const known = this.#clients.get(ip);
    if (known !== undefined) return known;
    if (this.#addressCount < this.#bounds.addressesMax) return this.#newClient(ip, "", ip);
    const network = networkOf(ip);
    return this.#clients.get(network) ?? this.#newClient(network, "", network);
  }

  page(): FlowPage {
    const flows = [...this.#clients.values()].flatMap((client) => client.describe());
    return { version: 1, sinceMs: this.#sinceMs, flows, beyond: { ...this.#beyond } };
  }

  #newClient(key: string, identity: string, address: string): FlowClient {
    const { flowsMax, anonymousFlowsMax, flowsPerClientMax, samplesMax } = this.#bounds;
    const isAnonymous = identity === "";
    let isKept = false;
    const client: FlowClient = new FlowClient(
      identity,
      address,
      flowsPerClientMax,
      samplesMax,
      this.#wallMs,
      {
        takePlace: () => {
          if (this.#flowCount >= flowsMax) return false;
          if (isAnonymous && this.#anonymousFlowCount >= anonymousFlowsMax) return false;
          this.#flowCount++;
          if (isAnonymous) this.#anonymousFlowCount++;
          // A client is kept once it has a flow, so that there are no more of them than flows.
          if (!isKept) {
            isKept = true;
            this.#clients.set(key, client);
            if (isAnonymous && !address.includes("/")) this.#addressCount++;
          }
          return true;
        },
        countBeyond: ({ verdict, would }) => {
          this.#beyond.count++;
          if (verdict !== "allowed") this.#beyond.denied++;
          if (would?.verdict === "would_deny") this.#beyond.wouldDeny++;
        },
      },
    );
    return client;
  }
}

interface Places {
  /** Whether there may be one more flow. */
  takePlace(): boolean;
  countBeyond(decision: AccessDecision): void;
}

/** What one client did, over all its connections. */
class FlowClient {
  readonly identity: string;
  readonly address: string;
  readonly #flowsMax: number;
  readonly #samplesMax: number;
  readonly #wallMs: () => number;
  readonly #places: Places;
  /** By a hash of port, method and folded path; those of one hash are chained. */
  readonly #flows = new Map<number, Noted>();
  #count = 0;

  constructor(
    identity: string,
    address: string,
    flowsMax: number,
    samplesMax: number,
    wallMs: () => number,
    places: Places,
  ) {
    this.identity = identity;
    this.address = address;
    this.#flowsMax = flowsMax;
    this.#samplesMax = samplesMax;
    this.#wallMs = wallMs;
    this.#places = places;
  }

  /** Notes a request or, with null, a connection whose bytes are passed on as they are. */
  note(ip: IpAddress, port: number, request: NotedRequest | null, decision: AccessDecision): void {
    const stop = request === null ? 0 : pathEnd(request.path);
    const isLong = stop > PATH_CHARS_MAX;
    const hash = request === null || isLong ? port : hashOf(port, request, stop);
    for (let noted = this.#flows.get(hash) ?? null; noted !== null; noted = noted.next)
      if (
        noted.port === port &&
        (noted.isAny ? isLong && request !== null : !isLong && noted.isOf(request, stop)) &&
        noted.isDecidedAs(decision)
      ) {
        this.#count1(noted, ip, request, decision);
        return;
      }
    this.#add(hash, isLong, ip, port, request, decision);
  }

  describe(): Flow[] {
    const out: Flow[] = [];
    for (const first of this.#flows.values())
      for (let noted: Noted | null = first; noted !== null; noted = noted.next)
        out.push(noted.describe(this.identity, this.address));
    return out;
  }

  /** Not for requests like one before. */
  #add(
    hash: number,
    isLong: boolean,
    ip: IpAddress,
    port: number,
    request: NotedRequest | null,
    decision: AccessDecision,
  ): void {
    if (request !== null && (isLong || this.#count >= this.#flowsMax)) {
      // One flow for each port and way of being decided: few, unless policies are many.
      for (let noted = this.#flows.get(port) ?? null; noted !== null; noted = noted.next)
        if (noted.isAny && noted.port === port && noted.isDecidedAs(decision)) {
          this.#count1(noted, ip, request, decision);
          return;
        }
      if (this.#count >= 2 * this.#flowsMax) this.#places.countBeyond(decision);
      else this.#insert(port, new Noted(port, request, null, decision), ip, request);
      return;
    }
    if (this.#count >= this.#flowsMax) {
      this.#places.countBeyond(decision);
      return;
    }
    const template = request === null ? "" : foldedPath(request.path);
    this.#insert(hash, new Noted(port, request, template, decision), ip, request);
  }

  #insert(hash: number, noted: Noted, ip: IpAddress, request: NotedRequest | null): void {
    if (!this.#places.takePlace()) {
      this.#places.countBeyond(noted.decision);
      return;
    }
    this.#count++;
    noted.next = this.#flows.get(hash) ?? null;
    this.#flows.set(hash, noted);
    noted.firstSeenMs = this.#wallMs();
    this.#count1(noted, ip, request, noted.decision);
  }

  #count1(noted: Noted, ip: IpAddress, request: NotedRequest | null, decision: AccessDecision): void {
    const nowMs = this.#wallMs();
    noted.count++;
    noted.lastSeenMs = nowMs;
    if (!noted.isRefused || noted.samples.length >= this.#samplesMax) return;
    const path = request === null ? "" : request.path.slice(0, pathEnd(request.path));
    noted.samples.push({
      atMs: nowMs,
      address: ip,
      method: shown(request?.method ?? ""),
      path: shown(path),
      reason: shown(decision.reason),
    });
  }
}

/** One flow as it is counted. */
class Noted {
  readonly port: number;
  readonly isRequest: boolean;
  readonly isGrpc: boolean;
  readonly method: string;
  /** As in `Flow`, but with the client's own characters. Null: any. */
  readonly template: string | null;
  /** The first of its kind: those after it are equal in what is compared. */
  readonly decision: AccessDecision;
  readonly isRefused: boolean;
  next: Noted | null = null;
  count = 0;
  firstSeenMs = 0;
  lastSeenMs = 0;
  readonly samples: FlowSample[] = [];

  constructor(port: number, request: NotedRequest | null, template: string | null, decision: AccessDecision) {
    this.port = port;
    this.isRequest = request !== null;
    this.isGrpc = template !== null && request?.method === "POST" && isGrpc(request);
    // A slice would keep the whole head that it was cut from.
    this.method = template === null ? ANY_METHOD : (request?.method ?? "");
    // Service and method of a call are no ids, whatever they look like.
    this.template = this.isGrpc && request !== null ? request.path.slice(0, pathEnd(request.path)) : template;
    this.decision = decision;
    this.isRefused = decision.verdict !== "allowed" || decision.would?.verdict === "would_deny";
  }

  get isAny(): boolean {
    return this.template === null;
  }

  isOf(request: NotedRequest | null, stop: number): boolean {
    const { template } = this;
    if (request === null) return !this.isRequest;
    if (!this.isRequest || template === null || request.method !== this.method) return false;
    return this.isGrpc
      ? template.length === stop && request.path.startsWith(template)
      : foldsTo(request.path, stop, template);
  }

  isDecidedAs({ verdict, by, would }: AccessDecision): boolean {
    const { decision } = this;
    if (verdict !== decision.verdict || !isSameSource(by, decision.by)) return false;
    if (would === null || decision.would === null) return would === decision.would;
    return would.verdict === decision.would.verdict && isSameSource(would.by, decision.would.by);
  }

  describe(identity: string, address: string): Flow {
    const { decision, port, count, firstSeenMs, lastSeenMs, samples } = this;
    return {
      client: { identity: shown(identity, NAME_CHARS_MAX), address },
      port,
      protocol: !this.isRequest ? "opaque" : this.isGrpc ? "grpc" : "http",
      method: shown(this.method),
      path: this.template === null ? ANY_PATH : templateText(this.template),
      verdict: decision.verdict,
      rule: shown(ruleText(decision.by), NAME_CHARS_MAX),
      would:
        decision.would === null
          ? null
          : { verdict: decision.would.verdict, rule: shown(ruleText(decision.would.by), NAME_CHARS_MAX) },
      count,
      firstSeenMs,
      lastSeenMs,
      samples: [...samples],
    };
  }
}

/** `AuthorizationPolicy/shop/orders web-reads`: an object and, where it has several, which of its rules. */
export function ruleText(source: PolicySource): string {
  return `${ruleOf(source)} ${source.section}`.trim();
}

function isSameSource(a: PolicySource, b: PolicySource): boolean {
  return (
    a === b ||
    (a.name === b.name && a.namespace === b.namespace && a.kind === b.kind && a.section === b.section)
  );
}

// --- paths, with ids folded to their kind --------------------------------------------------------------------------

function pathEnd(path: string): number {
  const query = path.indexOf("?");
  return query === -1 ? path.length : query;
}

/** FNV-1a over port, method and what `foldedPath` gives, without making it. Small integers only. */
function hashOf(port: number, { method, path }: NotedRequest, stop: number): number {
  let hash = 0x811c9dc5 ^ port;
  for (let i = 0; i < method.length; i++) hash = Math.imul(hash ^ method.charCodeAt(i), PRIME);
  for (let i = 0; i < stop;) {
    const end = segmentEnd(path, i, stop);
    const kind = kindOf(path, i, end);
    if (kind === LITERAL)
      for (let at = i; at < end; at++) hash = Math.imul(hash ^ path.charCodeAt(at), PRIME);
    else hash = Math.imul(hash ^ (MARK + kind), PRIME);
    hash = Math.imul(hash ^ SLASH, PRIME);
    i = end + 1;
  }
  return hash & 0x3fff_ffff;
}

/** The path without its query, with a mark for each id: a character that no path has, for those are bytes. */
function foldedPath(path: string): string {
  const stop = pathEnd(path);
  return path
    .slice(0, stop)
    .split("/")
    .map((segment) => {
      const kind = kindOf(segment, 0, segment.length);
      return kind === LITERAL ? segment : String.fromCharCode(MARK + kind);
    })
    .join("/");
}

/** Whether the path up to `stop` folds to `template`, which it is not folded for. */
function foldsTo(path: string, stop: number, template: string): boolean {
  let at = 0;
  for (let i = 0; ;) {
    const end = segmentEnd(path, i, stop);
    const kind = kindOf(path, i, end);
    if (kind === LITERAL) {
      for (; i < end; i++, at++) if (path.charCodeAt(i) !== template.charCodeAt(at)) return false;
    } else if (template.charCodeAt(at++) !== MARK + kind) return false;
    if (end >= stop) return at === template.length;
    if (template.charCodeAt(at) !== SLASH) return false;
    at++;
    i = end + 1;
  }
}

function segmentEnd(path: string, start: number, stop: number): number {
  let end = start;
  while (end < stop && path.charCodeAt(end) !== SLASH) end++;
  return end;
}

const LITERAL = 0;
const NUMBER = 1;
const UUID = 2;
const HEX = 3;
const TOKEN = 4;
const KINDS = [ID_KINDS.number, ID_KINDS.uuid, ID_KINDS.hex, ID_KINDS.token];
const MARK = 0x100;

/** `/orders/{number}/lines`. Braces of the client's own are escaped. */
function templateText(template: string): string {
  const told = template.replace(/[{}\u0101-\u0104]/g, (char) =>
    char === "{" ? "%7B" : char === "}" ? "%7D" : KINDS[char.charCodeAt(0) - MARK - 1]!.text,
  );
  return shown(told, NAME_CHARS_MAX);
}

/** Words stay: what is folded has digits, and besides the length and alphabet of ids. */
function kindOf(path: string, start: number, stop: number): number {
  const length = stop - start;
  let digits = 0;
  let hexLetters = 0;
  let letters = 0;
  let dashes = 0;
  for (let i = start; i < stop; i++) {
    const char = path.charCodeAt(i);
    const lower = char | 0x20;
    if (char >= 0x30 && char <= 0x39) digits++;
    else if (lower >= 0x61 && lower <= 0x66) hexLetters++;
    else if ((lower >= 0x67 && lower <= 0x7a) || char === UNDERSCORE) letters++;
    else if (char === DASH) dashes++;
    else return LITERAL;
  }
  if (digits === 0) return LITERAL;
  if (digits === length) return NUMBER;
  if (letters === 0 && dashes === 4 && length === 36) return UUID;
  if (dashes > 0) return LITERAL;
  if (letters === 0) return length >= 8 ? HEX : LITERAL;
  return length >= 20 && digits >= 2 ? TOKEN : LITERAL;
}

const SLASH = 0x2f;
const UNDERSCORE = 0x5f;
const DASH = 0x2d;
const PRIME = 0x0100_0193;

/** Printable ASCII, cut to its bound: what a terminal or a log must not take for a command of its own is written as `%XX`. */
function shown(text: string, charsMax: number = SHOWN_CHARS_MAX): string {
  const cut = text.length > charsMax ? `${text.slice(0, charsMax)}...` : text;
  return cut.replace(
    /[^\x20-\x7e]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`,
  );
}

function networkOf(ip: IpAddress): string {
  const bytes = parseIpBytes(ip);
  if (bytes === null) return ip;
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.0/24`;
  const groups = [0, 2, 4, 6].map((i) => ((bytes[i]! << 8) | bytes[i + 1]!).toString(16));
  return `${groups.join(":")}::/64`;
}
