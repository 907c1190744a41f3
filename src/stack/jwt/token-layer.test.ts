import assert from "node:assert/strict";
import { test } from "node:test";
import type { IpAddress } from "#/base/address.ts";
import type { Fields } from "#/base/fields.ts";
import type { AccessPolicy, Claims, JwtIssuer, JwtPolicy, RequestCondition } from "#/model/access.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import type { ClaimedService } from "../access/claimed-service.ts";
import { accessOf, ACCESS_OF_ALL, ruleOfAction } from "../access/testing.ts";
import type { RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import type { Fault } from "../http/fault.ts";
import { ManualClock, RecordingReply, ScriptedCall } from "../http/testing.ts";
import { asksForTokens, needsOf, PortTokens } from "./port-tokens.ts";
import { RememberedTokens } from "./remembered-tokens.ts";
import { TokenLayer } from "./token-layer.ts";
import type { TokenVerdict } from "./token-verifier.ts";

const SOURCE = {
  group: "pillion.dev",
  kind: "JwtPolicy",
  namespace: "shop",
  name: "users",
  section: "",
  port: 0,
};
const ANY: RequestCondition = { methods: null, paths: null, hosts: null, headers: [], query: [], claims: [] };
const ISSUER: JwtIssuer = {
  issuer: "https://login.test",
  audiences: [],
  jwks: "{}",
  leewayMs: 60_000,
  headers: ["authorization"],
  forwards: false,
  claimHeaders: [
    { claim: "sub", header: "x-user" },
    { claim: "realm.roles", header: "x-roles" },
  ],
};
/** What a checker makes of them; others are refused. */
const CLAIMS: Readonly<Record<string, Claims>> = {
  "good.a.b": { sub: "ada", realm: { roles: ["admin", "user"] } },
  "other.a.b": { sub: "bob", iss: "https://other.test" },
};

/** Authorization that writes down what reaches it. */
class Inner implements ClaimedService {
  readonly calls: { readonly call: ScriptedCall; readonly claims: Claims | null }[] = [];
  readonly rechecked: { readonly fields: Fields; readonly claims: Claims | null }[] = [];
  refusal: Fault | null = null;

  call(head: RequestHead, last: boolean, reply: ResponseSink, claims: Claims | null): RequestSink {
    const call = new ScriptedCall(head, last, reply);
    this.calls.push({ call, claims });
    return call;
  }
  recheck({ fields }: RequestHead, claims: Claims | null): Fault | null {
    this.rechecked.push({ fields, claims });
    return this.refusal;
  }
}

class Scene {
  readonly clock = new ManualClock();
  readonly inner = new Inner();
  readonly refusals: string[] = [];
  asked = 0;
  /** Null: it takes for ever. */
  verdict: ((token: string) => TokenVerdict) | null = (token) => {
    const claims = CLAIMS[token];
    if (claims === undefined) return { kind: "refused", reason: "signature", detail: "it does not hold" };
    const issuer =
      this.issuers.find((each) => each.issuer === claims["iss"]) ?? (this.issuers[0] as JwtIssuer);
    return { kind: "verified", token: { issuer, claims, untilMs: this.clock.wallMs() + 60_000 } };
  };
  readonly issuers: readonly JwtIssuer[];
  readonly port: { readonly port: number; policy: InboundPolicy; subscribe: () => { cancel: () => void } };
  readonly layer: TokenLayer;

  constructor(
    required: JwtPolicy["required"],
    issuers: readonly JwtIssuer[] = [ISSUER],
    access: AccessPolicy = ACCESS_OF_ALL,
    client = "10.0.0.1",
  ) {
    this.issuers = issuers;
    const policy = {
      protocol: "detect",
      labels: {},
      limits: null,
      access,
      jwt: { source: SOURCE, issuers, required },
    } as const;
    this.port = { port: 80, policy, subscribe: () => ({ cancel: () => undefined }) };
    const verifier = new RememberedTokens(async (token) => {
      this.asked++;
      const { verdict } = this;
      return verdict === null ? await new Promise(() => undefined) : await Promise.resolve(verdict(token));
    }, this.clock);
    const context = {
      target: { ip: "10.0.0.2" as IpAddress, port: 80 },
      client: { ip: client as IpAddress, port: 4000 },
      peer: null,
      port: this.port,
      announced: false,
      spells: false,
      early: null,
    };
    this.layer = new TokenLayer(this.inner, context, {
      clock: this.clock,
      tokensOf: ({ policy: now }) =>
        asksForTokens(now) ? new PortTokens(now.jwt, needsOf(now), verifier) : null,
      refused: (_port, reason) => void this.refusals.push(reason),
    });
  }

  changeTo(change: Partial<JwtPolicy>): void {
    const { policy } = this.port;
    this.port.policy = { ...policy, jwt: { ...(policy.jwt as JwtPolicy), ...change } };
  }

  async ask(fields: Fields, path = "/", last = true): Promise<RecordingReply> {
    const reply = new RecordingReply();
    this.begin(fields, path, last, reply);
    await this.settle();
    return reply;
  }

  begin(fields: Fields, path: string, last: boolean, reply: ResponseSink): RequestSink {
    return this.layer.call(headOf(fields, path), last, reply);
  }

  async settle(): Promise<void> {
    for (let i = 0; i < 5; i++) await Promise.resolve();
    this.clock.settle();
  }

  get fieldsPassed(): Fields | undefined {
    return this.inner.calls.at(-1)?.call.head.fields;
  }
}

function headOf(fields: Fields, path = "/"): RequestHead {
  return {
    method: "GET",
    scheme: "http",
    authority: "web",
    path,
    version: "1.1",
    absoluteForm: false,
    upgrade: null,
    fields,
  };
}

const GOOD = ["Authorization", "Bearer good.a.b"];

test("a good token is taken off, its claims are told, and go along to authorization", async () => {
  const scene = new Scene([]);
  await scene.ask([...GOOD, "x-other", "1"]);
  assert.deepEqual(scene.fieldsPassed, ["x-other", "1", "x-user", "ada", "x-roles", "admin,user"]);
  assert.equal(scene.inner.calls[0]?.claims, CLAIMS["good.a.b"]);
  await scene.ask(GOOD);
  assert.equal(scene.asked, 1, "it is remembered");
});

test("a token that was verified is taken at once, in the same turn, and not beyond its end", async () => {
  const scene = new Scene([]);
  await scene.ask(GOOD);
  scene.begin(GOOD, "/", true, new RecordingReply());
  assert.equal(scene.inner.calls.length, 2);
  scene.clock.advance(60_000);
  scene.begin(GOOD, "/", true, new RecordingReply());
  assert.equal(scene.inner.calls.length, 2);
  await scene.settle();
  assert.equal(scene.asked, 2);
});

test("without a token: refused where one is required, else passed without claims (RFC 6750 §3.1)", async () => {
  const required = new Scene([]);
  const { fault } = await required.ask(["authorization", "Basic YTpi"]);
  assert.equal(fault?.code, "TOKEN_MISSING");
  assert.deepEqual(fault?.answerFields, ["www-authenticate", 'Bearer realm="mesh"']);
  assert.deepEqual([required.inner.calls.length, required.refusals], [0, ["missing"]]);
  const optional = new Scene(null);
  await optional.ask(["authorization", "Basic YTpi"]);
  assert.deepEqual(optional.fieldsPassed, ["authorization", "Basic YTpi"]);
  assert.equal(optional.inner.calls[0]?.claims, null);
});

test("a token that is not good is refused, whether or not one is required, and says what of it (RFC 6750 §3.1)", async () => {
  for (const required of [null, []]) {
    const scene = new Scene(required);
    const { fault } = await scene.ask(["authorization", "Bearer bad.a.b"]);
    assert.equal(fault?.code, "TOKEN_INVALID");
    assert.match(
      fault?.answerFields?.[1] ?? "",
      /^Bearer realm="mesh", error="invalid_token", error_description="[^"\\]+"$/,
    );
    assert.deepEqual([scene.inner.calls.length, scene.refusals], [0, ["signature"]]);
    await scene.ask(["authorization", "Bearer bad.a.b"]);
    assert.equal(scene.asked, 2, "only good ones are remembered");
  }
});

