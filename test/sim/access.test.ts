/** Access through a real sidecar, by whoever would get round it: every way in, every trick that servers have fallen for. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { IpAddress } from "#/base/address.ts";
import type { Conn } from "#/base/conn.ts";
import { SeededRandom } from "#/base/random.ts";
import type { AccessPolicy, AccessRule } from "#/model/access.ts";
import type { Protocol } from "#/model/policy.ts";
import type { AccessObserver } from "#/stack/access/observer.ts";
import { accessOf, conditionOf, ruleOfAction } from "#/stack/access/testing.ts";
import type { RequestHead, ResponseHead } from "#/stack/http/exchange.ts";
import { ClientCarrier } from "#/stack/carrier/client-carrier.ts";
import { UNHEARD } from "#/stack/http/exchange.ts";
import { Http2Client } from "#/stack/http/http2-client.ts";
import { headOf } from "#/stack/route/testing.ts";
import {
  encodeTransportHeader,
  PILLION_ALPN,
  TRANSPORT_ALPN,
  type TransportHeader,
} from "#/wire/transport-header.ts";
import { clientHello, SimTransport } from "./memory-net.ts";
import { ALLOW_ALL, at, identityOf, SimMesh, type SimPod } from "./sim-mesh.ts";

const WEB_IP = "10.1.0.2";
const PORT = 80;
const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/** One end of a connection, and what came over it. */
interface Talk {
  readonly conn: Conn;
  readonly heard: string;
  /** "reset" where it was ended as an error. */
  readonly ended: "open" | "closed" | "reset";
  say(text: string): void;
}

class Scene {
  readonly mesh = new SimMesh(new SeededRandom(11));
  readonly web: SimPod;
  /** All bytes that the application got, and its connections. */
  heard = "";
  accepted: Conn[] = [];
  /** What it says to each request; "": nothing yet. */
  answer = OK;
  /** What it says before anybody has asked. */
  greeting = "";
  told: AccessObserver["decided"] = () => undefined;

  constructor(access: AccessPolicy, protocol: Protocol = "detect") {
    const accessObserver: AccessObserver = { decided: (...decided) => this.told(...decided) };
    this.web = this.mesh.pod("web", WEB_IP, { isMeshed: true, accessObserver });
    this.mesh.net.host("10.1.0.3");
    this.web.host.listen(PORT, (conn) => {
      this.accepted.push(conn);
      if (this.greeting !== "") conn.write(Buffer.from(this.greeting));
      let text = "";
      conn.setHandler({
        onData: (bytes) => {
          const piece = Buffer.from(bytes).toString("latin1");
          this.heard += piece;
          text += piece;
          for (let end = text.indexOf("\r\n\r\n"); end !== -1; end = text.indexOf("\r\n\r\n")) {
            text = text.slice(end + 4);
            if (this.answer !== "") conn.write(Buffer.from(this.answer));
          }
        },
        onEnd: () => conn.end(),
        onDrain: () => undefined,
        onClose: () => undefined,
      });
    });
    this.allow(access, protocol);
  }

  allow(access: AccessPolicy, protocol: Protocol = "detect"): void {
    this.mesh.control.port(PORT, { ...ALLOW_ALL, protocol, access });
    this.mesh.clock.run(100);
  }

  /** Request lines that the application got. */
  get requests(): string[] {
    return this.heard.split("\r\n").filter((line) => / HTTP\/1\.[01]$/.test(line));
  }

