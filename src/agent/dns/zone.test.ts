import assert from "node:assert/strict";
import { test } from "node:test";
import type { IpAddress } from "#/base/address.ts";
import type { ServicePlan } from "#/model/pod-plan.ts";
import { decodeDns, DnsCode, DnsType, encodeDns, type DnsMessage } from "#/wire/dns.ts";
import { answerQuery } from "./answer.ts";
import { Zone } from "./zone.ts";

const service = (changes: Partial<ServicePlan>): ServicePlan => ({
  name: "web",
  namespace: "shop",
  clusterIp: "10.202.0.7",
  externalName: null,
  publishNotReady: false,
  sessionAffinityClientIp: false,
  ports: [{ name: "http", port: 80, protocol: "TCP" }],
  endpoints: [],
  ...changes,
});

const endpoint = (ip: string, hostname: string | null, ready: boolean): ServicePlan["endpoints"][number] => ({
  podUid: ip,
  ip,
  hostname,
  ready,
  targetPorts: [8080],
});

const zone = new Zone({
  clusterDomain: "cluster.local",
  podCidr: "10.201.0.0/16",
  serviceCidr: "10.202.0.0/16",
  services: [
    service({}),
    service({
      name: "db",
      clusterIp: null,
      endpoints: [
        endpoint("10.201.0.5", "db-0", true),
        endpoint("10.201.0.6", "db-1", false),
        endpoint("10.201.0.8", null, true),
      ],
    }),
    service({
      name: "eager",
      clusterIp: null,
      publishNotReady: true,
      endpoints: [endpoint("10.201.0.9", "e-0", false)],
    }),
    service({ name: "away", clusterIp: null, externalName: "example.com" }),
    service({ name: "alias", clusterIp: null, externalName: "web.shop.svc.cluster.local" }),
  ],
  pods: [{ namespace: "shop", ip: "10.201.0.5" }],
  explicitPods: [],
});

function ask(
  name: string,
  type: keyof typeof DnsType,
  changes: Partial<DnsMessage> = {},
): DnsMessage | "forward" | "silence" {
  const query: DnsMessage = {
    id: 7,
    isResponse: false,
    opcode: 0,
    isAuthoritative: false,
    isTruncated: false,
    recursionDesired: true,
    recursionAvailable: false,
    code: 0,
    questions: [{ name, type: DnsType[type], class: 1 }],
    answers: [],
    authorities: [],
    additionals: [],
    edns: null,
    ...changes,
  };
  const reply = answerQuery(zone, encodeDns(query, 512));
  if (reply.kind !== "message") return reply.kind;
  const read = decodeDns(encodeDns(reply.message, reply.udpBytesMax));
  assert.equal(read.kind, "message");
  return (read as Extract<typeof read, { kind: "message" }>).message;
}

/** Answers as short text. */
function says(name: string, type: keyof typeof DnsType): string {
  const message = ask(name, type);
  if (typeof message === "string") return message;
  if (message.code === DnsCode.NXDOMAIN) return `NXDOMAIN ${message.authorities[0]?.data.kind}`;
  if (message.answers.length === 0) return `none ${message.authorities[0]?.data.kind}`;
  return message.answers
    .map(({ data }) => {
      if (data.kind === "A") return data.address;
      if (data.kind === "SRV") return `${data.target}:${data.port}`;
      return "target" in data ? `${data.kind} ${data.target}` : data.kind;
    })
    .join(" ");
}

test("a Service is its virtual IP, in any case of letters", () => {
  assert.equal(says("web.shop.svc.cluster.local", "A"), "10.202.0.7");
  assert.equal(says("WEB.Shop.svc.cluster.LOCAL", "A"), "10.202.0.7");
  assert.equal(says("7.0.202.10.in-addr.arpa", "PTR"), "PTR web.shop.svc.cluster.local");
});

