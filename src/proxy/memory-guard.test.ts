import assert from "node:assert/strict";
import { test } from "node:test";
import type { Log } from "#/net/log.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { Connections, type Connection } from "./connections.ts";
import { MemoryGuard } from "./memory-guard.ts";

const LIMIT_BYTES = 100_000_000;

interface Scene {
  readonly clock: ManualClock;
  readonly registry: Registry;
  readonly inbound: Connections;
  readonly outbound: Connections;
  readonly said: readonly string[];
  readonly state: {
    garbageBytes: number;
    otherBytes: number;
    givenBack: number;
    /** How long each time takes. */
    giveBackMs: number;
    alive: number;
  };
  /** Which were ended, by the order of their opening. */
  readonly ended: readonly number[];
  /** False: refused. */
  readonly open: (to: Connections, activeRequests: number, isExpendable: boolean) => boolean;
}

/** A sidecar that uses `otherBytes`, and so many for each connection until memory is given back after their end. */
function scene(bytesEach: number, limitBytes: number | null = LIMIT_BYTES, otherBytes = 0): Scene {
  const clock = new ManualClock();
  const registry = new Registry();
  const inbound = new Connections({ all: 1_000, perClient: 1_000 });
  const outbound = new Connections({ all: 1_000, perClient: 1_000 });
  const said: string[] = [];
  const say = (message: string): void => void said.push(message);
  const log: Log = { error: say, warn: say, info: say, debug: say, isDebug: false };
  const state = { garbageBytes: 0, otherBytes, givenBack: 0, giveBackMs: 0, alive: 0 };
  let stoodStillMs = 0;
  const guard = new MemoryGuard({
    clock: {
      nowMs: () => clock.nowMs() + stoodStillMs,
      wallMs: () => clock.wallMs(),
      soon: (task) => clock.soon(task),
      after: (ms, fire) => clock.after(ms, fire),
    },
    log,
    registry,
    memory:
      limitBytes === null
        ? null
        : {
            limitBytes,
            usedBytes: () => state.otherBytes + state.alive * bytesEach + state.garbageBytes,
            giveBack: () => {
              state.givenBack++;
              state.garbageBytes = 0;
              stoodStillMs += state.giveBackMs;
            },
          },
  });
  guard.watch(inbound, outbound);
  const ended: number[] = [];
  let opened = 0;
  const open = (to: Connections, activeRequests: number, isExpendable: boolean): boolean => {
    if (guard.refuses()) return false;
    const number = opened++;
    state.alive++;
    const connection: Connection = to.add("192.0.2.1", () => {
      ended.push(number);
      state.alive--;
      state.garbageBytes += bytesEach;
      connection.remove();
    });
    const nothing = (): undefined => undefined;
    connection.serve({ drain: nothing, close: nothing, recheck: nothing, activeRequests }, isExpendable);
    return true;
  };
  return { clock, registry, inbound, outbound, said, state, ended, open };
}

test("lets everybody in below the limit, and without one", () => {
  const { open, clock, inbound, state, said } = scene(1_000_000, null);
  for (let i = 0; i < 500; i++) assert.ok(open(inbound, 0, true));
  clock.advance(10_000);
  assert.equal(state.givenBack, 0);
  const limited = scene(1_000_000);
  for (let i = 0; i < 70; i++) {
    assert.ok(limited.open(limited.inbound, 1, true));
    limited.clock.advance(20);
  }
  assert.deepEqual([...said, ...limited.said], []);
});

test("a crowd that says nothing costs the oldest of it their connections, and the next comer is let in", () => {
  const { open, clock, state, inbound, ended, said } = scene(1_000_000);
  let refused = 0;
  for (let ms = 0; ms < 20_000; ms += 20) {
    if (!open(inbound, 0, true)) refused++;
    assert.ok(state.alive < 92, `${state.alive} connections of a hundredth of the limit each`);
    assert.ok(
      ended.length === 0 || state.alive > 50,
      `no more are ended than need be: ${state.alive} are left`,
    );
    clock.advance(20);
  }
  assert.ok(refused > 0 && ended.length > 0);
  assert.deepEqual(
    ended,
    ended.map((_, at) => at),
    "oldest first",
  );
  assert.match(said.join("\n"), /^near its memory limit.*\nhas room again\nnear/);
});

test("requests under way, peers' connections and opaque ones outlast the idle", () => {
  const { open, clock, inbound, ended } = scene(1_000_000);
  for (let i = 0; i < 60; i++) {
    // Every third is an idle client's, the next one an idle peer's.
    open(inbound, i % 3 === 2 ? 1 : 0, i % 3 !== 1);
    clock.advance(20);
  }
  for (let i = 0; i < 40; i++) {
    open(inbound, 1, true);
    clock.advance(20);
  }
  clock.advance(3_000);
  assert.ok(ended.length > 0);
  assert.ok(
    ended.every((number) => number < 60 && number % 3 === 0),
    ended.join(" "),
  );
});

test("past the critical share the newest are cut, until it is not critical any more", () => {
  const { open, clock, inbound, outbound, state, ended, registry } = scene(1_000_000);
  for (let i = 0; i < 40; i++) {
    open(i % 2 === 0 ? inbound : outbound, 1, false);
    clock.advance(20);
  }
  // Those that are there grow, as bodies do that nobody reads.
  state.otherBytes = 60_000_000;
  clock.advance(5_000);
  assert.ok(ended.length > 0 && ended.length < 20, `${ended.length} cut`);
  assert.ok(Math.min(...ended) >= 20, "the oldest are served on");
  assert.ok(state.otherBytes + state.alive * 1_000_000 < 0.92 * LIMIT_BYTES);
  assert.match(registry.render(), /pillion_memory_ended_connections_total\{which="newest"\} \d/);
});

test("memory that is only not given back yet refuses nobody", () => {
  const { open, clock, inbound, state, said } = scene(10_000);
  open(inbound, 1, false);
  state.garbageBytes = 95_000_000;
  clock.advance(200);
  assert.equal(state.givenBack, 1);
  assert.ok(open(inbound, 1, false));
  assert.deepEqual(said, []);
});

test("looks no more once the last connection is gone", () => {
  const { open, clock, inbound, state } = scene(10_000);
  open(inbound, 0, true);
  inbound.cutNewest(1);
  clock.advance(200);
  state.garbageBytes = 99_000_000;
  clock.advance(60_000);
  assert.equal(state.givenBack, 0);
});

test("a limit that leaves no room without a connection is named at the start, one that does is not", () => {
  assert.match(
    scene(0, LIMIT_BYTES, 80_000_000).said.join("\n"),
    /too low.* raise config\.linkerd\.io\/proxy-memory-limit/,
  );
  assert.deepEqual(scene(0, LIMIT_BYTES, 60_000_000).said, []);
});

test("past the critical share most of the time is still for serving, however long it takes to give memory back", () => {
  const { open, clock, state, inbound } = scene(10_000);
  open(inbound, 1, false);
  state.otherBytes = 95_000_000;
  state.giveBackMs = 100;
  for (let ms = 0; ms < 10_000; ms += 10) {
    open(inbound, 1, false);
    clock.advance(10);
  }
  // It stood still for a tenth of a second each time, and served for half a second in between.
  assert.ok(state.givenBack >= 15 && state.givenBack <= 21, `${state.givenBack} times in 10 s of serving`);
});