  #talk(conn: Conn): Talk {
    const talk = {
      conn,
      heard: "",
      ended: "open" as Talk["ended"],
      say: (text: string) => {
        conn.write(Buffer.from(text, "latin1"));
        this.mesh.clock.run(1_000);
      },
    };
    conn.setHandler({
      onData: (bytes) => void (talk.heard += Buffer.from(bytes).toString("latin1")),
      onEnd: () => {
        talk.ended = "closed";
        conn.end();
      },
      onDrain: () => undefined,
      onClose: (error) => {
        if (error !== null) talk.ended = "reset";
      },
    });
    conn.resume();
    return talk;
  }

  /** A client without a sidecar, to a port of the pod. */
  plain(first: string = "", port: number = PORT): Talk {
    let conn: Conn | null = null;
    this.mesh.net.hosts.get("10.1.0.3")?.connect(at(WEB_IP, port), 1_000, (_error, made) => (conn = made));
    this.mesh.clock.run(10);
    assert(conn !== null);
    const talk = this.#talk(conn);
    if (first !== "") talk.say(first);
    return talk;
  }

  /** A proven client that speaks to the sidecar's own port as it likes. */
  direct(name: string, header: TransportHeader, alpn: string = TRANSPORT_ALPN): Talk {
    const talk = this.#talk(this.secured(name, 4143, [alpn]));
    talk.conn.write(encodeTransportHeader(header));
    return talk;
  }

  /** A proven client of this project: a stream of a carrier to that address. */
  carried(name: string, to: string = `${WEB_IP}:${PORT}`): Talk {
    const conn = this.secured(name, 4143, [PILLION_ALPN]);
    conn.write(encodeTransportHeader({ port: 4143, name: null, protocol: null }));
    const events = { retired() {}, roomier() {}, closed() {} };
    const carrier = new ClientCarrier(conn, this.mesh.clock, {}, events);
    conn.resume();
    return this.#talk(carrier.open([":method", "CONNECT", ":authority", to]));
  }

  /** TLS with the sidecar, by a client that proves who it is. */
  secured(name: string, port: number, alpn: readonly string[]): Conn {
    const host = this.mesh.net.hosts.get("10.1.0.3");
    assert(host !== undefined);
    const transport = new SimTransport(this.mesh.net, host, { name: identityOf(name), flaw: null });
    let secured: Conn | null = null;
    host.connect(at(WEB_IP, port), 1_000, (_error, conn) => {
      assert(conn !== null);
      const to = {
        serverName: identityOf("web"),
        expected: identityOf("web"),
        alpn,
        timeoutMs: 1_000,
        isAnonymous: false,
      };
      transport.secureClient(conn, to, (_failure, result) => {
        secured = result?.conn ?? null;
        // Until somebody listens.
        secured?.pause();
      });
    });
    this.mesh.clock.run(100);
    assert(secured !== null, "no TLS");
    return secured;
  }

  /** HTTP/2 as a proven client. */
  http2(name: string): Http2Asker {
    const conn = this.secured(name, 4143, [TRANSPORT_ALPN]);
    conn.write(encodeTransportHeader(TO_HTTP2));
    return new Http2Asker(this.mesh, conn);
  }

  metric(name: string, label: string): number {
    let sum = 0;
    for (const line of this.web.registry.render().split("\n"))
      if (line.startsWith(`${name}{`) && line.includes(label))
        sum += Number(line.slice(line.lastIndexOf(" ")));
    return sum;
  }
}

class Http2Asker {
  readonly #mesh: SimMesh;
  readonly #client: Http2Client;

  constructor(mesh: SimMesh, conn: Conn) {
    this.#mesh = mesh;
    this.#client = new Http2Client(conn, mesh.clock, () => {}, { meshed: true });
    conn.resume();
  }

  /** "200", "403", or the code of the fault. Asks for one stream that may go on. */
  ask(head: RequestHead): { status: string; text: string } {
    const answer = { status: "", text: "" };
    this.#client.call(head, true, {
      ...UNHEARD,
      head: ({ status }: ResponseHead) => void (answer.status = String(status)),
      body: (bytes, start, stop) => void (answer.text += Buffer.from(bytes.subarray(start, stop)).toString()),
      fail: ({ code }) => void (answer.status += code),
    });
    this.#mesh.clock.run(1_000);
    return answer;
  }
}

