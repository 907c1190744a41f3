/**
 * A control plane in one file for tests of the sidecar alone: the identity service signs by `openssl`, discovery and policy
 * answer what the test has put into a table. Started with a folder of certificates and an address to listen on; takes the
 * whole table as one JSON line on stdin, again after each change. Messages are the real ones over the real RPC server.
 */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Server } from "node:tls";
import { create, fromBinary, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { encodeOutboundPolicy } from "#/control/answers/encode-outbound.ts";
import { RpcServer, type MethodHandler, type Watcher } from "#/control/rpc/server.ts";
import { RpcError } from "#/control/rpc/status.ts";
import {
  GetDestinationSchema,
  UpdateSchema,
  DestinationProfileSchema,
  type WeightedAddrSchema,
} from "#/gen/linkerd/destination_pb.ts";
import { CertifyRequestSchema, CertifyResponseSchema } from "#/gen/linkerd/identity_pb.ts";
import { PortSpecSchema, ServerSchema } from "#/gen/linkerd/inbound_pb.ts";
import { OutboundPolicySchema, TrafficSpecSchema, type BackendSchema } from "#/gen/linkerd/outbound_pb.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import { SystemClock } from "#/net/clock.ts";
import { SILENT } from "#/net/log.ts";
import { GrpcStatus } from "#/wire/grpc.ts";

export interface StubEndpoint {
  readonly ip: string;
  readonly port: number;
  /** Identity name; "" = unmeshed. */
  readonly identity: string;
  readonly tunnelPort: number;
  readonly hint: "http2" | "opaque" | "unknown";
}

/** As an operator may declare a port. */
export type StubProtocol = "detect" | "opaque" | "http2" | "tls";

export interface StubTable {
  /** By `ip:port` of a virtual address: the protocol and the path of its endpoints. */
  readonly services: Readonly<Record<string, { readonly protocol: StubProtocol; readonly path: string }>>;
  /** By `ip:port` of a virtual address: all that policy says of it, in the model's words. Goes before `services`. */
  readonly policies: Readonly<Record<string, OutboundPolicy>>;
  /** By path. */
  readonly endpoints: Readonly<Record<string, readonly StubEndpoint[]>>;
  /** By `ip:port`: an address that is a pod's own. */
  readonly pods: Readonly<Record<string, StubEndpoint>>;
  /** By port: who may connect. "any", "meshed", or one identity. */
  readonly ports: Readonly<Record<string, { readonly protocol: StubProtocol; readonly allow: string }>>;
  readonly certificateSeconds: number;
  /** Tokens that the identity service accepts; a renewal shows a certificate instead. */
  readonly token: string;
}

const [folder = ".", ip = "127.0.0.1", port = "8086"] = process.argv.slice(2);
let table: StubTable = {
  services: {},
  policies: {},
  endpoints: {},
  pods: {},
  ports: {},
  certificateSeconds: 3600,
  token: "",
};
const watchers = new Set<() => void>();
const source = { kind: { case: "default" as const, value: "stub" } };
const ipv4 = (text: string) => ({
  ip: { case: "ipv4" as const, value: text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0) },
});

function weightedAddr(endpoint: StubEndpoint): MessageInitShape<typeof WeightedAddrSchema> {
  const { identity, tunnelPort, hint } = endpoint;
  const protocol =
    hint === "opaque"
      ? { case: "opaque" as const, value: {} }
      : hint === "http2"
        ? { case: "h2" as const, value: {} }
        : { case: undefined };
  return {
    addr: { ip: ipv4(endpoint.ip), port: endpoint.port },
    weight: 10_000,
    ...(identity === ""
      ? {}
      : {
          tlsIdentity: {
            strategy: { case: "dnsLikeIdentity" as const, value: { name: identity } },
            serverName: { name: identity },
          },
        }),
    protocolHint: { protocol, ...(tunnelPort === 0 ? {} : { opaqueTransport: { inboundPort: tunnelPort } }) },
  };
}