test("more than one token, in one header or several, is refused, and so is what only looks like one", async () => {
  const issuers = [{ ...ISSUER, headers: ["authorization", "x-token"] }];
  for (const fields of [
    [...GOOD, ...GOOD],
    [...GOOD, "authorization", "Basic YTpi"],
    ["authorization", "Basic YTpi", ...GOOD],
    [...GOOD, "X-Token", "good.a.b"],
    ["authorization", "Bearer good.a.b, Bearer good.a.b"],
    ["authorization", "Bearer good.a.b good.a.b"],
    ["authorization", "Bearer"],
    ["authorization", "bearer good.a"],
    ["authorization", "Bearer good.a.b.c"],
    ["authorization", "Bearer good..b"],
    ["x-token", ""],
    ["x-token", `${"a".repeat(9_000)}.b.c`],
  ]) {
    const scene = new Scene(null, issuers);
    assert.equal((await scene.ask(fields)).fault?.code, "TOKEN_INVALID", fields.join("|").slice(0, 80));
    assert.equal(scene.asked, 0);
  }
  const scene = new Scene([], issuers);
  await scene.ask(["x-token", " good.a.b"]);
  assert.equal(scene.inner.calls.length, 1);
});

test("a token is taken only from where its issuer's tokens are looked for", async () => {
  const other = { ...ISSUER, issuer: "https://other.test", headers: ["x-other"] };
  const scene = new Scene([], [ISSUER, other]);
  assert.equal((await scene.ask(["authorization", "Bearer other.a.b"])).fault?.code, "TOKEN_INVALID");
  await scene.ask(["x-other", "other.a.b"]);
  assert.deepEqual(scene.fieldsPassed, ["x-user", "bob"]);
});