const TO_HTTP2: TransportHeader = { port: PORT, name: null, protocol: "http2" };
const TO_HTTP1: TransportHeader = { port: PORT, name: null, protocol: "http1" };
const TO_OPAQUE: TransportHeader = { port: PORT, name: null, protocol: null };

/** A request that another sidecar carries over HTTP/2. */
function over2(path: string, more: Partial<RequestHead> = {}): RequestHead {
  return headOf(path, { authority: "web", fields: [], ...more });
}

function get(path: string, ...fields: readonly string[]): string {
  const lines = fields.some((field) => /^host:/i.test(field)) ? fields : ["Host: web", ...fields];
  return `GET ${path} HTTP/1.1\r\n${lines.map((line) => `${line}\r\n`).join("")}\r\n`;
}

const EVERYBODY = ruleOfAction("default", "all");
/** All but /admin, for all. */
const NO_ADMIN = accessOf([
  ruleOfAction("deny", "no-admin", { requests: [conditionOf(["/admin*"])] }),
  EVERYBODY,
]);
/** /public, and nothing else. */
const PUBLIC = accessOf([ruleOfAction("allow", "public", { requests: [conditionOf(["/public*"])] })]);
function only(account: string, more: Partial<AccessRule> = {}): AccessPolicy {
  const peer = {
    kind: "identity",
    trustDomain: "cluster.local",
    namespace: "sim",
    serviceAccount: account,
  } as const;
  return accessOf([
    ruleOfAction("allow", `only-${account}`, { sources: [{ peer, networks: null }], ...more }),
  ]);
}

const TRICKS = [
  ...[
    "/admin",
    "//admin",
    "/./admin",
    "/x/../admin",
    "/%61dmin",
    "/%61%64%6d%69%6e",
    "/public/../admin",
    "/public/%2e%2e/admin",
  ],
  ...[
    "/public/..%2fadmin",
    "/public%2f..%2fadmin",
    "/public/..%5cadmin",
    "/public\\..\\admin",
    "/public/..;/admin",
    "/public/..;x=y/admin",
  ],
  ...[
    "/public/%252e%252e/admin",
    "/public/..%252fadmin",
    "/public%00/../admin",
    "/public/.%00./admin",
    "/%c0%af/admin",
    "/public/%c0%ae%c0%ae/admin",
  ],
  ...[
    "/../admin",
    "/public/../../admin",
    "/public//../admin",
    "/admin%",
    "/admin%2",
    "/%2fadmin",
    "/%5cadmin",
    "/admin%0a",
    "/admin%20/..%2f.",
    "/public/../admin/..%2fadmin",
  ],
  ...[
    "/admin/",
    "/admin/x",
    "/admin?x=/public",
    "/./%61dmin/%2e",
    "http://web/admin",
    "http://web/public/../admin",
    "/admin#/public",
    "/x/..%c0%af../admin",
  ],
  ...[
    "/%u0061dmin",
    "/public/%2e%2e;/admin",
    "/public/.%2e/admin",
    "/..;/admin",
    "/;/../admin",
    "/public/..%3b/admin",
    "*/../admin",
  ],
];

test("attack: no way to write a path reaches what a rule refuses (CVE-2021-31920, CVE-2021-39206)", () => {
  for (const trick of TRICKS) {
    const one = new Scene(NO_ADMIN);
    const { heard } = one.plain(get(trick));
    assert.match(heard, /^HTTP\/1\.1 40[03] /, trick);
    assert.deepEqual(one.requests, [], trick);
  }
});

test("attack: no way to write a path makes one that is allowed of one that is not (CVE-2021-31920)", () => {
  for (const trick of TRICKS) {
    const one = new Scene(PUBLIC);
    assert.match(one.plain(get(trick)).heard, /^HTTP\/1\.1 40[03] /, trick);
    assert.deepEqual(one.requests, [], trick);
  }
});

