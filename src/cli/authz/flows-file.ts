import { readFileSync, statSync } from "node:fs";
import { parseIp } from "#/base/address.ts";
import { ANY_METHOD, ANY_PATH } from "#/model/flow.ts";
import type { Flow, FlowPage, FlowSample } from "#/model/flow.ts";
import type { NodeInfo } from "#/model/node-protocol.ts";
import { parseNetwork } from "#/stack/networks.ts";
import { CommandError } from "../exit.ts";

/** What was seen of a whole mesh: what `authz flows -o json` prints, and `suggest` and `test` read. */
export interface FlowsFile {
  readonly kind: "pillion-flows";
  readonly version: 1;
  readonly takenAtMs: number;
  readonly mesh: Pick<NodeInfo, "trustDomain" | "clusterDomain" | "podCidr" | "serviceCidr" | "gatewayIp">;
  readonly servers: readonly FlowServer[];
}

/** One workload that is asked things, all its pods together. */
export interface FlowServer {
  readonly namespace: string;
  /** `deployment/front` */
  readonly workload: string;
  /** What tells its pods from others; null: nothing does. */
  readonly selector: PodSelector | null;
  readonly services: readonly {
    readonly name: string;
    readonly ports: readonly { readonly port: number; readonly targetPort: number }[];
  }[];
  readonly podCount: number;
  /** Of how many the sidecar answered. */
  readonly heardCount: number;
  readonly sinceMs: number;
  readonly flows: readonly Flow[];
  readonly beyond: FlowPage["beyond"];
}

export interface PodSelector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: string;
    readonly values?: readonly string[];
  }[];
}

const FILE_BYTES_MAX = 64 * 1024 * 1024;

/** Reads files of flows and joins them. Throws a `CommandError` of exit code 2 that names file and field. */
export function readFlowsFiles(paths: readonly string[]): FlowsFile {
  return joined(
    paths.map((path) => {
      let text: string;
      try {
        if (statSync(path).size > FILE_BYTES_MAX)
          throw new Error(`it is larger than ${FILE_BYTES_MAX} bytes`);
        text = readFileSync(path, "utf8");
      } catch (error) {
        throw new CommandError(`cannot read the flows in ${path}: ${(error as Error).message}`, 2);
      }
      return parseFlowsFile(text, path);
    }),
  );
}

export function parseFlowsFile(text: string, where: string): FlowsFile {
  const at = new Field(where, "", json(text, where));
  const file = at.object();
  file.only(["kind", "version", "takenAtMs", "mesh", "servers"]);
  if (file.get("kind").text() !== "pillion-flows" || file.get("version").value !== 1)
    throw file.wrong('is no file of flows; make one with "pillion authz flows -o json"');
  const mesh = file.get("mesh").object();
  const servers = file.get("servers").list(10_000);
  return {
    kind: "pillion-flows",
    version: 1,
    takenAtMs: file.get("takenAtMs").whole(),
    mesh: {
      trustDomain: mesh.get("trustDomain").matching(/^[a-z0-9._-]{1,255}$/, "a trust domain"),
      clusterDomain: mesh.get("clusterDomain").matching(/^[a-z0-9.-]{1,255}$/, "a domain"),
      podCidr: mesh.get("podCidr").network(),
      serviceCidr: mesh.get("serviceCidr").network(),
      gatewayIp: mesh.get("gatewayIp").network() as NodeInfo["gatewayIp"],
    },
    servers: servers.map(serverOf),
  };
}

/** What one sidecar says. It may have been taken over, so it is believed no more than a file. */
export function parseFlowPage(text: string, where: string): FlowPage {
  return pageOf(new Field(where, "", json(text, where)));
}

/** One file of several: of a workload that is in more than one, what was seen is added up. */
export function joined(files: readonly FlowsFile[]): FlowsFile {
  const [first, ...rest] = files;
  if (first === undefined) throw new CommandError("there are no flows to look at", 2);
  if (rest.length === 0) return first;
  const latest = files.reduce((a, b) => (b.takenAtMs >= a.takenAtMs ? b : a));
  const byName = Map.groupBy(
    files.flatMap(({ servers }) => servers),
    ({ namespace, workload }) => `${namespace}/${workload}`,
  );
  const servers = [...byName.values()].map((same): FlowServer => {
    const last = same.at(-1)!;
    return { ...last, ...joinedFlows(same), sinceMs: Math.min(...same.map(({ sinceMs }) => sinceMs)) };
  });
  return { ...latest, servers };
}

