import type { Claims } from "#/model/access.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import type { Fault } from "../http/fault.ts";

/**
 * Authorization, as a layer before it sees it that verifies tokens: what is known of the client beside its connection comes in with the
 * request. `call` and `recheck` are the same without claims.
 */
export interface ClaimedService extends HttpService {
  callWith(head: RequestHead, last: boolean, reply: ResponseSink, claims: Claims | null): RequestSink;
  /** `head`: as in `recheck`, or as `callWith` got it. */
  recheckWith(head: RequestHead, claims: Claims | null): Fault | null;
}