/** Sends what `make` gives now and after each change of the table. */
function watched(make: () => Uint8Array, watcher: Watcher): () => void {
  let last: string | null = null;
  const send = (): void => {
    try {
      const bytes = make();
      const text = Buffer.from(bytes).toString("base64");
      if (text !== last) watcher.send(bytes);
      last = text;
    } catch (error) {
      watcher.fail(error as RpcError);
    }
  };
  watchers.add(send);
  send();
  return () => watchers.delete(send);
}

const run = promisify(execFile);
const openssl = (...args: string[]): Promise<unknown> => run("openssl", args, { cwd: folder });
let requests = 1000;

const certify: MethodHandler = {
  isOpen: true,
  unary: async (bytes, call) => {
    const request = fromBinary(CertifyRequestSchema, bytes);
    const token = Buffer.from(request.token).toString();
    if (token !== table.token && (token !== "" || call.caller === null))
      throw new RpcError(GrpcStatus.UNAUTHENTICATED, "the token is not known");
    // Never blocks: discovery has to answer meanwhile.
    const name = `request-${++requests}`;
    writeFileSync(join(folder, `${name}.der`), request.certificateSigningRequest);
    writeFileSync(join(folder, `${name}.ext`), `subjectAltName=critical,DNS:${request.identity}\n`);
    await openssl("req", "-inform", "DER", "-in", `${name}.der`, "-verify", "-noout");
    const root = ["-CA", "root.pem", "-CAkey", "root.key", "-set_serial", String(requests), "-days", "1"];
    await openssl(
      "x509",
      "-req",
      "-inform",
      "DER",
      "-in",
      `${name}.der`,
      ...root,
      "-extfile",
      `${name}.ext`,
      "-outform",
      "DER",
      "-out",
      `${name}.leaf`,
    );
    const leaf = readFileSync(join(folder, `${name}.leaf`));
    process.stdout.write(`certified ${request.identity} ${call.caller === null ? "token" : "certificate"}\n`);
    const seconds = BigInt(Math.floor(Date.now() / 1000) + table.certificateSeconds);
    return toBinary(
      CertifyResponseSchema,
      create(CertifyResponseSchema, { leafCertificate: leaf, validUntil: { seconds } }),
    );
  },
};

const watchOutbound: MethodHandler = {
  isOpen: false,
  watch: (bytes, watcher) => {
    const { target } = fromBinary(TrafficSpecSchema, bytes);
    const address = target.case === "addr" ? target.value : undefined;
    const raw = address?.ip?.ip.case === "ipv4" ? address.ip.ip.value : 0;
    const key = `${[24, 16, 8, 0].map((shift) => (raw >>> shift) & 255).join(".")}:${address?.port ?? 0}`;
    return watched(() => {
      const policy = table.policies[key];
      if (policy !== undefined) return toBinary(OutboundPolicySchema, encodeOutboundPolicy(policy));
      const service = table.services[key];
      const pod = table.pods[key];
      if (service === undefined && pod === undefined)
        throw new RpcError(GrpcStatus.NOT_FOUND, `nothing is known of ${key}`);
      const backend: MessageInitShape<typeof BackendSchema> = {
        metadata: source,
        queue: { capacity: 100 },
        kind:
          service === undefined
            ? { case: "forward", value: weightedAddr(pod as StubEndpoint) }
            : {
                case: "balancer",
                value: { discovery: { kind: { case: "dst", value: { path: service.path } } } },
              },
      };
      const routes = [
        {
          metadata: source,
          rules: [
            { backends: { kind: { case: "firstAvailable" as const, value: { backends: [{ backend }] } } } },
          ],
        },
      ];
      const declared = service?.protocol ?? (pod?.hint === "opaque" ? "opaque" : "detect");
      const protocol =
        declared === "opaque"
          ? { case: "opaque" as const, value: { routes } }
          : declared === "http2"
            ? { case: "http2" as const, value: { routes } }
            : declared === "tls"
              ? { case: "tls" as const, value: { routes } }
              : { case: "detect" as const, value: { opaque: { routes } } };
      return toBinary(
        OutboundPolicySchema,
        create(OutboundPolicySchema, { metadata: source, protocol: { kind: protocol } }),
      );
    }, watcher);
  },
};

