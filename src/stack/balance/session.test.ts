import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import type { SessionPersistence } from "#/model/traffic.ts";
import type { Balancer } from "./balancer.ts";
import { endpointId, makeToken, readToken } from "./session.ts";
import { balancerOf, endpoint, endpoints } from "./testing.ts";

const COOKIE: SessionPersistence = {
  kind: "cookie",
  name: "sid",
  absoluteTimeoutMs: null,
  isPermanent: false,
  path: "/shop",
};
const START_MS = 1_790_000_000_000;

interface Rig {
  readonly over: Balancer<string>;
  readonly clock: { wallMs: number };
  readonly persistence: SessionPersistence;
}

function rig(settings: Partial<SessionPersistence> = {}, count: number = 10): Rig {
  const clock = { wallMs: START_MS };
  const over = balancerOf(endpoints(count), {}, { wallMs: () => clock.wallMs });
  return { over, clock, persistence: { ...COOKIE, ...settings } };
}

/** A request's whole way: which endpoint, and what the answer sets. */
function ask(
  { over, persistence }: Pick<Rig, "over" | "persistence">,
  request: Fields,
  name: string = "set-cookie",
): { ip: string; set: string | null } {
  const member = over.pick(0, [], request, persistence)!;
  const answer = over.sessionBegun(request, ["content-length", "0"], member, persistence);
  return { ip: member.extra, set: answer === null ? null : fieldValue(answer, name) };
}

function cookieOf(set: string | null): Fields {
  return ["cookie", `theme=dark; ${set!.split(";")[0]}`];
}

test("a session begins with a cookie and stays with its endpoint; its answers set nothing more (GEP-1619)", () => {
  const all = rig();
  const first = ask(all, []);
  assert.match(first.set!, /^sid=[0-9a-f]+-[0-9a-f]{8}; Path=\/shop; HttpOnly$/);
  for (let i = 0; i < 30; i++) assert.deepEqual(ask(all, cookieOf(first.set)), { ip: first.ip, set: null });
});

test("another sidecar reads the token too", () => {
  const first = ask(rig(), []);
  const over = balancerOf([...endpoints(10)].reverse(), {}, { seed: 77, wallMs: () => START_MS });
  assert.equal(ask({ over, persistence: COOKIE }, cookieOf(first.set)).ip, first.ip);
});

test("a permanent cookie lasts as long as its session, which ends at its absolute timeout", () => {
  const all = rig({ isPermanent: true, absoluteTimeoutMs: 3_600_000 });
  const first = ask(all, []);
  assert.match(first.set!, /; Max-Age=3600$/);
  all.clock.wallMs += 3_599_000;
  assert.equal(ask(all, cookieOf(first.set)).set, null, "use does not lengthen it");
  all.clock.wallMs += 1_000;
  assert.notEqual(ask(all, cookieOf(first.set)).set, null);
});

test("a header carries a session as well", () => {
  const all = rig({ kind: "header", name: "X-Session" });
  const first = ask(all, [], "x-session");
  assert.ok(first.set !== null);
  for (let i = 0; i < 20; i++)
    assert.deepEqual(ask(all, ["x-session", first.set], "x-session"), { ip: first.ip, set: null });
});

test("when its endpoint is gone a session begins anew elsewhere; another pod at the address is not it", () => {
  const all = rig();
  const first = ask(all, []);
  const without = endpoints(10).filter(({ address }) => address.ip !== first.ip);
  all.over.update(without, 1);
  const second = ask(all, cookieOf(first.set));
  assert.notEqual(second.ip, first.ip);
  assert.ok(second.set !== null);
  all.over.update([...without, endpoint(first.ip, { labels: { pod: "another" } })], 2);
  const third = ask(all, cookieOf(first.set));
  assert.ok(third.set !== null);
});

test("rules that share endpoints have sessions of their own, and one without has none", () => {
  const one = rig();
  const other = { over: one.over, persistence: { ...COOKIE, name: "other" } };
  const [mine, theirs] = [ask(one, []), ask(other, [])];
  const both = [...cookieOf(mine.set), ...cookieOf(theirs.set)];
  for (let i = 0; i < 20; i++) {
    assert.deepEqual(ask(one, both), { ip: mine.ip, set: null });
    assert.deepEqual(ask(other, both), { ip: theirs.ip, set: null });
  }
  const ips = new Set(Array.from({ length: 100 }, () => one.over.pick(0, [], both)!.extra));
  assert.ok(ips.size > 2, "chance has it");
});

