import assert from "node:assert/strict";
import { createPublicKey, X509Certificate } from "node:crypto";
import { test } from "node:test";
import type { Log, LogFields, LogLevel } from "#/net/log.ts";
import { testLeaf, testRoot } from "#/net/testing.ts";
import { Tls } from "#/net/tls.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { ProtoReader, ProtoWriter } from "#/wire/proto.ts";
import type { CallHandler } from "../control/channel.ts";
import { IdentityClient } from "./identity-client.ts";

const LIFE_MS = 24 * 3_600_000;
const MINUTE_MS = 60_000;
const NAME = "web.shop.serviceaccount.identity.pillion.cluster.local";

/** Its wall clock can be set, as an administrator or NTP would. */
class SettableClock extends ManualClock {
  skewMs = 0;
  override wallMs(): number {
    return super.wallMs() + this.skewMs;
  }
}

/** An identity service in memory, with the calendar of another machine. */
class World {
  readonly clock = new SettableClock();
  readonly registry = new Registry();
  readonly lines: { level: LogLevel; message: string; fields: LogFields }[] = [];
  readonly root = testRoot("cluster.local", { nowMs: 1_700_000_000_000, endsInMs: 1000 * LIFE_MS });
  /** Calls so far, with the key that each asked for. */
  readonly asked: { atMs: number; key: string; byToken: boolean }[] = [];
  isAway = false;
  /** How far the service's calendar is ahead of the wall clock that is right. */
  serviceAheadMs = 0;
  lifeMs = LIFE_MS;
  tokensRefused = 0;
  client: IdentityClient;

  constructor() {
    const tls = new Tls(this.clock);
    tls.setAnchors(new Map([["cluster.local", this.root.pem]]));
    const say =
      (level: LogLevel) =>
      (message: string, fields: LogFields = {}): void =>
        void this.lines.push({ level, message, fields });
    const log: Log = {
      error: say("error"),
      warn: say("warn"),
      info: say("info"),
      debug: say("debug"),
      isDebug: true,
    };
    this.client = new IdentityClient({
      clock: this.clock,
      random: { next: () => 0.5 },
      log,
      registry: this.registry,
      tls,
      localName: NAME,
      anchorsPem: this.root.pem,
      channel: (isAnonymous) => ({
        close: () => undefined,
        call: (_path, request, handler) => {
          this.clock.soon(() => this.#answer(request, isAnonymous, handler));
          return { cancel: () => undefined };
        },
      }),
      token: () => Promise.resolve(Uint8Array.of(1)),
      tokenRefused: () => void this.tokensRefused++,
      leafChanged: () => undefined,
    });
  }

  /** Lets `ms` go by in small steps, with what promises do in between. */
  async pass(ms: number): Promise<void> {
    const stopAtMs = this.clock.nowMs() + ms;
    while (this.clock.nowMs() < stopAtMs) {
      this.clock.advance(Math.min(10_000, stopAtMs - this.clock.nowMs()));
      await this.settle();
    }
  }

  /** Until nothing is under way: making keys takes threads, and turns of the loop. */
  async settle(): Promise<void> {
    for (let idle = 0; idle < 3;) {
      const before = this.asked.length;
      await new Promise((done) => setImmediate(done));
      this.clock.settle();
      idle = this.asked.length === before && !this.client.isCalling ? idle + 1 : 0;
    }
  }

  loud(): string[] {
    return this.lines
      .filter(({ level }) => level === "warn" || level === "error")
      .map(({ level, fields }) => `${level} ${String(fields["leftPercent"])}%`);
  }

  metric(name: string): number {
    const line = this.registry
      .render()
      .split("\n")
      .find((one) => one.startsWith(`${name} `));
    return Number(line?.split(" ")[1] ?? 0);
  }

  #answer(request: Uint8Array, byToken: boolean, handler: CallHandler): void {
    const reader = new ProtoReader(request);
    let csr = Buffer.alloc(0);
    while (reader.next()) if (reader.field === 3) csr = Buffer.from(reader.bytes());
    // SubjectPublicKeyInfo of a P-256 key: 91 bytes with a head that is always the same.
    const at = csr.indexOf(Buffer.from("3059301306072a8648ce3d0201", "hex"));
    const publicKey = createPublicKey({ key: csr.subarray(at, at + 91), format: "der", type: "spki" });
    this.asked.push({
      atMs: this.clock.nowMs(),
      key: publicKey.export({ format: "pem", type: "spki" }) as string,
      byToken,
    });
    if (this.isAway) {
      handler.ended(GrpcStatus.UNAVAILABLE, "away");
      return;
    }
    const nowMs = 1_700_000_000_000 + this.clock.nowMs() + this.serviceAheadMs;
    const leaf = testLeaf(
      this.root,
      {},
      { publicKey, nowMs, beginsInMs: -10 * MINUTE_MS, endsInMs: this.lifeMs },
    );
    const notAfter = new X509Certificate(leaf.pem).validToDate.getTime();
    handler.message(
      new ProtoWriter()
        .bytes(1, leaf.certificate.raw)
        .message(3, new ProtoWriter().uint(1, notAfter / 1000))
        .finish(),
    );
    handler.ended(GrpcStatus.OK, "");
  }
}