test("the application gets the path that was checked, query and all; where no rule looks at paths, what came", () => {
  const one = new Scene(PUBLIC);
  one.plain(get("/x/%2e./public//%7eme/./a%3ab?q=%2F../"));
  assert.deepEqual(one.requests, ["GET /public/~me/a%3Ab?q=%2F../ HTTP/1.1"]);
  const other = new Scene(accessOf([EVERYBODY]));
  other.plain(get("/x/..%2f//a"));
  assert.deepEqual(other.requests, ["GET /x/..%2f//a HTTP/1.1"]);
});

test("an ambiguous path is answered 400 by its own code, and counted", () => {
  const one = new Scene(PUBLIC);
  const { heard } = one.plain(get("/public/..%2fadmin"));
  assert.match(heard, /^HTTP\/1\.1 400 /);
  assert.match(heard, /\(AMBIGUOUS_PATH\)/);
  assert.equal(one.metric("inbound_http_authz_deny_total", 'authz_name="ambiguous-path"'), 1);
});

test("attack: a host that is said twice, in other letters, with a port or beside the target gets round no rule about hosts", () => {
  const hosts = [{ kind: "exact", host: "admin.web" } as const];
  const one = new Scene(
    accessOf([ruleOfAction("deny", "no-admin", { requests: [conditionOf(null, { hosts })] }), EVERYBODY]),
  );
  const tries = [
    get("/", "Host: ADMIN.web"),
    get("/", "Host: admin.web:80"),
    get("/", "Host: admin.web."),
    get("/", "Host: admin.web.:443"),
    get("/", "Host: web", "Host: admin.web"),
    get("/", "Host: admin.web", "Host: web"),
    get("/", "Host: web, admin.web"),
    get("/", "Host: web@admin.web"),
    get("http://admin.web/", "Host: web"),
    get("http://web@admin.web/", "Host: web"),
    get("HTTP://Admin.Web:80", "Host: web"),
  ];
  for (const text of tries) assert.match(one.plain(text).heard, /^HTTP\/1\.1 40[03] /, text);
  assert.deepEqual(one.requests, []);
  // The target's own host is the one that counts, and the one that goes on (RFC 9112 §3.2.2).
  one.plain(get("http://web/", "Host: admin.web"));
  assert.equal(one.requests.length, 1);
  assert.doesNotMatch(one.heard, /admin/);
});

test("attack: :authority, :method, :path and :protocol of HTTP/2 get round no rule", () => {
  const rules = [
    ruleOfAction("deny", "no-admin", { requests: [conditionOf(["/admin*"], { methods: ["GET", "POST"] })] }),
    ruleOfAction("deny", "no-host", {
      requests: [conditionOf(null, { hosts: [{ kind: "exact", host: "admin.web" }] })],
    }),
    EVERYBODY,
  ];
  const one = new Scene(accessOf(rules));
  const tries: Record<string, [head: RequestHead, status: string]> = {
    "the path": [over2("/admin", { version: "2" }), "403"],
    "an escaped path": [over2("/%61dmin", { version: "2" }), "403"],
    "a path of two readings": [over2("/x/..%2fadmin", { version: "2" }), "400"],
    "a path said to have come over HTTP/1": [over2("//admin"), "403"],
    "the authority": [over2("/", { version: "2", authority: "Admin.Web:80" }), "403"],
    "a host beside it": [over2("/", { version: "2", fields: ["host", "admin.web"] }), "RESET"],
    "no authority, but a host": [
      over2("/", { version: "2", authority: "", fields: ["host", "admin.web"] }),
      "403",
    ],
    // RFC 8441 §5: an application of HTTP/1 gets it as a GET.
    "a WebSocket's opening": [
      over2("/admin", { version: "2", method: "CONNECT", upgrade: "websocket" }),
      "403",
    ],
  };
  for (const [what, [head, status]] of Object.entries(tries))
    assert.equal(one.http2("mallory").ask(head).status, status, what);
  assert.equal(one.accepted.length, 0);
  assert.equal(one.http2("mallory").ask(over2("/public")).status, "200");
});