/** Of flows that are alike in all but their figures, one. Sorted, so that the same gives the same. */
export function joinedFlows(
  pages: readonly Pick<FlowPage, "flows" | "beyond">[],
): Pick<FlowPage, "flows" | "beyond"> {
  const byKey = Map.groupBy(
    pages.flatMap(({ flows }) => flows),
    keyOf,
  );
  const flows = [...byKey]
    .toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    .map(([, same]): Flow => ({
      ...same[0]!,
      count: sum(same.map(({ count }) => count)),
      firstSeenMs: Math.min(...same.map(({ firstSeenMs }) => firstSeenMs)),
      lastSeenMs: Math.max(...same.map(({ lastSeenMs }) => lastSeenMs)),
      samples: same
        .flatMap(({ samples }) => samples)
        .toSorted((a, b) => a.atMs - b.atMs)
        .slice(0, SAMPLES_MAX),
    }));
  const beyond = {
    count: sum(pages.map((page) => page.beyond.count)),
    denied: sum(pages.map((page) => page.beyond.denied)),
    wouldDeny: sum(pages.map((page) => page.beyond.wouldDeny)),
  };
  return { flows, beyond };
}

const SAMPLES_MAX = 3;

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

function keyOf({ client, port, protocol, method, path, verdict, rule, would }: Flow): string {
  const who = client.identity === "" ? client.address : client.identity;
  return JSON.stringify([who, String(port).padStart(5, "0"), protocol, path, method, verdict, rule, would]);
}

// --- checks ----------------------------------------------------------------------------------------------------------

function json(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new CommandError(`${where} is no JSON: ${(error as Error).message.slice(0, 200)}`, 2);
  }
}

const NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

function serverOf(at: Field): FlowServer {
  const server = at.object();
  server.only([
    "namespace",
    "workload",
    "selector",
    "services",
    "podCount",
    "heardCount",
    "sinceMs",
    "flows",
    "beyond",
  ]);
  return {
    namespace: server.get("namespace").matching(NAME, "a namespace"),
    workload: server
      .get("workload")
      .matching(/^[a-z]{1,63}\/[a-z0-9][a-z0-9.-]{0,252}$/, "as deployment/NAME"),
    selector: server.get("selector").value === null ? null : selectorOf(server.get("selector")),
    services: server
      .get("services")
      .list(1000)
      .map((each) => {
        const service = each.object();
        return {
          name: service.get("name").matching(NAME, "the name of a Service"),
          ports: service
            .get("ports")
            .list(1000)
            .map((port) => ({
              port: port.object().get("port").port(),
              targetPort: port.object().get("targetPort").port(),
            })),
        };
      }),
    podCount: server.get("podCount").whole(),
    heardCount: server.get("heardCount").whole(),
    sinceMs: server.get("sinceMs").whole(),
    flows: server.get("flows").list(FLOWS_MAX).map(flowOf),
    beyond: beyondOf(server.get("beyond")),
  };
}

/** Of all pods of a workload. */
const FLOWS_MAX = 200_000;
const LABEL = /^[A-Za-z0-9./_-]{0,317}$/;

function selectorOf(at: Field): PodSelector {
  const selector = at.object();
  selector.only(["matchLabels", "matchExpressions"]);
  const labels = selector.get("matchLabels");
  const expressions = selector.get("matchExpressions");
  return {
    ...(labels.value === undefined
      ? {}
      : {
          matchLabels: Object.fromEntries(
            labels
              .object()
              .entries()
              .map(([name, value]) => {
                if (!LABEL.test(name)) throw value.wrong("stands under what is no label");
                return [name, value.matching(LABEL, "a label's value")];
              }),
          ),
        }),
    ...(expressions.value === undefined
      ? {}
      : {
          matchExpressions: expressions.list(100).map((each) => {
            const expression = each.object();
            const values = expression.get("values");
            return {
              key: expression.get("key").matching(LABEL, "a label"),
              operator: expression
                .get("operator")
                .matching(/^(In|NotIn|Exists|DoesNotExist)$/, "an operator"),
              ...(values.value === undefined
                ? {}
                : { values: values.list(100).map((one) => one.matching(LABEL, "a label's value")) }),
            };
          }),
        }),
  };
}

function pageOf(at: Field): FlowPage {
  const page = at.object();
  if (page.get("version").value !== 1) throw page.get("version").wrong("must be 1");
  return {
    version: 1,
    sinceMs: page.get("sinceMs").whole(),
    flows: page.get("flows").list(10_000).map(flowOf),
    beyond: beyondOf(page.get("beyond")),
  };
}

function beyondOf(at: Field): FlowPage["beyond"] {
  const beyond = at.object();
  return {
    count: beyond.get("count").whole(),
    denied: beyond.get("denied").whole(),
    wouldDeny: beyond.get("wouldDeny").whole(),
  };
}

const METHOD = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,310}$/;
const PATH = /^(\/[\x20-\x7e]{0,2000}|\*|)$/;
const IDENTITY = /^[A-Za-z0-9._:/-]{0,2048}$/;
const PRINTABLE = /^[\x20-\x7e]{0,2000}$/;

