import type { RequestHead } from "../http/exchange.ts";
import { isExtendedConnect } from "../http/websocket-upgrade.ts";

/** What opens a WebSocket over HTTP/2 is a GET to an application of HTTP/1 (RFC 8441 §5), so it is one to rules. */
export function judged(head: RequestHead): RequestHead {
  return isExtendedConnect(head) && head.upgrade?.toLowerCase() === "websocket"
    ? { ...head, method: "GET" }
    : head;
}
