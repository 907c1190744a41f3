import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { VirtualClock } from "#/base/virtual-clock.ts";
import { LiveView } from "#/control/rpc/live-view.ts";
import { quotaMethods } from "#/control/rpc/quota.ts";
import type { CallContext } from "#/control/rpc/server.ts";
import { REQUEST_BYTES_MAX } from "#/control/rpc/server.ts";
import { RpcError } from "#/control/rpc/status.ts";
import type { MeshView, ViewPod } from "#/control/services/mesh-view.ts";
import type { RateLimit } from "#/model/traffic.ts";
import type { QuotaAnswer, QuotaReport } from "#/proxy/control/control-api.ts";
import { decodeQuotaAnswer, encodeQuotaRequest } from "#/proxy/control/quota-wire.ts";
import { GLOBAL_KEYS_MAX, QuotaShares } from "#/stack/limits/quota-shares.ts";
import { limitIds } from "#/stack/limits/rate-limiter.ts";
import { encodeGrpcMessage, GrpcFound, GrpcMessageReader, GrpcStatus } from "#/wire/grpc.ts";

const SOURCE = { group: "", kind: "RateLimitPolicy", namespace: "shop", name: "all", section: "", port: 0 };
const LIMIT: RateLimit = {
  source: SOURCE,
  matches: [],
  key: { kind: "total" },
  requests: 100,
  windowMs: 1_000,
  burst: 10,
  scope: "global",
};
const LOCAL: RateLimit = { ...LIMIT, scope: "local", source: { ...SOURCE, name: "local" } };
const [LIMIT_ID, LOCAL_ID] = limitIds([LIMIT, LOCAL]) as [string, string];
const IDENTITY = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" };

function pod(name: string, over: Partial<ViewPod> = {}): ViewPod {
  return {
    uid: `uid-${name}`,
    name,
    namespace: "shop",
    identity: IDENTITY,
    workload: { kind: "deployment", name: "web" },
    isReady: true,
    isLeaving: false,
    ...over,
  } as ViewPod;
}

/** The control plane's method, asked as a sidecar asks it. */
class Scene {
  readonly clock = new VirtualClock();
  readonly live = new LiveView();
  readonly #lease;

  constructor(...pods: ViewPod[]) {
    const podsByName = new Map(pods.map((one) => [`${one.namespace}/${one.name}`, one]));
    this.live.publish({ podsByName } as unknown as MeshView);
    const limits = { exempt: [], rates: [LIMIT, LOCAL], concurrency: null };
    this.#lease = quotaMethods(this.live, this.clock, (_view, { name }, port) =>
      port === 80 && name.startsWith("web") ? limits : null,
    ).get("/dev.pillion.quota.Quota/Lease")!;
  }

  async ask(
    workload: string,
    reports: readonly QuotaReport[],
    call: Partial<CallContext> = {},
  ): Promise<QuotaAnswer | null> {
    const request = encodeQuotaRequest(workload, reports).finish();
    const caller = { identity: IDENTITY, form: "dns" } as const;
    const bytes = await this.#lease.unary!(request, { caller, isTrusted: false, peer: "test", ...call });
    return decodeQuotaAnswer(bytes, reports);
  }
}

function report(over: Partial<QuotaReport> = {}, wanted = 4): QuotaReport {
  return {
    port: 80,
    limitId: LIMIT_ID,
    key: "",
    report: { held: 0, returned: 0, wanted, demandPerSecond: 20, overdraft: 0 },
    ...over,
  };
}

test("a sidecar gets of its limit what it wants while there is some, with how many share it and when to come again", async () => {
  const scene = new Scene(
    pod("web-0"),
    pod("web-1"),
    pod("web-2", { isReady: false }),
    pod("api-0", { workload: { kind: "deployment", name: "api" } }),
  );
  const answer = await scene.ask('{"ns":"shop","pod":"web-0"}', [report()]);
  assert.deepEqual(answer, { intervalMs: 100, grants: [{ granted: 4, waitMs: 0, replicas: 2 }] });
  // 100 in a second: the bucket is of 40, and 4 are gone.
  const rest = await scene.ask("shop:web-1", [report({}, 100)]);
  assert.equal(rest!.grants[0]!.granted <= 36, true);
  assert.ok(rest!.grants[0]!.waitMs >= 100);
});