test("while its endpoint is set aside, or was tried, others serve a session, which it keeps", () => {
  const all = rig();
  const first = ask(all, []);
  const member = all.over.members.find(({ extra }) => extra === first.ip)!;
  const request = cookieOf(first.set);
  const other = all.over.pick(0, [member], request, all.persistence)!;
  assert.notEqual(other, member);
  assert.equal(all.over.sessionBegun(request, [], other, all.persistence), null);
  all.over.connectFailed(member, 0);
  const meanwhile = ask(all, request);
  assert.notEqual(meanwhile.ip, first.ip);
  assert.equal(meanwhile.set, null);
  all.over.observe(member, 5, false, 1);
  assert.equal(ask(all, request).ip, first.ip);
});

test("a session's request that must not go to its endpoint again leaves its next trial to others", () => {
  const all = rig();
  const { over, persistence } = all;
  const first = ask(all, []);
  const member = over.members.find(({ extra }) => extra === first.ip)!;
  over.connectFailed(member, 0);
  const dueMs = member.standing.untilMs;
  assert.notEqual(over.pick(dueMs, [member], cookieOf(first.set), persistence), member);
  assert.equal(over.pick(dueMs, [], cookieOf(first.set), persistence), member, "nobody tries it yet");
});

test("a change of endpoints, weights or algorithm leaves sessions where they are", () => {
  const all = rig();
  const first = ask(all, []);
  all.over.update(
    endpoints(30, (i) => ({ weight: 1_000 * (i + 1), labels: {} })),
    1,
  );
  assert.equal(ask(all, cookieOf(first.set)).ip, first.ip);
  all.over.configure(
    { ...all.over.traffic, balancing: { algorithm: "random", hashOn: [], boundedLoad: 0 } },
    2,
  );
  assert.equal(ask(all, cookieOf(first.set)).ip, first.ip);
});

test("whatever a client makes up, it reaches endpoints of the service alone", () => {
  const all = rig({}, 3);
  const known = new Set(all.over.members);
  const wellMade = fc
    .tuple(fc.stringMatching(/^[0-9a-f]{16}$/), fc.nat(4_000_000_000))
    .map(([id, startedAtS]) => makeToken({ id, startedAtS }, "sid"));
  fc.assert(
    fc.property(fc.oneof(fc.string(), wellMade), (token) => {
      const member = all.over.pick(0, [], ["cookie", `sid=${token}`], all.persistence);
      assert.ok(member !== null && known.has(member));
    }),
  );
});

test("a token reads back as it was made, and not when a character of it changed, or under another name", () => {
  fc.assert(
    fc.property(
      fc.stringMatching(/^[0-9a-f]{16}$/),
      fc.nat(4_000_000_000),
      fc.nat(),
      fc.constantFrom(...Array.from("0123456789abcdef-")),
      (id, startedAtS, at, replacement) => {
        const token = makeToken({ id, startedAtS }, "sid");
        assert.deepEqual(readToken(token, "sid"), { id, startedAtS });
        assert.equal(readToken(token, "other"), null);
        const place = at % token.length;
        const changed = token.slice(0, place) + replacement + token.slice(place + 1);
        if (changed !== token) assert.equal(readToken(changed, "sid"), null);
      },
    ),
  );
});

test("a token says nothing of addresses, and thousands of endpoints have ids of their own", () => {
  const over = balancerOf(endpoints(5_000));
  const ids = new Set(over.members.map(endpointId));
  assert.equal(ids.size, 5_000);
});

test("sessions from a future that clocks do not explain are nobody's", () => {
  const all = rig({ absoluteTimeoutMs: 1_000 });
  const id = endpointId(all.over.members[0]!);
  const at = (startedAtS: number): Fields => ["cookie", `sid=${makeToken({ id, startedAtS }, "sid")}`];
  assert.equal(ask(all, at(START_MS / 1000 + 200)).set, null);
  assert.notEqual(ask(all, at(START_MS / 1000 + 400)).set, null);
});