async function started(change: (world: World) => void = () => undefined): Promise<World> {
  const world = new World();
  change(world);
  world.client.start(() => undefined);
  await world.settle();
  return world;
}

test("renews at 70 % of the life less jitter, each time with a new key, by the certificate in force", async () => {
  const world = await started();
  await world.pass(0.66 * LIFE_MS);
  assert.equal(world.asked.length, 1);
  await world.pass(0.01 * LIFE_MS);
  assert.equal(world.asked.length, 2);
  await world.pass(2 * LIFE_MS);
  assert.equal(world.asked.length, 5);
  assert.equal(new Set(world.asked.map(({ key }) => key)).size, 5);
  assert.deepEqual(
    world.asked.map(({ byToken }) => byToken),
    [true, false, false, false, false],
  );
});

test("while renewal fails the old certificate stays to its end; it is told at 50, 20 and 5 % of its life, and then each minute", async () => {
  const lifeMs = LIFE_MS / 12;
  const world = await started((one) => void (one.lifeMs = lifeMs));
  const notAfterMs = world.client.notAfterMs;
  world.isAway = true;
  await world.pass(0.7 * lifeMs);
  assert.deepEqual(world.loud(), ["warn 33%"]);
  await world.pass(0.12 * lifeMs);
  assert.deepEqual(world.loud(), ["warn 33%", "error 20%"]);
  await world.pass(0.15 * lifeMs);
  assert.deepEqual(world.loud(), ["warn 33%", "error 20%", "error 5%"]);
  assert.equal(world.client.hasCertificate, true);
  assert.equal(world.client.notAfterMs, notAfterMs);
  const left = world.metric("pillion_identity_cert_left_seconds");
  assert.ok(left > 0 && left <= (0.04 * lifeMs) / 1000, String(left));
  assert.ok(world.metric("pillion_identity_renewal_failures_total") > 100);
  await world.pass(0.03 * lifeMs + 3 * MINUTE_MS);
  assert.equal(world.client.hasCertificate, false);
  assert.equal(world.metric("pillion_identity_cert_left_seconds"), 0);
  const after = world.loud().slice(3);
  assert.ok(after.length >= 3 && after.length <= 5, after.join(", "));
  assert.ok(after.every((line) => line === "error 0%"));
  // Never faster than its longest pause allows.
  assert.ok(world.asked.length < (0.4 * lifeMs) / 5_000, String(world.asked.length));
  world.isAway = false;
  await world.pass(MINUTE_MS);
  assert.equal(world.client.hasCertificate, true);
  assert.equal(world.asked.at(-1)?.byToken, true);
});

test("a wall clock that jumps five minutes either way brings no renewal forward and misses none", async () => {
  for (const jumpMs of [5 * MINUTE_MS, -5 * MINUTE_MS]) {
    const world = await started();
    await world.pass(0.3 * LIFE_MS);
    world.clock.skewMs = jumpMs;
    await world.pass(0.3 * LIFE_MS);
    assert.equal(world.asked.length, 1);
    await world.pass(0.1 * LIFE_MS);
    assert.equal(world.asked.length, 2);
    await world.pass(LIFE_MS);
    assert.ok(world.asked.length <= 4, String(world.asked.length));
    assert.equal(world.client.hasCertificate, true);
    assert.deepEqual(world.loud(), []);
  }
});

test("a calendar that jumps past the end is noticed in half a minute, and one that jumps back for a day misses nothing", async () => {
  const world = await started();
  world.clock.skewMs = world.serviceAheadMs = 2 * LIFE_MS;
  await world.pass(40_000);
  assert.equal(world.asked.length, 2);
  assert.equal(world.client.hasCertificate, true);
  world.clock.skewMs = LIFE_MS;
  await world.pass(0.69 * LIFE_MS);
  assert.equal(world.asked.length, 3);
});

test("a clock ahead of the issuer's by less than the life is no storm", async () => {
  const world = await started((one) => void (one.clock.skewMs = LIFE_MS - 10 * MINUTE_MS));
  await world.pass(60 * MINUTE_MS);
  assert.ok(world.asked.length <= 12, String(world.asked.length));
  assert.equal(world.client.hasCertificate, true);
});

test("a leaf that begins in less than five minutes by our clock is taken", async () => {
  const world = await started((one) => void (one.serviceAheadMs = 14 * MINUTE_MS));
  assert.equal(world.client.hasCertificate, true);
  assert.deepEqual(world.loud(), []);
});