test("keys are counted apart, and the rest together", async () => {
  const scene = new Scene(pod("web-0"));
  const grants = (await scene.ask("shop:web-0", [
    report({ key: "a" }, 20),
    report({ key: "b\u00ff" }, 20),
    report({ key: null }, 20),
    report({ key: null }, 40),
  ]))!.grants.map((grant) => grant!.granted);
  assert.deepEqual(grants.slice(0, 3), [20, 20, 20]);
  assert.ok(grants[3]! <= 20);
});

test("a limit that the port has not, or that each pod keeps by itself, is not known", async () => {
  const scene = new Scene(pod("web-0"), pod("api-0"));
  const unknown = [
    report({ limitId: "RateLimitPolicy/shop/other/total" }),
    report({ port: 81 }),
    report({ limitId: LOCAL_ID }),
  ];
  assert.deepEqual((await scene.ask("shop:web-0", unknown))!.grants, [null, null, null]);
  const answer = await scene.ask("shop:web-0", [unknown[0]!, report()]);
  assert.equal(answer!.grants[0], null);
  assert.equal(answer!.grants[1]!.granted, 4);
  assert.deepEqual((await scene.ask("shop:api-0", [report()]))!.grants, [null]);
});

test("a workload may take from its own limits only", async () => {
  const scene = new Scene(pod("web-0"));
  const status = async (workload: string, call: Partial<CallContext>): Promise<number> => {
    try {
      await scene.ask(workload, [report()], call);
      return GrpcStatus.OK;
    } catch (error) {
      assert.ok(error instanceof RpcError);
      return error.status;
    }
  };
  const other = { identity: { ...IDENTITY, serviceAccount: "api" }, form: "dns" } as const;
  assert.equal(await status("shop:web-0", { caller: other }), GrpcStatus.PERMISSION_DENIED);
  assert.equal(await status("shop:web-9", {}), GrpcStatus.NOT_FOUND);
  assert.equal(await status("nonsense", {}), GrpcStatus.NOT_FOUND);
  assert.equal(await status("shop:web-0", { caller: null, isTrusted: true }), GrpcStatus.OK);
});

test("bytes that are no answer to the question are taken for none", async () => {
  const scene = new Scene(pod("web-0"));
  const reports = [report(), report({ key: "x" })];
  const bytes = new Uint8Array([8, 100]);
  assert.equal(decodeQuotaAnswer(bytes, reports), null);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (random) => {
      const answer = decodeQuotaAnswer(random, reports);
      assert.ok(answer === null || answer.grants.length === 2);
    }),
  );
  assert.equal((await scene.ask("shop:web-0", reports))!.grants.length, 2);
});

test("a report of the longest keys is one that the control plane takes, and all have their turn", async () => {
  const scene = new Scene(pod("web-0"));
  const shares = new QuotaShares();
  const limit: RateLimit = { ...LIMIT, key: { kind: "header", name: "x-key" } };
  const counted = shares.limit(80, LIMIT_ID, limit, 0);
  const all = Array.from({ length: GLOBAL_KEYS_MAX }, (_, i) =>
    counted.share(`${i}`.padEnd(2_000, "k"), null, 0),
  );
  for (const share of all) share.arrived(0);
  const reported = new Set<unknown>();
  for (let turn = 0; turn < 3; turn++) {
    const reports = shares.report(100 * turn, 100);
    for (const { share } of reports) reported.add(share);
    const message = encodeGrpcMessage(encodeQuotaRequest("shop:web-0", reports).finish());
    const reader = new GrpcMessageReader(REQUEST_BYTES_MAX);
    reader.feed(message);
    assert.equal(reader.next(), GrpcFound.MESSAGE);
    assert.equal((await scene.ask("shop:web-0", reports))!.grants.length, reports.length);
  }
  assert.equal(reported.size, GLOBAL_KEYS_MAX);
});