test("what the mesh says of tokens no client can say: with a token and without, spelled otherwise, in trailers", async () => {
  const spoofs = ["X-User", "root", "x_user", "root", "X-Roles", "admin", "x-user", "", "x-users", "kept"];
  const scene = new Scene(null);
  await scene.ask(spoofs);
  assert.deepEqual(scene.fieldsPassed, ["x-users", "kept"]);
  await scene.ask([...spoofs, ...GOOD]);
  assert.deepEqual(scene.fieldsPassed, ["x-users", "kept", "x-user", "ada", "x-roles", "admin,user"]);
  const sink = scene.begin([], "/", false, new RecordingReply());
  sink.end(["x-user", "root", "x-sum", "1"]);
  assert.deepEqual(scene.inner.calls.at(-1)?.call.trailers, ["x-sum", "1"]);
});

test("a token goes on where the policy says so", async () => {
  const scene = new Scene([], [{ ...ISSUER, forwards: true, claimHeaders: [] }]);
  await scene.ask(GOOD);
  assert.deepEqual(scene.fieldsPassed, GOOD);
});

test("what needs a token is told by paths in normal form, which is what goes on", async () => {
  const paths = [{ kind: "prefix", value: "/admin" }] as const;
  const scene = new Scene([{ ...ANY, paths }]);
  for (const path of ["/admin", "/admin/x", "/%61dmin", "/x/../admin", "//admin", "/./admin?q"])
    assert.equal((await scene.ask([], path)).fault?.code, "TOKEN_MISSING", path);
  for (const path of ["/admin%2Fx", "/x/..;/admin", "/%2561dmin"])
    assert.equal((await scene.ask([], path)).fault?.code, "AMBIGUOUS_PATH", path);
  await scene.ask([], "/x/%2e%2e/public?a=%2F");
  assert.equal(scene.inner.calls.at(-1)?.call.head.path, "/public?a=%2F");
});

