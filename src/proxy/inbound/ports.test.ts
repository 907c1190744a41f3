import assert from "node:assert/strict";
import { test } from "node:test";
import type { AccessPolicy } from "#/model/access.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import { accessOf, ACCESS_OF_ALL, ruleOfAction, subjectOf } from "#/stack/access/testing.ts";
import { decideAccess } from "#/stack/access/decide.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import type { ControlApi } from "../control/control-api.ts";
import { Ports } from "./ports.ts";

const ANSWER_MS = 500;
const OPEN = policyOf(ACCESS_OF_ALL);
const GUARDED = policyOf(accessOf([ruleOfAction("restrict", "web"), ruleOfAction("default", "all")]));

function policyOf(access: AccessPolicy): InboundPolicy {
  return { protocol: "detect", labels: {}, limits: null, access, jwt: null };
}

class Scene {
  readonly clock = new ManualClock();
  /** By port, once the control plane has been asked. */
  readonly say = new Map<number, (policy: InboundPolicy) => void>();
  readonly ports = new Ports(
    {
      watchPort: (port: number, policy: (policy: InboundPolicy) => void) => {
        this.say.set(port, policy);
        return { cancel: () => void this.say.delete(port) };
      },
    } as unknown as ControlApi,
    this.clock,
    {
      defaultPolicy: OPEN,
      declaredPorts: [80],
      opaquePorts: [],
      answerTimeoutMs: ANSWER_MS,
      idleMs: 1_000,
      undeclaredMax: 2,
    },
  );

  /** Whether a stranger may use the port, once that is decided. */
  async mayUse(port: number): Promise<boolean> {
    const found = Promise.withResolvers<InboundPolicy>();
    this.ports.lookup(port, (one) => found.resolve(one!.policy));
    this.clock.advance(ANSWER_MS);
    return decideAccess((await found.promise).access, subjectOf(null)).verdict === "allowed";
  }
}

test("a port that the control plane says nothing of goes by the default", async () => {
  const scene = new Scene();
  assert.equal(await scene.mayUse(81), true);
  scene.say.get(80)!(OPEN);
  assert.equal(await scene.mayUse(81), true);
});

test("… but lets nobody in where another port has rules of objects, which may be about it, too, until it is told", async () => {
  const scene = new Scene();
  scene.say.get(80)!(GUARDED);
  assert.equal(await scene.mayUse(81), false);
  scene.say.get(81)!(OPEN);
  assert.equal(await scene.mayUse(81), true);
});

test("a port that asks for tokens counts as one with rules", async () => {
  const scene = new Scene();
  const source = {
    group: "pillion.dev",
    kind: "JwtPolicy",
    namespace: "shop",
    name: "a",
    section: "",
    port: 0,
  };
  scene.say.get(80)!({ ...OPEN, jwt: { source, issuers: [], required: [] } });
  assert.equal(await scene.mayUse(81), false);
});