test("attack: fields that name somebody do not make somebody (l5d-client-id, X-Forwarded-*)", () => {
  const one = new Scene(only("friend"));
  const forged = [
    `l5d-client-id: ${identityOf("friend")}`,
    `L5D-Client-Id: ${identityOf("friend")}`,
    "X-Forwarded-For: 127.0.0.1",
    "Forwarded: for=127.0.0.1",
    "X-Real-IP: 127.0.0.1",
    `X-Forwarded-Client-Cert: URI=spiffe://cluster.local/ns/sim/sa/friend`,
    "l5d-orig-proto: HTTP/1.1",
  ];
  assert.match(one.plain(get("/", ...forged)).heard, /^HTTP\/1\.1 403 /);
  const mallory = one.direct("mallory", TO_HTTP1);
  mallory.say(get("/", ...forged));
  assert.match(mallory.heard, /^HTTP\/1\.1 403 /);
  const friend = one.direct("friend", TO_HTTP1);
  friend.say(get("/"));
  assert.match(friend.heard, /^HTTP\/1\.1 200 /);
  assert.equal(one.requests.length, 1);
});

test("attack: a rule about the client's name in a field is not met by a field that the client wrote", () => {
  const headers = [{ name: "l5d-client-id", value: { kind: "exact", value: identityOf("friend") } } as const];
  const one = new Scene(
    accessOf([ruleOfAction("allow", "by-field", { requests: [conditionOf(null, { headers })] })]),
  );
  assert.match(one.plain(get("/", `l5d-client-id: ${identityOf("friend")}`)).heard, /^HTTP\/1\.1 403 /);
  const mallory = one.direct("mallory", TO_HTTP1);
  mallory.say(get("/", `l5d-client-id: ${identityOf("friend")}`));
  assert.match(mallory.heard, /^HTTP\/1\.1 403 /);
});

test("attack: the sidecar's own port, the application's, TLS or none: the same rules", () => {
  const rules = [
    ruleOfAction("deny", "no-mallory", { sources: only("mallory").rules[0]!.sources }),
    ...only("friend").rules,
  ];
  const one = new Scene(accessOf(rules));
  const direct = one.direct("mallory", TO_HTTP1);
  direct.say(get("/"));
  assert.match(direct.heard, /^HTTP\/1\.1 403 /);
  assert.equal(one.http2("mallory").ask(over2("/")).status, "403");
  for (const opaque of [
    one.direct("mallory", TO_OPAQUE),
    one.direct("mallory", TO_OPAQUE, PILLION_ALPN),
    one.carried("mallory"),
    // Whatever address is asked for, it is a port of this pod.
    one.carried("mallory", `127.0.0.1:${PORT}`),
    one.carried("mallory", `10.1.0.99:${PORT}`),
    one.carried("friend", `${WEB_IP}:4143`),
    one.carried("friend", `localhost:${PORT}`),
  ]) {
    opaque.say("hello");
    assert.notEqual(opaque.ended, "open");
  }
  const redirected = one.secured("mallory", PORT, []);
  let answer = "";
  redirected.setHandler({
    onData: (bytes) => void (answer += Buffer.from(bytes).toString()),
    onEnd() {},
    onDrain() {},
    onClose() {},
  });
  redirected.resume();
  redirected.write(Buffer.from(get("/")));
  one.mesh.clock.run(1_000);
  assert.match(answer, /^HTTP\/1\.1 403 /);
  assert.match(one.plain(get("/")).heard, /^HTTP\/1\.1 403 /);
  assert.equal(one.plain("hello\r\n\r\n").ended, "reset");
  assert.equal(one.plain("hello\r\n\r\n", 4143).ended, "reset");
  assert.equal(one.accepted.length, 0, "the application was never reached");
});