test("loopback and the machine's probes need no token", async () => {
  const probe = ruleOfAction("exempt", "probe", {
    sources: [{ peer: { kind: "unauthenticated" }, networks: [{ net: "10.0.0.254/32", except: [] }] }],
    requests: [{ ...ANY, methods: ["GET"], paths: [{ kind: "exact", value: "/health" }] }],
  });
  const access = accessOf([probe, ...ACCESS_OF_ALL.rules]);
  const machine = new Scene([], [ISSUER], access, "10.0.0.254");
  await machine.ask([], "/health");
  assert.equal(machine.inner.calls.length, 1);
  assert.equal((await machine.ask([], "/other")).fault?.code, "TOKEN_MISSING");
  assert.equal((await new Scene([], [ISSUER], access).ask([], "/health")).fault?.code, "TOKEN_MISSING");
  const own = new Scene([], [ISSUER], access, "127.0.0.1");
  await own.ask(["x-user", "me"]);
  assert.deepEqual(own.fieldsPassed, ["x-user", "me"]);
});

test("a body waits for its token with back-pressure, and not for ever", async () => {
  const scene = new Scene([]);
  const { verdict } = scene;
  const reply = new RecordingReply();
  const sink = scene.begin(GOOD, "/", false, reply);
  sink.data(Buffer.from("hello"), 0, 5);
  sink.end(null);
  assert.equal(reply.requestConsumedBytes, 0);
  await scene.settle();
  const [first] = scene.inner.calls;
  assert.deepEqual([first?.call.body, first?.call.ended, reply.requestConsumedBytes], ["hello", true, 5]);

  scene.verdict = null;
  const late = new RecordingReply();
  scene.begin(["authorization", "Bearer slow.a.b"], "/", true, late);
  scene.clock.advance(5_000);
  assert.equal(late.fault?.code, "OVERLOADED");
  scene.verdict = verdict;
  await scene.settle();
  assert.equal(scene.inner.calls.length, 1);
});

test("a client that goes while its token is looked at leaves nothing behind", async () => {
  const scene = new Scene([]);
  const sink = scene.begin(GOOD, "/", false, new RecordingReply());
  sink.abort({ code: "CANCELLED" } as Fault);
  await scene.settle();
  assert.equal(scene.inner.calls.length, 0);
});

test("at most 256 new tokens are looked at at once, and each once", async () => {
  const scene = new Scene([]);
  scene.verdict = null;
  const replies = Array.from({ length: 300 }, (_, i) => {
    const reply = new RecordingReply();
    scene.begin(["authorization", `Bearer t${i}.a.b`], "/", true, reply);
    return reply;
  });
  scene.begin(["authorization", "Bearer t0.a.b"], "/", true, new RecordingReply());
  await scene.settle();
  assert.equal(scene.asked, 256);
  assert.equal(replies.filter(({ fault }) => fault?.code === "OVERLOADED").length, 44);
});

test("attack: a policy called as what allows the pod itself asks for tokens like any other", async () => {
  const scene = new Scene([]);
  scene.changeTo({ source: { ...SOURCE, name: "localhost" } });
  assert.equal((await scene.ask(["x-user", "root"])).fault?.code, "TOKEN_MISSING");
});

test("attack: a WebSocket that is opened over HTTP/2 needs the token that a GET needs (RFC 8441 §5)", () => {
  const scene = new Scene([{ ...ANY, methods: ["GET"] }]);
  const reply = new RecordingReply();
  const head = { ...headOf([]), method: "CONNECT", version: "2", upgrade: "websocket" } as const;
  scene.layer.call(head, false, reply);
  assert.equal(reply.fault?.code, "TOKEN_MISSING");
});

