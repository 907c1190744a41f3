import type { Clock } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { ClaimedService } from "../access/claimed-service.ts";
import type { AccessClient } from "../access/client.ts";
import { accessRulesOf } from "../access/decide.ts";
import type { InboundContext, InboundPort } from "../discovery.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import { SPENT } from "../http/exchange.ts";
import type { Fault } from "../http/fault.ts";
import { fault } from "../http/fault.ts";
import { PendingRequest } from "../http/pending-request.ts";
import { Request } from "../http/translate.ts";
import type { ClaimFields } from "./claim-fields.ts";
import { findToken } from "./find-token.ts";
import type { PortTokens } from "./port-tokens.ts";
import type { TokenRefusal, TokenVerdict, VerifiedToken } from "./token-verifier.ts";

export interface TokenLayerParts {
  readonly clock: Clock;
  /** By the port's policy of this moment; null where it says nothing of tokens. */
  readonly tokensOf: (port: InboundPort) => PortTokens | null;
  readonly refused: (port: InboundPort, reason: TokenRefusal) => void;
}

/** How long a request may wait for its token: keys are at hand, so only the first has more to wait for than one signature. */
const WAIT_MS = 5_000;

/**
 * Verifies the token of each request where the port's policy asks for it, before anybody asks who may. A token that is not good is refused,
 * whether or not one is needed; what the mesh says of tokens cannot be said by a client.
 */
export class TokenLayer implements HttpService {
  readonly #inner: ClaimedService;
  readonly #context: InboundContext;
  readonly #parts: TokenLayerParts;
  #policy: InboundPolicy | null = null;
  #tokens: PortTokens | null = null;
  /** Whether this client's requests need one. */
  #needs: AccessClient | null = null;

  constructor(inner: ClaimedService, context: InboundContext, parts: TokenLayerParts) {
    this.#inner = inner;
    this.#context = context;
    this.#parts = parts;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    if (this.#context.port.policy !== this.#policy) this.#adopt();
    const tokens = this.#tokens;
    if (tokens === null || this.#needs === null) return this.#inner.call(head, last, reply);
    return this.#look(tokens, this.#needs, head, last, reply);
  }

  /** By the claims that let it in. Keys may have changed since: a token that is no longer at hand is asked for with the next request. */
  recheck(head: RequestHead): Fault | null {
    if (this.#context.port.policy !== this.#policy) this.#adopt();
    const tokens = this.#tokens;
    if (tokens === null) return this.#inner.recheckWith(head, null);
    const found = findToken(head.fields, tokens.headers);
    if (found.kind !== "token") return this.#inner.recheckWith(head, null);
    const known = tokens.verifier.known(found.token);
    return known === null ? null : this.#inner.recheckWith(head, known.claims);
  }

  #adopt(): void {
    const { port, client, peer } = this.#context;
    this.#policy = port.policy;
    const tokens = this.#parts.tokensOf(port);
    this.#tokens = tokens;
    this.#needs = tokens === null ? null : accessRulesOf(tokens.needs).clientOf(client.ip, peer);
  }

  #look(
    tokens: PortTokens,
    needs: AccessClient,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    const need = needs.decide(head, null);
    // What the pod says to itself is nobody's business.
    if (need.by.name === "localhost") return this.#inner.callWith(head, last, reply, null);
    if (need.verdict === "ambiguous") {
      reply.fail(fault("AMBIGUOUS_PATH", need.reason, { rule: ruleOf(tokens.policy.source) }));
      return SPENT;
    }
    const request = needs.path === head.path ? head : new Request({ ...head, path: needs.path });
    const found = findToken(request.fields, tokens.headers);
    if (found.kind === "problem")
      return this.#refuse(tokens, "malformed", `the token is refused: ${found.problem}`, reply);
    if (found.kind === "none") {
      if (need.verdict === "allowed") return this.#pass(tokens, null, null, request, last, reply);
      this.#parts.refused(this.#context.port, "missing");
      const why = `the request carries no token, and needs one of ${issuersOf(tokens)}`;
      reply.fail({
        ...fault("TOKEN_MISSING", why, { rule: ruleOf(tokens.policy.source) }),
        // RFC 6750 §3.1: who has sent no token is told of no error.
        answerFields: ["www-authenticate", `Bearer realm="${REALM}"`],
      });
      return SPENT;
    }
    const known = tokens.verifier.known(found.token);
    if (known !== null) return this.#take(tokens, known, found.header, request, last, reply);
    return this.#wait(tokens, found.token, found.header, request, last, reply);
  }

