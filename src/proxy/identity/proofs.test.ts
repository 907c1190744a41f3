import assert from "node:assert/strict";
import { test } from "node:test";
import type { Proof } from "#/net/transport.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { GRACE_MS, Proofs, type Proven } from "./proofs.ts";

const HOUR_MS = 3_600_000;
const WEB = "web.shop";

class World {
  readonly clock = new ManualClock();
  readonly trusted = new Set(["old", "new"]);
  /** Where a proof was asked for, and when. */
  readonly asked: { where: string; atMs: number }[] = [];
  /** What a handshake proves; null: it fails. */
  proof: Proof | null = null;
  random = 0.5;
  readonly proofs: Proofs<string>;

  constructor(side: "dials" | "is dialled") {
    this.proofs = new Proofs<string>({
      clock: this.clock,
      random: { next: () => this.random },
      trusts: (root) => this.trusted.has(root),
      prove:
        side === "is dialled"
          ? null
          : (where, done) => {
              this.asked.push({ where, atMs: this.clock.nowMs() });
              if (this.proof !== null) this.proofs.proven(WEB, where, this.proof);
              this.clock.soon(done);
            },
    });
  }

  in(ms: number, root = "old"): Proof {
    return { endsAtMs: this.clock.wallMs() + ms, root };
  }

  hold(proof: Proof, address = "10.0.0.1"): Held {
    const held: Held = {
      renewals: 0,
      expired: "",
      over: () => undefined,
      renew: () => undefined,
      expire: () => undefined,
    };
    held.renew = () => void held.renewals++;
    held.expire = (detail) => {
      held.expired = detail;
      held.over();
    };
    held.over = this.proofs.hold(WEB, address, address, proof, held);
    return held;
  }
}

interface Held extends Proven {
  renewals: number;
  expired: string;
  over: () => void;
  renew: () => void;
  expire: (detail: string) => void;
}

test("a connection whose peer never proves itself again ends five minutes after the proof", () => {
  const world = new World("is dialled");
  const held = world.hold(world.in(HOUR_MS));
  world.clock.advance(0.79 * HOUR_MS);
  assert.equal(held.renewals, 0);
  world.clock.advance(0.06 * HOUR_MS);
  assert.equal(held.renewals, 1);
  world.clock.advance(0.15 * HOUR_MS + GRACE_MS - 20_000);
  assert.equal(held.expired, "");
  assert.ok(held.renewals > 1 && held.renewals < 20, String(held.renewals));
  world.clock.advance(40_000);
  assert.match(
    held.expired,
    /^web\.shop at 10\.0\.0\.1 proved itself for the last time until .* \(its certificate ended\)$/,
  );
  assert.equal(world.proofs.peerCount, 0);
});

test("another handshake of the same identity from the same address keeps it, and only that", () => {
  const world = new World("is dialled");
  const held = world.hold(world.in(HOUR_MS));
  const other = world.hold(world.in(HOUR_MS), "10.0.0.2");
  world.clock.advance(0.75 * HOUR_MS);
  world.proofs.proven(WEB, "10.0.0.1", world.in(HOUR_MS));
  world.proofs.proven("admin.shop", "10.0.0.2", world.in(HOUR_MS));
  world.clock.advance(0.7 * HOUR_MS);
  assert.equal(held.expired, "");
  assert.equal(held.renewals, 0);
  assert.notEqual(other.expired, "");
  world.clock.advance(HOUR_MS);
  assert.notEqual(held.expired, "");
});

test("a proof that ends sooner takes nothing from one in force", () => {
  const world = new World("is dialled");
  const held = world.hold(world.in(HOUR_MS));
  world.proofs.proven(WEB, "10.0.0.1", world.in(60_000));
  world.clock.advance(0.9 * HOUR_MS);
  assert.equal(held.expired, "");
});

test("who dials proves itself anew before the end, once for all connections to a peer, and spread out", () => {
  const world = new World("dials");
  const held = [
    world.hold(world.in(HOUR_MS)),
    world.hold(world.in(HOUR_MS)),
    world.hold(world.in(HOUR_MS), "10.0.0.2"),
  ];
  for (let day = 0; day < 24; day++) {
    world.proof = world.in(2 * HOUR_MS);
    world.clock.advance(HOUR_MS);
  }
  assert.deepEqual(
    held.map(({ expired }) => expired),
    ["", "", ""],
  );
  assert.equal(new Set(world.asked.map(({ where }) => where)).size, 2);
  assert.ok(world.asked.length >= 24 && world.asked.length <= 60, String(world.asked.length));
  for (const { over } of held) over();
  assert.equal(world.proofs.peerCount, 0);
  const before = world.asked.length;
  world.clock.advance(24 * HOUR_MS);
  assert.equal(world.asked.length, before);
});

