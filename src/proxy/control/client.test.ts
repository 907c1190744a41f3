import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import type { IpAddress } from "#/base/address.ts";
import { SeededRandom } from "#/base/random.ts";
import { ServerSchema } from "#/gen/linkerd/inbound_pb.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import { SILENT } from "#/net/log.ts";
import { decideAccess } from "#/stack/access/decide.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import type { CallHandler, Channel } from "./channel.ts";
import { ControlClient } from "./client.ts";

/** A client, what its stream of a port's policy says, and what came of it. */
function watched(): { say: (bytes: Uint8Array) => void; policies: InboundPolicy[] } {
  let handler: CallHandler | null = null;
  const channel = {
    call: (_path: string, _request: Uint8Array, of: CallHandler) => {
      handler = of;
      return { cancel: () => undefined };
    },
  } as unknown as Channel;
  const client = new ControlClient({
    clock: new ManualClock(),
    random: new SeededRandom(1),
    log: SILENT,
    registry: new Registry(),
    destination: channel,
    policy: channel,
    workload: "web",
    contextToken: "",
  });
  const policies: InboundPolicy[] = [];
  client.watchPort(80, (policy) => policies.push(policy));
  return { say: (bytes) => handler?.message(bytes), policies };
}

const UNKNOWN = toBinary(ServerSchema, create(ServerSchema, {}));
const NETWORKS = [{ net: { ip: { ip: { case: "ipv4" as const, value: 0 } }, prefixLen: 0 } }];
const OPEN = toBinary(
  ServerSchema,
  create(ServerSchema, {
    protocol: { kind: { case: "http1", value: {} } },
    authorizations: [
      { networks: NETWORKS, authentication: { permit: { case: "unauthenticated", value: {} } } },
    ],
  }),
);

function allows(policy: InboundPolicy | undefined): boolean {
  assert(policy !== undefined);
  const subject = { ip: "10.0.0.1" as IpAddress, peer: null, request: null };
  return decideAccess(policy.access, subject).verdict === "allowed";
}

test("attack: a port whose first policy cannot be followed lets nobody in, whatever the default", () => {
  const { say, policies } = watched();
  say(UNKNOWN);
  assert.equal(allows(policies[0]), false);
  say(OPEN);
  assert.equal(allows(policies[1]), true);
});

test("a later policy that cannot be followed leaves in force what was", () => {
  const { say, policies } = watched();
  say(OPEN);
  say(UNKNOWN);
  assert.equal(policies.length, 1);
  assert.equal(allows(policies[0]), true);
});

test("a policy that is said again changes nothing", () => {
  const { say, policies } = watched();
  say(OPEN);
  say(Uint8Array.from(OPEN));
  assert.equal(policies.length, 1);
  say(UNKNOWN);
  say(OPEN);
  assert.equal(policies.length, 2, "it may have changed meanwhile");
});