test("attack: what is under way by a token that has expired since is held against a new policy, with its claims and as it was passed on", async () => {
  const scene = new Scene([]);
  const fields = [...GOOD, "x-user", "root"];
  await scene.ask(fields);
  scene.clock.advance(120_000);
  const { refusal } = scene.inner;
  scene.inner.refusal = { code: "NOT_AUTHORIZED" } as Fault;
  assert.equal(scene.layer.recheck(headOf(fields))?.code, "NOT_AUTHORIZED");
  assert.deepEqual(scene.inner.rechecked, [
    { fields: ["x-user", "ada", "x-roles", "admin,user"], claims: CLAIMS["good.a.b"] },
  ]);
  scene.inner.refusal = refusal;
  assert.equal(scene.layer.recheck(headOf(fields)), null);
  scene.changeTo({ issuers: [{ ...ISSUER, issuer: "https://new.test" }] });
  assert.equal(scene.layer.recheck(headOf(fields))?.code, "TOKEN_INVALID");
});

test("attack: a token that was refused does not keep a later, equal request from being held against a new policy", async () => {
  const scene = new Scene(null);
  const fields = ["authorization", "Bearer bad.a.b"];
  assert.equal((await scene.ask(fields)).fault?.code, "TOKEN_INVALID");
  scene.port.policy = { ...scene.port.policy, jwt: null };
  await scene.ask(fields);
  scene.inner.refusal = { code: "NOT_AUTHORIZED" } as Fault;
  assert.equal(scene.layer.recheck(headOf(fields))?.code, "NOT_AUTHORIZED");
});

test("what is under way without a token ends where one is needed now, and else is held against the policy without claims", async () => {
  const scene = new Scene(null);
  const fields = ["x-user", "root"];
  await scene.ask(fields);
  assert.equal(scene.layer.recheck(headOf(fields)), null);
  assert.deepEqual(scene.inner.rechecked, [{ fields: [], claims: null }]);
  scene.changeTo({ required: [] });
  assert.equal(scene.layer.recheck(headOf(fields))?.code, "TOKEN_MISSING");
});

test("a request whose token is looked at while the policy changes goes by the new one", async () => {
  const scene = new Scene(null);
  const replies = [GOOD, [...GOOD]].map((fields) => {
    const reply = new RecordingReply();
    scene.begin(fields, "/", true, reply);
    return reply;
  });
  scene.changeTo({ issuers: [{ ...ISSUER, headers: ["x-token"] }], required: [] });
  assert.equal(scene.layer.recheck(headOf(GOOD)), null, "it is not let in yet");
  await scene.settle();
  assert.deepEqual(
    replies.map(({ fault }) => fault?.code),
    ["TOKEN_MISSING", "TOKEN_MISSING"],
  );
  assert.equal(scene.inner.calls.length, 0);
});

test("a port without a policy on tokens passes everything as it is, also once the policy is gone", async () => {
  const scene = new Scene([]);
  scene.port.policy = { ...scene.port.policy, jwt: null };
  const fields = ["authorization", "Bearer bad", "x-user", "root"];
  await scene.ask(fields, "/a%2Fb");
  assert.equal(scene.fieldsPassed, fields);
  assert.equal(scene.inner.calls[0]?.call.head.path, "/a%2Fb");
});

test("the tokens used last are remembered, within bounds in number and size", async () => {
  const scene = new Scene([]);
  const verifier = new RememberedTokens(
    async () =>
      await Promise.resolve({
        kind: "verified",
        token: { issuer: ISSUER, claims: {}, untilMs: scene.clock.wallMs() + 1_000 },
      }),
    scene.clock,
  );
  const verify = async (token: string): Promise<void> =>
    await new Promise((done) => void verifier.verify(token, () => done()));
  for (let i = 0; i < 1_024; i++) await verify(`t${i}`);
  assert.ok(verifier.known("t0"), "and so it is the last");
  await verify("new");
  assert.deepEqual([verifier.size, verifier.known("t1"), verifier.known("t0") !== null], [1_024, null, true]);
  for (let i = 0; i < 300; i++) await verify(`${i}${"x".repeat(8_000)}`);
  assert.ok(verifier.size <= 2_097_152 / 8_000, String(verifier.size));
});