test("a headless Service is its ready pods, each with its name", () => {
  assert.equal(says("db.shop.svc.cluster.local", "A"), "10.201.0.5 10.201.0.8");
  assert.equal(says("db-0.db.shop.svc.cluster.local", "A"), "10.201.0.5");
  assert.equal(says("db-1.db.shop.svc.cluster.local", "A"), "NXDOMAIN SOA");
  assert.equal(says("10-201-0-8.db.shop.svc.cluster.local", "A"), "10.201.0.8");
  assert.equal(says("e-0.eager.shop.svc.cluster.local", "A"), "10.201.0.9");
  assert.equal(says("5.0.201.10.in-addr.arpa", "PTR"), "PTR db-0.db.shop.svc.cluster.local");
});

test("SRV gives a named port's number and targets, with their addresses (RFC 2782)", () => {
  assert.equal(says("_http._tcp.web.shop.svc.cluster.local", "SRV"), "web.shop.svc.cluster.local:80");
  assert.equal(
    says("_http._tcp.db.shop.svc.cluster.local", "SRV"),
    "db-0.db.shop.svc.cluster.local:8080 10-201-0-8.db.shop.svc.cluster.local:8080",
  );
  assert.equal(says("_http._udp.web.shop.svc.cluster.local", "SRV"), "NXDOMAIN SOA");
  const message = ask("_http._tcp.db.shop.svc.cluster.local", "SRV") as DnsMessage;
  assert.deepEqual(
    message.additionals.map((each) => (each.data.kind === "A" ? each.data.address : "")),
    ["10.201.0.5", "10.201.0.8"] as IpAddress[],
  );
});

test("ExternalName is an alias, followed as far as the zone goes", () => {
  assert.equal(says("away.shop.svc.cluster.local", "A"), "CNAME example.com");
  assert.equal(says("alias.shop.svc.cluster.local", "A"), "CNAME web.shop.svc.cluster.local 10.202.0.7");
});

test("what is not there is NXDOMAIN, what has no such type is empty, both with SOA (RFC 2308 §2)", () => {
  assert.equal(says("nothing.shop.svc.cluster.local", "A"), "NXDOMAIN SOA");
  assert.equal(says("web.shop.svc.cluster.local", "AAAA"), "none SOA");
  assert.equal(says("99.0.202.10.in-addr.arpa", "PTR"), "NXDOMAIN SOA");
  assert.equal(says("web", "TXT"), "NXDOMAIN SOA");
});

test("a name between others exists (RFC 8020 §2)", () => {
  assert.equal(says("shop.svc.cluster.local", "A"), "none SOA");
  assert.equal(says("_tcp.web.shop.svc.cluster.local", "SRV"), "none SOA");
});

test("pods have names by address, other domains are forwarded", () => {
  assert.equal(says("10-201-0-5.shop.pod.cluster.local", "A"), "10.201.0.5");
  assert.equal(says("example.com", "A"), "forward");
  assert.equal(says("1.0.168.192.in-addr.arpa", "PTR"), "forward");
  assert.equal(says("xcluster.local", "A"), "forward");
});

test("the question comes back as it was spelt, EDNS with our size, other opcodes and versions refused (RFC 6891 §6.1.3)", () => {
  const message = ask("WeB.shop.svc.cluster.local", "A", {
    edns: { payloadBytes: 4096, version: 0, dnssecOk: false },
  }) as DnsMessage;
  assert.equal(message.questions[0]?.name, "WeB.shop.svc.cluster.local");
  assert.equal(message.answers[0]?.name, "WeB.shop.svc.cluster.local");
  assert.equal(message.edns?.payloadBytes, 1232);
  assert.equal((ask("web.shop.svc.cluster.local", "A", { opcode: 5 }) as DnsMessage).code, DnsCode.NOTIMP);
  assert.equal(
    (
      ask("web.shop.svc.cluster.local", "A", {
        edns: { payloadBytes: 512, version: 1, dnssecOk: false },
      }) as DnsMessage
    ).code,
    DnsCode.BADVERS,
  );
  assert.equal(ask("web.shop.svc.cluster.local", "A", { isResponse: true }), "silence");
});

test("noise is answered with FORMERR or not at all", () => {
  assert.equal(answerQuery(zone, new Uint8Array(1)).kind, "silence");
  const reply = answerQuery(zone, new Uint8Array([1, 2, 3]));
  assert.equal(reply.kind === "message" && reply.message.code, DnsCode.FORMERR);
});
