import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import type { InboundPolicy } from "#/model/policy.ts";
import { SILENT } from "#/net/log.ts";
import type { InboundPort } from "#/stack/discovery.ts";
import { ACCESS_OF_ALL } from "#/stack/access/testing.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import type { PortTokens } from "#/stack/jwt/port-tokens.ts";
import type { TokenVerdict } from "#/stack/jwt/token-verifier.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { WorkloadTokens } from "./tokens.ts";

const ISSUER = "https://login.test";
const SOURCE = {
  group: "pillion.dev",
  kind: "JwtPolicy",
  namespace: "shop",
  name: "users",
  section: "",
  port: 0,
};
const pair = await generateKeyPair("ES256", { extractable: true });
const key = { ...(await exportJWK(pair.publicKey)), kid: "new" };
const SET = JSON.stringify({ keys: [key] });

class Scene {
  readonly clock = new ManualClock();
  asked = 0;
  cancelled = 0;
  answer: ((jwks: string | null) => void) | null = null;
  readonly watched = portWith({
    protocol: "detect",
    labels: {},
    limits: null,
    access: ACCESS_OF_ALL,
    jwt: { source: SOURCE, issuers: [issuerWith('{"keys":[]}')], required: [] },
  });
  readonly tokens = new WorkloadTokens({
    clock: this.clock,
    log: SILENT,
    registry: new Registry(),
    control: {
      refreshKeys: (_port, _issuer, done) => {
        this.asked++;
        this.answer = done;
        return { cancel: () => void this.cancelled++ };
      },
    },
  });

  get policy(): InboundPolicy {
    return this.watched.policy;
  }

  set policy(policy: InboundPolicy) {
    this.watched.policy = policy;
  }

  get port(): PortTokens {
    const of = this.tokens.of(this.watched);
    assert.ok(of !== null);
    return of;
  }

  verify(token: string): Promise<TokenVerdict> {
    return new Promise((resolve) => void this.port.verifier.verify(token, resolve));
  }
}

function portWith(policy: InboundPolicy): { port: number; policy: InboundPolicy } & InboundPort {
  return { port: 80, policy, subscribe: () => ({ cancel: () => undefined }) };
}

function issuerWith(jwks: string): NonNullable<InboundPolicy["jwt"]>["issuers"][number] {
  const rest = { audiences: [], leewayMs: 0, headers: ["authorization"], forwards: false, claimHeaders: [] };
  return { issuer: ISSUER, jwks, ...rest };
}

async function sign(kid: string, sub: string): Promise<string> {
  return await new SignJWT({ iss: ISSUER, sub, exp: 4_102_444_800 })
    .setProtectedHeader({ alg: "ES256", kid })
    .sign(pair.privateKey);
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await turn();
}

test("an unknown key has the control plane asked once in 30 seconds; all who come meanwhile wait for the answer", async () => {
  const scene = new Scene();
  const waiting = [scene.verify(await sign("new", "a")), scene.verify(await sign("new", "b"))];
  await until(() => scene.answer !== null);
  for (let i = 0; i < 20; i++) await turn();
  scene.answer?.(SET);
  assert.deepEqual(
    (await Promise.all(waiting)).map(({ kind }) => kind),
    ["verified", "verified"],
  );
  assert.equal((await scene.verify(await sign("other", "a"))).kind, "refused");
  assert.equal(scene.asked, 1);
  scene.clock.advance(30_000);
  const later = scene.verify(await sign("other", "b"));
  await until(() => scene.asked === 2);
  scene.answer?.(null);
  assert.equal((await later).kind, "refused");
});

test("a control plane that does not answer holds nobody for long", async () => {
  const scene = new Scene();
  const verdict = scene.verify(await sign("new", "a"));
  await until(() => scene.asked === 1);
  scene.clock.advance(4_000);
  assert.deepEqual([(await verdict).kind, scene.cancelled], ["refused", 1]);
});

test("an older answer does not replace the keys of a newer policy", async () => {
  const scene = new Scene();
  const first = scene.verify(await sign("none", "a"));
  await until(() => scene.asked === 1);
  scene.answer?.('{"keys":[]}');
  await first;
  scene.policy = { ...scene.policy, jwt: { source: SOURCE, issuers: [issuerWith(SET)], required: [] } };
  assert.equal((await scene.verify(await sign("unknown", "a"))).kind, "refused");
  assert.equal((await scene.verify(await sign("new", "a"))).kind, "verified");
});

test("a change elsewhere in the port's policy forgets no token", async () => {
  const scene = new Scene();
  scene.policy = { ...scene.policy, jwt: { source: SOURCE, issuers: [issuerWith(SET)], required: [] } };
  const token = await sign("new", "a");
  await scene.verify(token);
  scene.policy = { ...scene.policy, labels: { name: "other" }, jwt: { ...scene.policy.jwt! } };
  assert.notEqual(scene.port.verifier.known(token), null);
  scene.policy = { ...scene.policy, jwt: { ...scene.policy.jwt!, required: null } };
  assert.equal(scene.port.verifier.known(token), null);
  scene.policy = { ...scene.policy, jwt: null };
  assert.throws(() => scene.port);
});

test("attack: of a port that is watched no more nothing is kept, so a walk over all ports costs no memory", async () => {
  const scene = new Scene();
  scene.policy = { ...scene.policy, jwt: { source: SOURCE, issuers: [issuerWith(SET)], required: [] } };
  const token = await sign("new", "a");
  await scene.verify(token);
  assert.notEqual(scene.port.verifier.known(token), null);
  const again = scene.tokens.of(portWith(scene.policy));
  assert.equal(again?.verifier.known(token), null);
});
