/** Which opaque connections share a carrier, who waits for one, and what becomes of them when there is none. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { addressKey, parseSocketAddress, type SocketAddress } from "#/base/address.ts";
import type { Conn } from "#/base/conn.ts";
import { ConnError } from "#/base/errors.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { LIMITS } from "#/model/limits.ts";
import type { SecureResult } from "#/net/transport.ts";
import { BULKY_BYTES } from "#/stack/carrier/carrier-conn.ts";
import { CARRIER_IDLE_MS } from "#/stack/carrier/client-carrier.ts";
import { ServerCarrier } from "#/stack/carrier/server-carrier.ts";
import { CARRIER_MACHINE } from "#/stack/carrier/settings.ts";
import type { Cancel } from "#/stack/discovery.ts";
import { Guard } from "#/stack/http/guard.ts";
import { ManualClock, memoryPair } from "#/stack/http/testing.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { PILLION_ALPN, TRANSPORT_ALPN, TransportHeaderReader } from "#/wire/transport-header.ts";
import { Carriers } from "./carriers.ts";

const NAME = "server.shop.serviceaccount.identity.pillion.cluster.local";

function endpoint(address: string, name: string = NAME): Endpoint {
  return {
    address: parseSocketAddress(address) as SocketAddress,
    weight: 1,
    identity: { name, serverName: name },
    protocolHint: "opaque",
    tunnelPort: 4143,
    authorityOverride: null,
    labels: {},
  };
}

interface Handshake {
  readonly endpoint: Endpoint;
  readonly alpn: readonly string[];
  isCancelled: boolean;
  finish(agreed: string | null | ConnError): void;
}

/** A stream or connection that the servers got. */
interface Got {
  /** Number of the handshake that it came by. */
  readonly by: number;
  readonly target: string;
}

class Scene {
  readonly clock = new ManualClock();
  readonly handshakes: Handshake[] = [];
  readonly servers: ServerCarrier[] = [];
  readonly got: Got[] = [];
  readonly alone: string[] = [];
  held = 0;
  /** What a handshake ends in; null: the test says. */
  agreed: string | null = PILLION_ALPN;
  readonly carriers = new Carriers({
    clock: this.clock,
    machine: {},
    secure: (to, alpn, _timeoutMs, done): Cancel => {
      const by = this.handshakes.length;
      const handshake: Handshake = {
        endpoint: to,
        alpn,
        isCancelled: false,
        finish: (agreed) => {
          if (handshake.isCancelled) return;
          if (agreed instanceof ConnError) done(agreed, null);
          else done(null, this.#secured(by, agreed));
        },
      };
      this.handshakes.push(handshake);
      const { agreed } = this;
      if (agreed !== null) this.clock.after(5, () => handshake.finish(alpn.includes(agreed) ? agreed : null));
      return { cancel: () => (handshake.isCancelled = true) };
    },
    alone: (to, { conn, peer }, done) => {
      this.alone.push(addressKey(to.address));
      done(null, conn, peer);
    },
    carries: () => {
      this.held++;
      return () => this.held--;
    },
    opened: () => undefined,
  });

  #secured(by: number, alpn: string | null): SecureResult {
    const [near, far] = memoryPair(this.clock);
    const reader = new TransportHeaderReader();
    far.setHandler({
      onData: (bytes) => {
        const found = reader.feed(bytes);
        if (found.kind !== "header") return;
        assert.deepEqual(found.header, { port: 4143, name: null, protocol: null });
        far.unread(found.rest);
        const guard = new Guard(LIMITS, "inbound", this.clock, new Registry());
        this.servers[by] = new ServerCarrier(far, this.clock, guard, {
          opened: (stream, target) => {
            this.got.push({ by, target: addressKey(target) });
            stream.setHandler({
              onData: () => undefined,
              onEnd: () => stream.end(),
              onDrain: () => undefined,
              onClose: () => undefined,
            });
          },
          refused: (detail) => assert.fail(detail),
          closed: () => undefined,
        });
      },
      onEnd: () => undefined,
      onDrain: () => undefined,
      onClose: () => undefined,
    });
    const peer = { name: NAME } as SecureResult["peer"];
    return { conn: near, peer, alpn, crypto: { cipher: "", group: "" }, proof: { endsAtMs: 0, root: "" } };
  }

