import { describeError } from "#/base/errors.ts";
import type { Clock } from "#/base/clock.ts";
import type { JwtPolicy } from "#/model/access.ts";
import type { Log } from "#/net/log.ts";
import type { InboundPort } from "#/stack/discovery.ts";
import { asksForTokens, needsOf, PortTokens } from "#/stack/jwt/port-tokens.ts";
import { RememberedTokens } from "#/stack/jwt/remembered-tokens.ts";
import type { TokenCheck, TokenRefusal } from "#/stack/jwt/token-verifier.ts";
import type { ControlApi } from "../control/control-api.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";

export interface WorkloadTokensParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: Registry;
  readonly control: Pick<ControlApi, "refreshKeys">;
}

/** Because of keys that are not known the control plane is asked at most so often for each issuer: anybody can name such keys. */
const REFRESH_MS = 30_000;
const REFRESHES_MAX = 1_024;
/** Less than a request waits for its token. */
const REFRESH_WAIT_MS = 4_000;
const NO_KEYS: Promise<null> = Promise.resolve(null);

interface Refresh {
  readonly atMs: number;
  /** Null once it was answered. */
  asking: Promise<string | null> | null;
}

interface Kept {
  /** `InboundPolicy.jwt`, as text: a change elsewhere in the port's policy is none of it. */
  readonly text: string;
  readonly check: RememberedTokens;
  /** Of the last policy that was asked about. */
  policy: InboundPort["policy"];
  tokens: PortTokens;
}

/** Whose tokens each port of the workload takes. The library that verifies them is loaded when the first policy asks for it. */
export class WorkloadTokens {
  readonly #parts: WorkloadTokensParts;
  /** Of ports that are watched; those without a policy on tokens have none. */
  readonly #ports = new WeakMap<InboundPort, Kept>();
  /** By port and issuer, the last time. */
  readonly #refreshes = new Map<string, Refresh>();

  constructor(parts: WorkloadTokensParts) {
    this.#parts = parts;
  }

  /** Null where the port's policy of this moment says nothing of tokens. */
  readonly of = (port: InboundPort): PortTokens | null => {
    const { policy } = port;
    if (!asksForTokens(policy)) {
      if (this.#ports.delete(port)) this.#refreshes.clear();
      return null;
    }
    const before = this.#ports.get(port);
    if (before?.policy === policy) return before.tokens;
    const text = JSON.stringify(policy.jwt);
    const check =
      before?.text === text
        ? before.check
        : new RememberedTokens(this.#checkOf(port.port, policy.jwt), this.#parts.clock);
    const tokens = new PortTokens(policy.jwt, needsOf(policy), check);
    this.#ports.set(port, { text, check, policy, tokens });
    return tokens;
  };

  readonly refused = ({ port }: InboundPort, reason: TokenRefusal): void =>
    this.#parts.registry.count(FAMILIES.inboundTokenRefusals, { target_port: String(port), reason });

  /** Null: no other keys can be had now. Whoever comes while it is asked waits for the same answer. */
  #refresh(port: number, issuer: string): Promise<string | null> {
    const { clock, control } = this.#parts;
    const key = `${port} ${issuer}`;
    const last = this.#refreshes.get(key);
    const nowMs = clock.nowMs();
    if (last !== undefined && nowMs - last.atMs < REFRESH_MS) return last.asking ?? NO_KEYS;
    const refresh: Refresh = { atMs: nowMs, asking: null };
    refresh.asking = new Promise((resolve) => {
      const answered = (jwks: string | null): void => {
        timer.cancel();
        // What was answered once may be older than the next policy.
        refresh.asking = null;
        resolve(jwks);
      };
      const timer = clock.after(REFRESH_WAIT_MS, () => {
        call.cancel();
        answered(null);
      });
      const call = control.refreshKeys(port, issuer, answered);
    });
    // As many as the port's issuers, but for those of policies that are gone.
    if (this.#refreshes.size >= REFRESHES_MAX) this.#refreshes.clear();
    this.#refreshes.set(key, refresh);
    return refresh.asking;
  }

  #checkOf(port: number, policy: JwtPolicy): TokenCheck {
    const { clock, log } = this.#parts;
    const loaded = import("#/net/jwt-verifier.ts").then(({ tokenCheck }) =>
      tokenCheck(
        policy,
        () => clock.wallMs(),
        async (issuer) => await this.#refresh(port, issuer),
      ),
    );
    loaded.catch((error: unknown) =>
      log.error("tokens cannot be verified, so none is taken", { error: describeError(error) }),
    );
    return async (token) => {
      try {
        return await (
          await loaded
        )(token);
      } catch {
        return {
          kind: "refused",
          reason: "malformed",
          detail: "this sidecar cannot verify tokens; see its log",
        };
      }
    };
  }
}