function flowOf(at: Field): Flow {
  const flow = at.object();
  flow.only([
    "client",
    "port",
    "protocol",
    "method",
    "path",
    "verdict",
    "rule",
    "would",
    "count",
    "firstSeenMs",
    "lastSeenMs",
    "samples",
  ]);
  const client = flow.get("client").object();
  const protocol = flow.get("protocol").oneOf(["opaque", "http", "grpc"]);
  const isOpaque = protocol === "opaque";
  const path = flow.get("path");
  const method = flow.get("method");
  const would = flow.get("would");
  return {
    client: {
      identity: client.get("identity").matching(IDENTITY, "an identity"),
      address: client.get("address").network(),
    },
    port: flow.get("port").port(),
    protocol,
    method: isOpaque
      ? method.oneOf([""])
      : method.value === ANY_METHOD
        ? ANY_METHOD
        : method.matching(METHOD, "a method"),
    path: isOpaque
      ? path.oneOf([""])
      : path.value === ANY_PATH
        ? ANY_PATH
        : path.matching(PATH, "a path in printable ASCII"),
    verdict: flow.get("verdict").oneOf(["allowed", "denied", "no-route", "ambiguous"]),
    rule: flow.get("rule").matching(PRINTABLE, "printable ASCII"),
    would:
      would.value === null
        ? null
        : {
            verdict: would.object().get("verdict").oneOf(["would_deny", "would_allow"]),
            rule: would.object().get("rule").matching(PRINTABLE, "printable ASCII"),
          },
    count: flow.get("count").whole(),
    firstSeenMs: flow.get("firstSeenMs").whole(),
    lastSeenMs: flow.get("lastSeenMs").whole(),
    samples: flow.get("samples").list(100).map(sampleOf),
  };
}

function sampleOf(at: Field): FlowSample {
  const sample = at.object();
  const printable = (name: string): string => sample.get(name).matching(PRINTABLE, "printable ASCII");
  return {
    atMs: sample.get("atMs").whole(),
    address: sample.get("address").network(),
    method: printable("method"),
    path: printable("path"),
    reason: printable("reason"),
  };
}

/** A value of a file, with the place where it stands. */
class Field {
  readonly value: unknown;
  readonly #file: string;
  readonly #path: string;

  constructor(file: string, path: string, value: unknown) {
    this.#file = file;
    this.#path = path;
    this.value = value;
  }

  wrong(what: string): CommandError {
    const { value } = this;
    const shown =
      typeof value === "object" && value !== null ? "" : `, not ${JSON.stringify(value)?.slice(0, 80)}`;
    return new CommandError(`${this.#file}: ${this.#path === "" ? "" : `${this.#path} `}${what}${shown}`, 2);
  }

  object(): FieldMap {
    const { value } = this;
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw this.wrong("must be an object");
    return new FieldMap(this.#file, this.#path, value as Record<string, unknown>);
  }

  list(itemsMax: number): Field[] {
    const { value } = this;
    if (!Array.isArray(value)) throw this.wrong("must be a list");
    if (value.length > itemsMax) throw this.wrong(`must have at most ${itemsMax} entries`);
    return value.map((each: unknown, i) => new Field(this.#file, `${this.#path}[${i}]`, each));
  }

  text(): string {
    if (typeof this.value !== "string") throw this.wrong("must be text");
    return this.value;
  }

  matching(pattern: RegExp, what: string): string {
    if (typeof this.value !== "string" || !pattern.test(this.value)) throw this.wrong(`must be ${what}`);
    return this.value;
  }

  oneOf<T extends string>(values: readonly T[]): T {
    const found = values.find((each) => each === this.value);
    if (found === undefined)
      throw this.wrong(`must be one of ${values.map((each) => `"${each}"`).join(", ")}`);
    return found;
  }

  whole(): number {
    if (typeof this.value !== "number" || !Number.isFinite(this.value) || this.value < 0)
      throw this.wrong("must be a number of 0 or more");
    return Math.floor(this.value);
  }

  port(): number {
    const { value } = this;
    if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > 65_535)
      throw this.wrong("must be a port");
    return value;
  }

  /** An address, or a network. */
  network(): string {
    const { value } = this;
    if (typeof value !== "string" || (parseIp(value) === null && parseNetwork(value) === null))
      throw this.wrong("must be an address or a network");
    return value;
  }
}

class FieldMap extends Field {
  readonly #file: string;
  readonly #path: string;
  readonly #members: Readonly<Record<string, unknown>>;

  constructor(file: string, path: string, members: Readonly<Record<string, unknown>>) {
    super(file, path, members);
    this.#file = file;
    this.#path = path;
    this.#members = members;
  }

  get(name: string): Field {
    const path = this.#path === "" ? name : `${this.#path}.${name}`;
    return new Field(this.#file, path, Object.hasOwn(this.#members, name) ? this.#members[name] : undefined);
  }

  entries(): [name: string, value: Field][] {
    return Object.keys(this.#members).map((name) => [name, this.get(name)]);
  }

  only(names: readonly string[]): void {
    for (const name of Object.keys(this.#members))
      if (!names.includes(name)) throw this.get(name).wrong("is not known here");
  }
}