test("attack: what looks like no request gets round no rule about requests", () => {
  const rules: Record<string, AccessPolicy> = { NO_ADMIN, PUBLIC };
  for (const [name, policy] of Object.entries(rules)) {
    const one = new Scene(policy);
    const admin = get("/admin");
    const tries: Record<string, () => Talk> = {
      "announced as opaque": () => one.direct("mallory", TO_OPAQUE),
      "a stream of a carrier": () => one.carried("mallory"),
      "bytes before the request": () => one.plain(`\r\n\0${admin}`),
      "a line that is no request": () => one.plain(`x\r\n${admin}`),
      "a method that nobody knows, broken": () => one.plain(`G\tET /admin HTTP/1.1\r\n\r\n`),
      "HTTP/0.9": () => one.plain("GET /admin\r\n\r\n"),
      "TLS of the workload's own": () =>
        one.plain(Buffer.from(clientHello("elsewhere", [])).toString("latin1")),
      "half a ClientHello": () => one.plain("\x16\x03\x01\x02\x00\x01"),
      silence: () => one.plain(),
      "the preface, broken": () => one.plain("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\x00"),
    };
    for (const [what, attempt] of Object.entries(tries)) {
      const talk = attempt();
      talk.say(admin);
      one.mesh.clock.run(20_000);
      assert.doesNotMatch(talk.heard, /^HTTP\/1\.1 2/, `${name}: ${what}`);
      assert.equal(one.heard, "", `${name}: ${what}`);
      assert.equal(one.accepted.length, 0, `${name}: ${what}`);
    }
  }
});

test("attack: a client that may not use a port opaquely hears no greeting of its application", () => {
  const one = new Scene(PUBLIC);
  one.greeting = "220 secret banner\r\n";
  const talk = one.plain();
  one.mesh.clock.run(20_000);
  assert.equal(talk.heard, "");
  assert.equal(one.accepted.length, 0);
});

test("attack: an upgrade to HTTP/2, or what follows a declined one, is no way past the rules (CVE-2022-41721)", () => {
  const one = new Scene(NO_ADMIN);
  one.plain(
    `${get("/public", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")}`,
  );
  assert.equal(one.requests.length, 1);
  assert.doesNotMatch(one.heard, /upgrade|h2c/i);
  const talk = one.plain(`${get("/chat", "Connection: Upgrade", "Upgrade: websocket")}${get("/admin")}`);
  assert.match(talk.heard, /^HTTP\/1\.1 200 [\s\S]*HTTP\/1\.1 403 /);
  assert.deepEqual(one.requests, ["GET /public HTTP/1.1", "GET /chat HTTP/1.1"]);
});

test("attack: requests behind one that was allowed, on the same connection, are decided each for itself", () => {
  const one = new Scene(PUBLIC);
  const body = `POST /public HTTP/1.1\r\nHost: web\r\nContent-Length: ${get("/admin").length}\r\n\r\n${get("/admin")}`;
  const talk = one.plain(`${get("/public")}${get("/admin")}${body}${get("/public/2")}`);
  assert.deepEqual(talk.heard.match(/HTTP\/1\.1 \d+/g), [
    "HTTP/1.1 200",
    "HTTP/1.1 403",
    "HTTP/1.1 200",
    "HTTP/1.1 200",
  ]);
  assert.equal(one.metric("inbound_http_authz_allow_total", 'authz_name="public"'), 3);
  assert.equal(one.metric("inbound_http_authz_deny_total", 'authz_name="deny"'), 1);
});

// --- when the policy changes ---------------------------------------------------------------------------------------

test("attack: a connection from before a policy gets the next request decided by it, HTTP/1 and HTTP/2", () => {
  const one = new Scene(accessOf([EVERYBODY]));
  const http1 = one.direct("mallory", TO_HTTP1);
  const http2 = one.http2("mallory");
  const plain = one.plain(get("/admin"));
  http1.say(get("/admin"));
  assert.equal(http2.ask(over2("/admin")).status, "200");
  one.allow(NO_ADMIN);
  http1.say(get("/admin"));
  plain.say(get("/admin"));
  assert.deepEqual(http1.heard.match(/HTTP\/1\.1 \d+/g), ["HTTP/1.1 200", "HTTP/1.1 403"]);
  assert.deepEqual(plain.heard.match(/HTTP\/1\.1 \d+/g), ["HTTP/1.1 200", "HTTP/1.1 403"]);
  assert.equal(http2.ask(over2("/admin")).status, "403");
  assert.equal(http2.ask(over2("/public")).status, "200");
  assert.equal(one.requests.length, 4);
});