  /** What becomes of one connection. */
  dial(to: Endpoint): { conn: Conn | null; outcome: string; closed: string; cancel(): void } {
    const own = { conn: null as Conn | null, outcome: "", closed: "", cancel: () => attempt.cancel() };
    const attempt = this.carriers.dial(to, 1_000, (error, conn) => {
      assert.equal(own.outcome, "", "told once");
      own.outcome = conn === null ? (error?.message ?? "?") : "open";
      own.conn = conn;
      conn?.setHandler({
        onData: () => undefined,
        onEnd: () => undefined,
        onDrain: () => undefined,
        onClose: (cause) => void (own.closed = cause?.code ?? "clean"),
      });
    });
    assert.equal(own.outcome, "", "never synchronously");
    return own;
  }

  /** The connections that each handshake led to. */
  get counts(): number[] {
    return this.handshakes.map((_, by) => this.got.filter((one) => one.by === by).length);
  }
}

const DB = endpoint("10.0.0.2:5432");

test("connections to one sidecar share a handshake, whatever their port; another address or identity has its own", () => {
  const scene = new Scene();
  const dialled = [DB, DB, endpoint("10.0.0.2:6379")].map((to) => scene.dial(to));
  scene.clock.advance(100);
  dialled.push(scene.dial(DB));
  scene.clock.advance(100);
  assert.equal(
    dialled.every(({ outcome }) => outcome === "open"),
    true,
  );
  assert.deepEqual(scene.counts, [4]);
  assert.deepEqual(
    scene.got.map(({ target }) => target),
    ["10.0.0.2:5432", "10.0.0.2:5432", "10.0.0.2:6379", "10.0.0.2:5432"],
  );
  scene.dial(endpoint("10.0.0.3:5432"));
  scene.dial(endpoint("10.0.0.2:5432", "another.identity"));
  scene.clock.advance(100);
  assert.deepEqual(scene.counts, [4, 1, 1]);
});

test("all who wait learn of a failure, and the next who comes tries anew", () => {
  const scene = new Scene();
  scene.agreed = null;
  const dialled = [scene.dial(DB), scene.dial(DB)];
  scene.clock.settle();
  scene.handshakes[0]?.finish(new ConnError("CONNECT_REFUSED", "nobody there"));
  scene.clock.settle();
  assert.deepEqual(
    dialled.map(({ outcome }) => outcome),
    ["nobody there", "nobody there"],
  );
  scene.agreed = PILLION_ALPN;
  const next = scene.dial(DB);
  scene.clock.advance(100);
  assert.equal(next.outcome, "open");
});

test("a handshake goes on while anybody wants it, and is given up with the last", () => {
  const scene = new Scene();
  scene.agreed = null;
  const [one, other] = [scene.dial(DB), scene.dial(DB)];
  scene.clock.settle();
  one.cancel();
  assert.equal(scene.handshakes[0]?.isCancelled, false);
  other.cancel();
  assert.equal(scene.handshakes[0]?.isCancelled, true);
  scene.clock.advance(10_000);
  assert.deepEqual([one.outcome, other.outcome], ["", ""]);
  // Before anything was begun.
  scene.dial(DB).cancel();
  scene.clock.settle();
  assert.equal(scene.handshakes.length, 1);
});

test("a sidecar that is none of ours gets a connection for each, and is not asked again for a while", () => {
  const scene = new Scene();
  scene.agreed = TRANSPORT_ALPN;
  const dialled = [scene.dial(DB), scene.dial(DB), scene.dial(DB)];
  scene.clock.advance(100);
  assert.equal(
    dialled.every(({ outcome }) => outcome === "open"),
    true,
  );
  dialled.push(scene.dial(DB));
  scene.clock.advance(100);
  assert.deepEqual(scene.alone, Array(4).fill("10.0.0.2:5432"));
  assert.deepEqual(
    scene.handshakes.map(({ alpn }) => alpn.length),
    [2, 1, 1, 1],
  );
  // It may have been replaced by one of ours.
  scene.clock.advance(60_000);
  scene.agreed = PILLION_ALPN;
  scene.dial(DB);
  scene.dial(DB);
  scene.clock.advance(100);
  assert.deepEqual(scene.counts, [0, 0, 0, 0, 2]);
});

