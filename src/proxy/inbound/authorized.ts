import type { AccessDecision, Claims } from "#/model/access.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { ClaimedService } from "#/stack/access/claimed-service.ts";
import type { AccessClient } from "#/stack/access/client.ts";
import { accessRulesOf } from "#/stack/access/decide.ts";
import { judged } from "#/stack/access/judged.ts";
import type { InboundContext, InboundPort } from "#/stack/discovery.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "#/stack/http/exchange.ts";
import { SPENT } from "#/stack/http/exchange.ts";
import type { Fault } from "#/stack/http/fault.ts";
import { fault } from "#/stack/http/fault.ts";
import { Request } from "#/stack/http/translate.ts";
import type { PortLimits } from "#/stack/limits/port-limits.ts";
import { namedRule, type AccessRecord, type Tally } from "./access-record.ts";

/**
 * Asks the port's policy for each request of one connection, so that a change holds for open connections too; then its limits.
 * What is allowed goes on by the path that was decided upon.
 */
export class Authorized implements ClaimedService {
  readonly #inner: HttpService;
  readonly #context: InboundContext;
  readonly #record: AccessRecord;
  readonly #limitsOf: (port: InboundPort) => PortLimits | null;
  /** What the next three were made by. */
  #policy: InboundPolicy | null = null;
  #client: AccessClient;
  /** Null where the policy has none. */
  #limits: PortLimits | null = null;
  /** By `AccessClient.outcome`: counters of each outcome on this connection. Let go at its end, and where the policy changes. */
  #tallies: (Tally | undefined)[] = [];

  constructor(
    inner: HttpService,
    context: InboundContext,
    record: AccessRecord,
    limitsOf: (port: InboundPort) => PortLimits | null,
  ) {
    this.#inner = inner;
    this.#context = context;
    this.#record = record;
    this.#limitsOf = limitsOf;
    this.#client = this.#adopt();
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink, claims: Claims | null): RequestSink {
    const { port, peer } = this.#context;
    const client = port.policy === this.#policy ? this.#client : this.#adopt();
    const asked = judged(head);
    const decision = client.decide(asked, claims);
    this.#count(decision, asked);
    if ((head.trace ?? null) !== null) this.#trace(head, decision);
    if (decision.verdict === "allowed") {
      const { path } = client;
      const passed = path === head.path ? head : new Request({ ...head, path });
      if (this.#limits === null) return this.#inner.call(passed, last, reply);
      return this.#limits.call(this.#inner, peer?.name ?? null, passed, last, reply);
    }
    reply.fail(refusalOf(decision, port));
    return SPENT;
  }

  recheck(head: RequestHead, claims: Claims | null): Fault | null {
    const { port } = this.#context;
    const client = port.policy === this.#policy ? this.#client : this.#adopt();
    const asked = judged(head);
    const decision = client.decide(asked, claims);
    if (decision.verdict === "allowed") return null;
    this.#count(decision, asked);
    const cause = refusalOf(decision, port);
    return { ...cause, message: `${cause.message} (the policy changed)` };
  }

  /** The connection is over. */
  release(): void {
    for (const tally of this.#tallies) tally?.release();
    this.#tallies = [];
  }

  #adopt(): AccessClient {
    const { port, client, peer } = this.#context;
    this.release();
    this.#policy = port.policy;
    this.#limits = this.#limitsOf(port);
    this.#client = accessRulesOf(port.policy.access).clientOf(client.ip, peer);
    return this.#client;
  }

  #count(decision: AccessDecision, head: RequestHead): void {
    const { outcome } = this.#client;
    let tally = this.#tallies[outcome];
    if (tally === undefined) {
      tally = this.#record.tallyOf(this.#context, decision, "http");
      if (outcome !== -1) this.#keep(outcome, tally);
    }
    tally.count();
    if (outcome === -1) tally.release();
    const { observer } = this.#record;
    if (observer === null) return;
    const { port, client, peer } = this.#context;
    observer.decided(decision, port.port, client, peer, head);
  }

  #keep(outcome: number, tally: Tally): void {
    while (this.#tallies.length < outcome) this.#tallies.push(undefined);
    this.#tallies[outcome] = tally;
  }

  #trace({ trace }: RequestHead, { verdict, by, would }: AccessDecision): void {
    const { port } = this.#context;
    trace?.add("authorization", [
      ["allowed", verdict === "allowed"],
      ["by", namedRule(by, port)],
      ...(would === null
        ? []
        : [
            [
              would.verdict === "would_deny" ? "would-deny" : "would-allow",
              namedRule(would.by, port),
            ] as const,
          ]),
    ]);
    for (const { source, requests, windowMs, scope } of port.policy.limits?.rates ?? [])
      trace?.add("limit", [
        ["policy", `${ruleOf(source)} ${source.section}`.trim()],
        ["requests", requests],
        ["window", windowMs],
        ["scope", scope],
      ]);
    const concurrency = port.policy.limits?.concurrency ?? null;
    if (concurrency !== null) trace?.add("concurrency", [["policy", ruleOf(concurrency.source)]]);
  }
}

function refusalOf({ verdict, by, reason }: AccessDecision, port: InboundPort): Fault {
  const code =
    verdict === "ambiguous" ? "AMBIGUOUS_PATH" : verdict === "no-route" ? "NO_ROUTE" : "NOT_AUTHORIZED";
  return fault(code, reason, { rule: namedRule(by, port) });
}