test("a request that waits for its answer when policy takes its permission is answered 403, and given up at the application", () => {
  const one = new Scene(accessOf([EVERYBODY]));
  one.answer = "";
  const http1 = one.direct("mallory", TO_HTTP1);
  http1.say(get("/admin"));
  const http2 = one.http2("mallory");
  const admin = http2.ask(over2("/admin"));
  const open = http2.ask(over2("/public"));
  assert.equal(one.requests.length, 3);
  one.allow(NO_ADMIN);
  one.mesh.clock.run(1_000);
  assert.match(http1.heard, /^HTTP\/1\.1 403 /);
  assert.match(http1.heard, /the policy changed/);
  assert.equal(admin.status, "403");
  assert.equal(open.status, "", "what is still allowed goes on");
});

test("an answer under way when policy takes its permission is cut, so that nobody takes it for complete", () => {
  const one = new Scene(accessOf([EVERYBODY]));
  one.answer = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
  const http1 = one.direct("mallory", TO_HTTP1);
  http1.say(get("/admin"));
  const http2 = one.http2("mallory");
  const admin = http2.ask(over2("/admin"));
  const open = http2.ask(over2("/public"));
  assert.match(http1.heard, /half$/);
  assert.equal(admin.text, "half");
  one.allow(NO_ADMIN);
  one.mesh.clock.run(1_000);
  assert.equal(http1.ended, "reset");
  assert.equal(admin.status, "200RESET");
  assert.equal(open.status, "200", "what is still allowed goes on");
});

test("an upgraded connection is cut when policy takes its permission", () => {
  const one = new Scene(accessOf([EVERYBODY]));
  one.answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
  const talk = one.plain(get("/admin/chat", "Connection: Upgrade", "Upgrade: websocket"));
  assert.match(talk.heard, /^HTTP\/1\.1 101 /);
  talk.say("frames");
  assert.equal(talk.ended, "open");
  one.allow(NO_ADMIN);
  one.mesh.clock.run(1_000);
  assert.equal(talk.ended, "reset");
});

test("an opaque connection is reset when policy takes its permission, or gets a rule about requests", () => {
  for (const next of [accessOf([]), NO_ADMIN]) {
    const one = new Scene(accessOf([EVERYBODY]), "opaque");
    const talk = one.plain("hello");
    assert.equal(one.heard, "hello");
    const carried = one.carried("friend");
    carried.say("hello");
    assert.equal(one.heard, "hellohello");
    one.allow(next, "opaque");
    one.mesh.clock.run(1_000);
    assert.deepEqual([talk.ended, carried.ended], ["reset", "reset"]);
    assert.equal(one.metric("inbound_tcp_authz_terminate_total", 'tls="no_identity"'), 1);
    assert.equal(one.metric("inbound_tcp_authz_terminate_total", 'tls="true"'), 1);
  }
});

test("an opaque connection that goes on being allowed goes on", () => {
  const one = new Scene(accessOf([EVERYBODY]), "opaque");
  const talk = one.plain("hello");
  one.allow(accessOf([ruleOfAction("allow", "all")]), "opaque");
  talk.say(", world");
  assert.equal(one.heard, "hello, world");
  assert.equal(talk.ended, "open");
});

// --- what can be seen ------------------------------------------------------------------------------------------------