  /** The body that comes meanwhile is kept, and bounded by the client's window. */
  #wait(
    tokens: PortTokens,
    token: string,
    header: string,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    const pending = new PendingRequest(reply);
    const check = tokens.verifier.verify(token, (verdict) =>
      pending.proceed((answer) => this.#judge(tokens, verdict, header, head, last, answer)),
    );
    const timer = this.#parts.clock.after(WAIT_MS, () =>
      pending.fail(fault("OVERLOADED", `the token could not be verified in ${WAIT_MS} ms`, { safe: true })),
    );
    pending.onLeft = () => {
      timer.cancel();
      check.cancel();
    };
    return pending;
  }

  #judge(
    tokens: PortTokens,
    verdict: TokenVerdict,
    header: string,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    if (verdict.kind === "verified") return this.#take(tokens, verdict.token, header, head, last, reply);
    if (verdict.kind === "refused") return this.#refuse(tokens, verdict.reason, verdict.detail, reply);
    reply.fail(
      fault("OVERLOADED", "as many new tokens are being verified as may be at once", { safe: true }),
    );
    return SPENT;
  }

  #take(
    tokens: PortTokens,
    token: VerifiedToken,
    header: string,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    if (!token.issuer.headers.includes(header))
      return this.#refuse(
        tokens,
        "header",
        `the token is refused: those of ${token.issuer.issuer} are not taken from ${header}`,
        reply,
      );
    return this.#pass(tokens, token, header, head, last, reply);
  }

  #pass(
    { claimFields }: PortTokens,
    token: VerifiedToken | null,
    header: string | null,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    const fields = claimFields.passedOn(head.fields, token, header);
    const request = fields === head.fields ? head : new Request({ ...head, fields });
    const sink = this.#inner.callWith(request, last, reply, token?.claims ?? null);
    return last || claimFields.isEmpty ? sink : new GuardedTrailers(sink, claimFields);
  }

  /** RFC 6750 §3.1. */
  #refuse(tokens: PortTokens, reason: TokenRefusal, detail: string, reply: ResponseSink): RequestSink {
    this.#parts.refused(this.#context.port, reason);
    const said = `error="invalid_token", error_description="${DESCRIPTIONS[reason]}"`;
    reply.fail({
      ...fault("TOKEN_INVALID", detail, { rule: ruleOf(tokens.policy.source) }),
      answerFields: ["www-authenticate", `Bearer realm="${REALM}", ${said}`],
    });
    return SPENT;
  }
}

const REALM = "mesh";

/** What the client's library is told; the answer's line says more. RFC 6750 §3: printable ASCII without `"` and `\`. */
const DESCRIPTIONS: Readonly<Record<TokenRefusal, string>> = {
  missing: "a token is needed",
  malformed: "it is not one signed JSON Web Token",
  issuer: "it is of no issuer that is known here",
  algorithm: "its algorithm is not taken",
  key: "its key is not one of the issuer's",
  signature: "its signature does not hold",
  audience: "it is for another audience",
  expired: "it has expired",
  not_yet: "it does not hold yet",
  claims: "its claims are not complete",
  header: "it is not taken from this header",
};

function issuersOf({ policy }: PortTokens): string {
  return policy.issuers.map(({ issuer }) => issuer).join(" or ");
}

/** The body as it is; of the trailers only what a client may say. */
class GuardedTrailers implements RequestSink {
  readonly #sink: RequestSink;
  readonly #claimFields: ClaimFields;

  constructor(sink: RequestSink, claimFields: ClaimFields) {
    this.#sink = sink;
    this.#claimFields = claimFields;
  }

  data(bytes: Uint8Array, start: number, stop: number): void {
    this.#sink.data(bytes, start, stop);
  }

  end(trailers: Fields | null): void {
    this.#sink.end(this.#claimFields.trailers(trailers));
  }

  abort(cause: Parameters<RequestSink["abort"]>[0]): void {
    this.#sink.abort(cause);
  }

  responseConsumed(bytes: number): void {
    this.#sink.responseConsumed(bytes);
  }
}