const get: MethodHandler = {
  isOpen: false,
  watch: (bytes, watcher) => {
    const { path } = fromBinary(GetDestinationSchema, bytes);
    let known: readonly StubEndpoint[] = [];
    return watched(() => {
      const endpoints = table.endpoints[path];
      if (endpoints === undefined) throw new RpcError(GrpcStatus.NOT_FOUND, `no service ${path}`);
      const gone = known.filter(
        (one) => !endpoints.some((other) => other.ip === one.ip && other.port === one.port),
      );
      known = endpoints;
      if (gone.length > 0)
        watcher.send(
          toBinary(
            UpdateSchema,
            create(UpdateSchema, {
              update: {
                case: "remove",
                value: { addrs: gone.map((one) => ({ ip: ipv4(one.ip), port: one.port })) },
              },
            }),
          ),
        );
      if (endpoints.length === 0)
        return toBinary(
          UpdateSchema,
          create(UpdateSchema, { update: { case: "noEndpoints", value: { exists: true } } }),
        );
      return toBinary(
        UpdateSchema,
        create(UpdateSchema, {
          update: {
            case: "add",
            value: { addrs: endpoints.map(weightedAddr), metricLabels: { service: path } },
          },
        }),
      );
    }, watcher);
  },
};

const getProfile: MethodHandler = {
  isOpen: false,
  watch: (_bytes, watcher) =>
    watched(() => toBinary(DestinationProfileSchema, create(DestinationProfileSchema, {})), watcher),
};

const watchPort: MethodHandler = {
  isOpen: false,
  watch: (bytes, watcher) => {
    const { port: number } = fromBinary(PortSpecSchema, bytes);
    return watched(() => {
      const { protocol, allow } = table.ports[String(number)] ?? { protocol: "detect", allow: "any" };
      const unauthenticated = { case: "unauthenticated" as const, value: {} };
      const meshed =
        allow === "meshed"
          ? unauthenticated
          : { case: "identities" as const, value: { identities: [{ name: allow }] } };
      const permit =
        allow === "any" ? unauthenticated : { case: "meshTLS" as const, value: { clients: meshed } };
      const networks = [{ net: { ip: ipv4("0.0.0.0"), prefixLen: 0 } }];
      const kind =
        protocol === "opaque"
          ? { case: "opaque" as const, value: {} }
          : protocol === "http2"
            ? { case: "http2" as const, value: {} }
            : protocol === "tls"
              ? { case: "tls" as const, value: {} }
              : { case: "detect" as const, value: {} };
      return toBinary(
        ServerSchema,
        create(ServerSchema, {
          protocol: { kind },
          authorizations: [{ networks, authentication: { permit }, labels: { name: allow } }],
          labels: { name: "stub", kind: "default", group: "" },
        }),
      );
    }, watcher);
  },
};

const rpc = new RpcServer({
  clock: new SystemClock(),
  log: SILENT,
  methods: new Map([
    ["/io.linkerd.proxy.identity.Identity/Certify", certify],
    ["/io.linkerd.proxy.outbound.OutboundPolicies/Watch", watchOutbound],
    ["/io.linkerd.proxy.destination.Destination/Get", get],
    ["/io.linkerd.proxy.destination.Destination/GetProfile", getProfile],
    ["/io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort", watchPort],
  ]),
});
const read = (name: string): Buffer => readFileSync(join(folder, name));
const server = new Server({
  key: read("control.key"),
  cert: read("control.pem"),
  ca: [read("root.pem")],
  requestCert: true,
  rejectUnauthorized: false,
  minVersion: "TLSv1.3",
});
server.on("secureConnection", (socket) => {
  const identity = { trustDomain: "cluster.local", namespace: "x", serviceAccount: "x" };
  rpc.serve(socket, {
    caller: socket.authorized ? { identity, form: "dns" } : null,
    isTrusted: false,
    peer: String(socket.remoteAddress),
  });
});
server.on("tlsClientError", () => undefined);
createInterface(process.stdin)
  .on("line", (line) => {
    table = JSON.parse(line) as StubTable;
    for (const changed of watchers) changed();
    process.stdout.write("table\n");
  })
  .on("close", () => process.exit(0));
server.listen({ host: ip, port: Number(port) }, () => process.stdout.write("listening\n"));