test("decisions are counted by rule, and what a policy in audit mode would do beside it", () => {
  const rules = [
    ruleOfAction("deny", "soon", { stage: "proposed", requests: [conditionOf(["/admin*"])] }),
    ruleOfAction("audit", "watch", { requests: [conditionOf(null, { methods: ["GET"] })] }),
    EVERYBODY,
  ];
  const one = new Scene(accessOf(rules));
  const talk = one.direct("mallory", TO_HTTP1);
  talk.say(get("/admin"));
  talk.say(get("/a%2fb"));
  talk.say(get("/public"));
  assert.deepEqual(one.requests, ["GET /admin HTTP/1.1", "GET /a%2fb HTTP/1.1", "GET /public HTTP/1.1"]);
  assert.equal(one.metric("inbound_http_authz_allow_total", `client_id="${identityOf("mallory")}"`), 3);
  const would = "pillion_inbound_authz_would_total";
  assert.equal(one.metric(would, 'verdict="would_deny"'), 2);
  assert.equal(one.metric(would, 'authz_name="soon"'), 1);
  assert.equal(one.metric(would, 'verdict="audit"'), 3);
});

test("what is refused names the rule to the client", () => {
  const one = new Scene(NO_ADMIN);
  assert.match(
    one.plain(get("/admin")).heard,
    /refused by AuthorizationPolicy\/shop\/no-admin \[AuthorizationPolicy\/shop\/no-admin\]/,
  );
});

test("a connection for a client that is slow to begin is not refused while it is silent, where requests may be allowed", () => {
  for (const isCarried of [false, true]) slowToBegin(isCarried);
});

function slowToBegin(isCarried: boolean): void {
  const scene = new Scene(PUBLIC);
  const told: string[] = [];
  scene.told = (decision) => void told.push(decision.verdict);
  scene.greeting = "220 hello\r\n";
  const open = (): Talk => (isCarried ? scene.carried("friend") : scene.direct("friend", TO_OPAQUE));
  // Dropped unused, as another sidecar does once a request comes.
  const unused = open();
  scene.mesh.clock.run(2_000);
  assert.deepEqual([unused.heard, unused.ended, scene.accepted.length], ["", "open", 0]);
  unused.conn.reset();
  scene.mesh.clock.run(1_000);
  assert.deepEqual(told, []);
  // Whoever says a word, or nothing for too long, is refused all the same.
  const talker = open();
  talker.say(get("/public"));
  assert.deepEqual([talker.heard, talker.ended], ["", "reset"]);
  const mute = open();
  scene.mesh.clock.run(20_000);
  assert.equal(mute.ended, "reset");
  assert.deepEqual([told, scene.heard, scene.accepted.length], [["denied", "denied"], "", 0]);
  // Of whom no request is allowed either, at once.
  scene.allow(only("somebody-else"));
  const nobody = open();
  scene.mesh.clock.run(100);
  assert.equal(nobody.ended, "reset");
}

test("an opaque connection that says nothing is not told of", () => {
  const scene = new Scene(accessOf([EVERYBODY]));
  const told: string[] = [];
  scene.told = (decision) => void told.push(decision.verdict);
  const talk = scene.direct("friend", TO_OPAQUE);
  scene.mesh.clock.run(1_000);
  assert.deepEqual([scene.accepted.length, told], [1, []]);
  talk.say("PING");
  talk.say("PING");
  assert.deepEqual(told, ["allowed"]);
});

test("an observer is told of each decision once, requests and connections", () => {
  const told: string[] = [];
  const one = new Scene(NO_ADMIN);
  one.told = (decision, port, client, peer, head) => {
    assert.equal(client.ip, "10.1.0.3" as IpAddress);
    told.push(`${decision.verdict} ${port} ${peer?.identity.serviceAccount ?? "-"} ${head?.path ?? "-"}`);
  };
  one.plain(get("/x/../admin"));
  one.http2("friend").ask(over2("/public"));
  one.direct("mallory", TO_OPAQUE).say("x");
  assert.deepEqual(told, ["denied 80 - /x/../admin", "allowed 80 friend /public", "denied 80 mallory -"]);
});
