import {
  decodeDns,
  DNS_CLASS_IN,
  DNS_UDP_BYTES_MAX,
  DnsCode,
  DnsType,
  type DnsMessage,
  type DnsRecord,
} from "#/wire/dns.ts";
import { typeOf, type Zone } from "./zone.ts";

export type Reply =
  /** `udpBytesMax`: what the asker can take in one datagram (RFC 6891 §6.2.3), bounded by what we send. */
  | { readonly kind: "message"; readonly message: DnsMessage; readonly udpBytesMax: number }
  /** A name outside the cluster: the query goes on as it came. */
  | { readonly kind: "forward"; readonly message: DnsMessage }
  /** No question at all (a stray answer, noise): nothing is said. */
  | { readonly kind: "silence" };

/** What we can take over UDP ourselves; below the size where fragments begin (RFC 9715). */
export const OUR_PAYLOAD_BYTES = 1232;
/** Steps along CNAMEs inside the zone. */
const ALIASES_MAX = 8;

/** Answers one query from the zone, or says that it is for somebody else. Pure. */
export function answerQuery(zone: Zone, bytes: Uint8Array): Reply {
  const result = decodeDns(bytes);
  if (result.kind === "error") {
    return result.id === null
      ? { kind: "silence" }
      : { kind: "message", message: refusal(result.id, DnsCode.FORMERR), udpBytesMax: DNS_UDP_BYTES_MAX };
  }
  const query = result.message;
  if (query.isResponse) return { kind: "silence" };
  if (query.opcode !== 0) return reply(query, { code: DnsCode.NOTIMP });
  // RFC 6891 §6.1.3: a version of EDNS that we do not speak.
  if (query.edns !== null && query.edns.version !== 0) return reply(query, { code: DnsCode.BADVERS });
  const question = query.questions[0];
  if (question === undefined || query.questions.length !== 1) return reply(query, { code: DnsCode.FORMERR });
  if (question.class !== DNS_CLASS_IN) return reply(query, { code: DnsCode.REFUSED });
  const answer = zone.lookup(question.name, question.type);
  switch (answer.kind) {
    case "forward":
      return { kind: "forward", message: query };
    case "no-name":
      return reply(query, { code: DnsCode.NXDOMAIN, authorities: [zone.startOfAuthority()] });
    case "no-data":
      return reply(query, { authorities: [zone.startOfAuthority()] });
    case "records": {
      // The asker's own spelling comes back: some resolvers use its case as a nonce.
      const records = answer.records.map((record) => ({ ...record, name: question.name }));
      const answers = question.type === DnsType.CNAME ? records : followAliases(zone, records, question.type);
      return reply(query, { answers, additionals: targetsOf(zone, answers) });
    }
  }
}

/** The answer that only carries a code, for a query that could not be served. */
export function failure(query: DnsMessage, code: number): DnsMessage {
  return respond(query, { code });
}

/** RFC 1034 §3.6.2: an alias's target, as far as the zone knows it. */
function followAliases(zone: Zone, records: readonly DnsRecord[], type: number): DnsRecord[] {
  const out = [...records];
  for (
    let step = 0, last = out.at(-1);
    step < ALIASES_MAX && last?.data.kind === "CNAME";
    step++, last = out.at(-1)
  ) {
    const next = zone.lookup(last.data.target, type);
    if (next.kind !== "records") break;
    out.push(...next.records);
  }
  return out;
}

/** RFC 2782: addresses of SRV targets save the asker a question. */
function targetsOf(zone: Zone, answers: readonly DnsRecord[]): DnsRecord[] {
  const targets = new Set(
    answers.flatMap((record) => (record.data.kind === "SRV" ? [record.data.target] : [])),
  );
  return [...targets].flatMap((name) => {
    const found = zone.lookup(name, DnsType.ANY);
    return found.kind === "records"
      ? found.records.filter((each) => typeOf(each.data) === DnsType.A || typeOf(each.data) === DnsType.AAAA)
      : [];
  });
}

function reply(query: DnsMessage, changes: Partial<DnsMessage>): Reply {
  const udpBytesMax = Math.min(OUR_PAYLOAD_BYTES, query.edns?.payloadBytes ?? DNS_UDP_BYTES_MAX);
  return { kind: "message", message: respond(query, changes), udpBytesMax };
}

function respond(query: DnsMessage, changes: Partial<DnsMessage>): DnsMessage {
  return {
    ...refusal(query.id, DnsCode.NOERROR),
    opcode: query.opcode,
    isAuthoritative: true,
    recursionDesired: query.recursionDesired,
    questions: query.questions.slice(0, 1),
    edns:
      query.edns === null
        ? null
        : { payloadBytes: OUR_PAYLOAD_BYTES, version: 0, dnssecOk: query.edns.dnssecOk },
    ...changes,
  };
}

function refusal(id: number, code: number): DnsMessage {
  return {
    id,
    isResponse: true,
    opcode: 0,
    isAuthoritative: false,
    isTruncated: false,
    recursionDesired: false,
    recursionAvailable: true,
    code,
    questions: [],
    answers: [],
    authorities: [],
    additionals: [],
    edns: null,
  };
}
