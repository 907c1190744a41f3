import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSocketAddress } from "#/base/address.ts";
import { SeededRandom } from "#/base/random.ts";
import type { EndpointSource } from "#/stack/discovery.ts";
import { Dispatch } from "#/stack/http/dispatch.ts";
import type { RequestHead } from "#/stack/http/exchange.ts";
import { fault } from "#/stack/http/fault.ts";
import { ManualClock, RecordingReply, ScriptedService } from "#/stack/http/testing.ts";
import { SharedDispatch } from "./shared-dispatch.ts";

const GET: RequestHead = {
  method: "GET",
  scheme: "http",
  authority: "web",
  path: "/",
  version: "2",
  absoluteForm: false,
  upgrade: null,
  fields: [],
};

const SOURCE: EndpointSource = {
  key: "test",
  state: "known",
  endpoints: ["10.0.0.1:80", "10.0.0.2:80"].map((address) => ({
    address: parseSocketAddress(address)!,
    weight: 1,
    identity: null,
    protocolHint: "unknown",
    tunnelPort: null,
    authorityOverride: null,
    labels: {},
  })),
  subscribe: () => ({ cancel: () => undefined }),
};

test("what nobody uses is dropped after half a minute, and what is used again is not", () => {
  const clock = new ManualClock();
  let drops = 0;
  const dispatch = new Dispatch({
    name: "web",
    source: SOURCE,
    clock,
    random: new SeededRandom(1),
    make: () => Object.assign(new ScriptedService(), { close: () => undefined }),
  });
  const shared = new SharedDispatch(dispatch, clock, () => drops++);
  shared.acquire();
  shared.release();
  clock.advance(20_000);
  shared.acquire();
  clock.advance(60_000);
  assert.equal(drops, 0);
  for (let i = 0; i < 10; i++) {
    shared.release();
    clock.advance(1_000);
    shared.acquire();
  }
  shared.release();
  assert.equal(clock.timersLeft, 1, "as many as it is left for another are not kept");
  clock.advance(29_999);
  assert.equal(drops, 0);
  clock.advance(1);
  assert.equal(drops, 1);
});

test("a request whose endpoint gives it back goes to another one, however long ago everybody else left", () => {
  const clock = new ManualClock();
  const service = new ScriptedService();
  let drops = 0;
  const dispatch = new Dispatch({
    name: "web",
    source: SOURCE,
    clock,
    random: new SeededRandom(1),
    make: () => Object.assign(service, { close: () => undefined }),
  });
  const shared = new SharedDispatch(dispatch, clock, () => drops++);
  shared.acquire();
  const reply = new RecordingReply();
  dispatch.call(GET, true, reply);
  shared.release();
  clock.advance(100_000);
  service.calls[0]!.reply.fail(fault("REFUSED", "not taken", { safe: true }));
  service.calls[1]!.answer(200, [], "");
  assert.equal(reply.status, 200);
  assert.equal(drops, 0);
  clock.advance(30_000);
  assert.equal(drops, 1);
});