test("handshakes that fail are tried again, never more than twice a minute, until the connection is cut", () => {
  const world = new World("dials");
  const held = world.hold(world.in(HOUR_MS));
  world.clock.advance(HOUR_MS + GRACE_MS + 20_000);
  assert.notEqual(held.expired, "");
  assert.ok(world.asked.length >= 5 && world.asked.length <= 20, String(world.asked.length));
  for (let i = 1; i < world.asked.length; i++)
    assert.ok((world.asked[i]?.atMs ?? 0) - (world.asked[i - 1]?.atMs ?? 0) >= 30_000);
});

test("a root that is trusted no more ends its proofs: a new proof within the grace, or the connection is cut", () => {
  for (const proves of [true, false]) {
    const world = new World("dials");
    const held = world.hold(world.in(24 * HOUR_MS));
    world.proof = proves ? world.in(12 * HOUR_MS, "new") : null;
    world.trusted.delete("old");
    world.proofs.trustChanged();
    assert.equal(world.asked.length, 0);
    world.clock.advance(GRACE_MS + 20_000);
    if (proves) assert.deepEqual([held.expired, world.asked.length], ["", 1]);
    else assert.match(held.expired, /\(its root is trusted no more\)$/);
  }
});

test("thousands of peers whose root is gone are not asked all at once", () => {
  const world = new World("dials");
  for (let i = 0; i < 1000; i++) world.hold(world.in(HOUR_MS), `10.1.${i >> 8}.${i & 255}`);
  world.proof = world.in(HOUR_MS, "new");
  world.trusted.delete("old");
  world.proofs.trustChanged();
  for (let i = 0, before = 0; i < 12; i++, before = world.asked.length) {
    world.clock.advance(10_000);
    assert.ok(world.asked.length - before <= 64);
  }
  world.clock.advance(GRACE_MS - 130_000);
  assert.equal(new Set(world.asked.map(({ where }) => where)).size, 1000);
});

test("when a root is gone servers move their connections one by one, and clients begin only after them", () => {
  const [server, client] = [new World("is dialled"), new World("dials")];
  client.proof = client.in(HOUR_MS, "new");
  const held = Array.from({ length: 100 }, (_, i) => server.hold(server.in(HOUR_MS), `10.1.0.${i}`));
  client.hold(client.in(HOUR_MS));
  let seed = 0;
  Object.defineProperty(server, "random", { get: () => (seed = (seed + 0.37) % 1) });
  for (const world of [server, client]) {
    world.trusted.delete("old");
    world.proofs.trustChanged();
  }
  const moved = (): number => held.filter(({ renewals }) => renewals > 0).length;
  let most = 0;
  for (let before = 0; before < 100; before = moved()) {
    for (const world of [server, client]) world.clock.advance(10_000);
    assert.ok(server.clock.nowMs() - client.clock.nowMs() === 0 && server.clock.nowMs() <= 80_000);
    most = Math.max(most, moved() - before);
    if (moved() < 80) assert.equal(client.asked.length, 0);
  }
  assert.ok(most <= 25, String(most));
  client.clock.advance(GRACE_MS - 80_000);
  assert.equal(client.asked.length, 1);
});

test("a wall clock that was ahead for a while, and let nobody prove anything, costs nothing once it is back", () => {
  const world = new World("dials");
  let skewMs = 48 * HOUR_MS;
  const wallMs = world.clock.wallMs.bind(world.clock);
  const held = world.hold(world.in(HOUR_MS));
  world.clock.wallMs = () => wallMs() + skewMs;
  world.clock.advance(60_000);
  assert.ok(world.asked.length > 0);
  skewMs = 0;
  for (let i = 0; i < 90; i++) {
    world.proof = world.in(HOUR_MS);
    world.clock.advance(HOUR_MS / 30);
  }
  assert.equal(held.expired, "");
});

test("a wall clock that jumps, be it for days, leaves the grace to prove oneself anew", () => {
  for (const jumpMs of [GRACE_MS, -GRACE_MS, 48 * HOUR_MS]) {
    const world = new World("dials");
    let skewMs = 0;
    const wallMs = world.clock.wallMs.bind(world.clock);
    world.clock.wallMs = () => wallMs() + skewMs;
    const held = world.hold(world.in(HOUR_MS));
    skewMs = jumpMs;
    for (let i = 0; i < 90; i++) {
      world.proof = world.in(HOUR_MS);
      world.clock.advance(HOUR_MS / 30);
    }
    assert.equal(held.expired, "");
  }
});
