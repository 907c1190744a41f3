import type { Interceptor, Support } from "../pod.ts";
import { InterceptionError } from "../errors.ts";

export function createNftInterceptor(_instance: string): Interceptor {
  throw new InterceptionError("UNSUPPORTED", "interception by nftables is not available");
}

export function nftSupport(): Support {
  return { ok: false, reason: "interception by nftables is not available" };
}