test("who waits for a sidecar that turns out foreign can still give up", () => {
  const scene = new Scene();
  scene.agreed = null;
  const [first, second] = [scene.dial(DB), scene.dial(DB)];
  scene.clock.settle();
  scene.handshakes[0]?.finish(TRANSPORT_ALPN);
  scene.clock.settle();
  assert.deepEqual([first.outcome, second.outcome], ["open", ""]);
  second.cancel();
  assert.equal(scene.handshakes[1]?.isCancelled, true);
});

test("a stream that moves much has new ones go to another carrier, up to a few; then to the least busy", () => {
  const scene = new Scene();
  const bulk = (): void => {
    const one = scene.dial(DB);
    scene.clock.advance(100);
    for (let moved = 0; moved < BULKY_BYTES; moved += 65_536) {
      one.conn?.write(Buffer.alloc(65_536));
      scene.clock.settle();
    }
  };
  bulk();
  assert.deepEqual(scene.counts, [1]);
  bulk();
  assert.deepEqual(scene.counts, [1, 1]);
  const small = scene.dial(DB);
  scene.dial(DB);
  scene.clock.advance(100);
  assert.deepEqual(scene.counts, [1, 1, 2], "small ones share theirs");
  small.conn?.reset();
  bulk();
  assert.deepEqual(scene.counts, [1, 1, 3]);
  bulk();
  assert.deepEqual(scene.counts, [1, 1, 3, 1]);
  for (let i = 0; i < 3; i++) bulk();
  assert.equal(scene.handshakes.length, 4);
  assert.equal(Math.max(...scene.counts) - Math.min(...scene.counts) <= 2, true, scene.counts.join());
});

test("where another carrier cannot be had, a busy one is better than none", () => {
  const scene = new Scene();
  const bulk = scene.dial(DB);
  scene.clock.advance(100);
  for (let moved = 0; moved < BULKY_BYTES; moved += 65_536) {
    bulk.conn?.write(Buffer.alloc(65_536));
    scene.clock.settle();
  }
  scene.agreed = null;
  const next = scene.dial(DB);
  scene.clock.settle();
  scene.handshakes[1]?.finish(new ConnError("CONNECT_TIMEOUT", "too slow"));
  scene.clock.settle();
  assert.equal(next.outcome, "open");
  assert.deepEqual(scene.counts, [2, 0]);
});

test("more streams than a carrier takes get another", () => {
  const scene = new Scene();
  const { maxConcurrentStreams = 0 } = CARRIER_MACHINE;
  const dialled = Array.from({ length: 2 * maxConcurrentStreams + 1 }, () => scene.dial(DB));
  scene.clock.advance(1_000);
  assert.equal(
    dialled.every(({ outcome }) => outcome === "open"),
    true,
  );
  assert.deepEqual(scene.counts, [maxConcurrentStreams, maxConcurrentStreams, 1]);
});

test("a carrier that drains keeps its streams, and new ones go to another", () => {
  const scene = new Scene();
  const before = scene.dial(DB);
  scene.clock.advance(100);
  scene.servers[0]?.drain();
  scene.clock.settle();
  const after = scene.dial(DB);
  scene.clock.advance(1_000);
  assert.deepEqual([before.closed, after.outcome], ["", "open"]);
  assert.deepEqual(scene.counts, [1, 1]);
  before.conn?.end();
  scene.clock.advance(1_000);
  assert.equal(before.closed, "clean");
  assert.equal(scene.held, 1, "what was drained and is empty is gone");
});

test("a proof is held while there is a carrier, and that is no longer than it is used", () => {
  const scene = new Scene();
  const one = scene.dial(DB);
  scene.clock.advance(100);
  assert.equal(scene.held, 1);
  one.conn?.end();
  scene.clock.advance(CARRIER_IDLE_MS + 1_000);
  assert.deepEqual([one.closed, scene.held], ["clean", 0]);
});
