import type { Claims } from "#/model/access.ts";
import type { RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import type { Fault } from "../http/fault.ts";

/**
 * Authorization, as the layer before it sees it that verifies tokens: an `HttpService`, but that what is known of the client beside its
 * connection comes in with the request. `claims` null: nothing is.
 */
export interface ClaimedService {
  call(head: RequestHead, last: boolean, reply: ResponseSink, claims: Claims | null): RequestSink;
  /** `head`: as it came, or as `call` got it. */
  recheck(head: RequestHead, claims: Claims | null): Fault | null;
}
