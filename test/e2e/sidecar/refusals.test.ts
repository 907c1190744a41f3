import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { testCertificate, type TestCertificate } from "#/net/testing.ts";
import { readRefusalNote } from "#/wire/refusal-note.ts";
import { PILLION_ALPN } from "#/wire/transport-header.ts";
import { cannotRun, identityName, Mesh, until, type Pod } from "./rig/mesh.ts";
import type { WorkerContext } from "./rig/worker.ts";

const skip = cannotRun() ?? false;
const APP_PORT = 7000;
const CANARY = "canary-bytes-that-must-not-arrive";
const WELCOME = "\x00 welcome";
/** Whoever is refused sees the end of the connection, whoever is not the echo; only a failure waits for this. */
const PATIENCE_MS = 10_000;
/** `transport.l5d.io/v1` header for port 7000, opaque. */
const HEADER = Buffer.concat([
  Buffer.from("transport.l5d.io/v1\r\n\r\n"),
  Buffer.from([0, 0, 0, 3, 8, 0xd8, 0x36]),
]).toString("latin1");

interface Attempt {
  port: number;
  key: string;
  cert: string;
  serverName: string;
  alpn: string[];
  resume: boolean;
  say: string;
  /** Until so much has come back the connection is kept; else until it ends. */
  echo: string | null;
}

interface Outcome {
  handshaken: boolean;
  reused: boolean;
  received: string;
  error: string;
}

/** The application: keeps every byte that it gets, and echoes. */
function listen({ net, state }: WorkerContext, port: number): Promise<null> {
  state["got"] = "";
  const server = net.createServer((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (bytes) => {
      state["got"] = String(state["got"]) + bytes.toString("latin1");
      socket.write(bytes);
    });
  });
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

/** A TLS client of its own, that trusts anybody and says its piece as soon as it may. */
async function attack(
  { tls }: WorkerContext,
  host: string,
  attempt: Attempt,
  patienceMs: number,
): Promise<Outcome> {
  const { port, key, cert, serverName: servername, alpn: ALPNProtocols, say, echo } = attempt;
  const once = (
    toHost: string,
    toPort: number,
    session: Buffer | undefined,
    text: string,
  ): Promise<Outcome & { session: Buffer | undefined }> =>
    new Promise((resolve) => {
      const outcome: Outcome & { session: Buffer | undefined } = {
        handshaken: false,
        reused: false,
        received: "",
        error: "",
        session: undefined,
      };
      const socket = tls.connect({
        host: toHost,
        port: toPort,
        servername,
        rejectUnauthorized: false,
        minVersion: "TLSv1.3",
        ...(key === "" ? {} : { key, cert }),
        ...(ALPNProtocols.length === 0 || toHost === "127.0.0.1" ? {} : { ALPNProtocols }),
        ...(session === undefined ? {} : { session }),
      });
      socket.on("session", (bytes: Buffer) => (outcome.session = bytes));
      socket.on("secureConnect", () => {
        outcome.handshaken = true;
        outcome.reused = socket.isSessionReused();
        socket.write(text, "latin1");
      });
      socket.on("data", (bytes: Buffer) => {
        outcome.received += bytes.toString("latin1");
        if (outcome.received === echo) socket.destroy();
      });
      socket.on("error", (error: NodeJS.ErrnoException) => (outcome.error = error.code ?? error.message));
      const timer = setTimeout(() => socket.destroy(), patienceMs);
      socket.on("close", () => {
        clearTimeout(timer);
        resolve(outcome);
      });
    });
  let session: Buffer | undefined;
  if (attempt.resume) {
    // Ours gives out no session, so the one offered to it is another server's.
    const mine = tls.createServer({ key, cert }, (socket) => socket.on("error", () => undefined).end("x"));
    await new Promise<void>((done) => mine.listen(0, "127.0.0.1", () => done()));
    const own = mine.address() as { port: number };
    session = (await once("127.0.0.1", own.port, undefined, "")).session;
    mine.close();
    if (session === undefined) throw new Error("no session to offer");
  }
  const { session: _unused, ...outcome } = await once(host, port, session, say);
  return outcome;
}

describe("what no sidecar accepts", { skip }, () => {
  let mesh: Mesh;
  let server: Pod;
  let stranger: Pod;
  let good: { key: string; cert: string };
  before(async () => {
    mesh = await Mesh.start();
    server = await mesh.pod("server", { isMeshed: true, inboundPorts: [APP_PORT] });
    stranger = await mesh.pod("stranger", { isMeshed: false });
    await server.run(listen, APP_PORT);
    good = mesh.leaf("good", identityName("stranger"));
    mesh.selfSigned("other-root", "keyUsage=critical,keyCertSign");
  });
  after(() => mesh.close());

  const direct = (): Attempt => ({
    port: 4143,
    ...good,
    serverName: server.identity,
    alpn: ["transport.l5d.io/v1"],
    resume: false,
    say: HEADER + CANARY,
    echo: null,
  });
  const redirected = (): Attempt => ({
    port: APP_PORT,
    ...good,
    serverName: server.identity,
    alpn: [],
    resume: false,
    say: CANARY,
    echo: null,
  });

  test("accepts a proven peer on both ports (positive control)", async () => {
    for (const attempt of [direct(), redirected(), { ...redirected(), ...made({}) }]) {
      const welcomed = { ...attempt, say: attempt.say.replace(CANARY, WELCOME), echo: WELCOME };
      const { received } = await stranger.run(attack, server.ip, welcomed, PATIENCE_MS);
      assert.equal(received, WELCOME, `port ${attempt.port}`);
    }
  });

  const DNS = { kind: "dns", value: identityName("stranger") } as const;
  const URI = { kind: "uri", value: "spiffe://cluster.local/ns/test/sa/stranger" } as const;
  /** As the issuer of the mesh would have it, except for what is given. */
  const made = (says: TestCertificate): { key: string; cert: string } => {
    const certificate = new X509Certificate(mesh.text("root.pem"));
    const root = { certificate, key: createPrivateKey(mesh.text("root.key")), pem: "", keyPem: "" };
    const { keyPem, pem } = testCertificate({ names: [DNS, URI], keyUsage: [0], ...says }, root);
    return { key: keyPem, cert: pem };
  };

  const cases: readonly [name: string, reason: string, change: () => Partial<Attempt>][] = [
    [
      "a self-signed certificate",
      "self_signed",
      () => mesh.selfSigned("self", `subjectAltName=DNS:${identityName("stranger")}`),
    ],
    [
      "a certificate of another root",
      "unknown_issuer",
      () => mesh.leaf("other", identityName("stranger"), "other-root"),
    ],
    ["an expired certificate", "expired", () => mesh.leaf("expired", identityName("stranger"), "root", "0")],
    ["no certificate", "no_client_certificate", () => ({ key: "", cert: "" })],
    ["a certificate without a name", "unnamed_peer", () => mesh.leaf("unnamed", "example.org")],
    [
      "a foreign trust domain",
      "foreign_trust_domain",
      () => mesh.leaf("foreign", "a.b.serviceaccount.identity.pillion.elsewhere.example"),
    ],
    ["two URIs", "ambiguous_name", () => made({ names: [URI, { kind: "uri", value: `${URI.value}2` }] })],
    ["two DNS names", "ambiguous_name", () => made({ names: [DNS, DNS] })],
    [
      "a DNS name and a URI that disagree",
      "ambiguous_name",
      () => made({ names: [DNS, { kind: "uri", value: `${URI.value}2` }] }),
    ],
    ["a CA used as a leaf", "signing_certificate", () => made({ isAuthority: true, keyUsage: [0, 5] })],
    ["a foreign ALPN", "foreign_alpn", () => ({ alpn: ["h2"] })],
  ];
  for (const [name, reason, change] of cases) {
    test(`refuses ${name}, on the direct port and on a redirected one`, async () => {
      const difference = change();
      if (reason === "expired") await sleep(1100);
      for (const base of [direct(), redirected()]) await refused({ ...base, ...difference }, reason);
      if (reason === "foreign_alpn") return;
      // A client of ours is told: TLS 1.3 would have it know no more than that the connection broke.
      const ours = { ...direct(), ...difference, alpn: [PILLION_ALPN] };
      const { received } = await refusedWith(ours, reason);
      assert.equal(readRefusalNote(Buffer.from(received, "latin1"))?.reason, reason);
    });
  }

  test("refuses no ALPN on the direct port", () => refused({ ...direct(), alpn: [] }, "no_alpn"));
  test("refuses a wrong server name on the direct port", () =>
    refused({ ...direct(), serverName: identityName("somebody") }, "wrong_sni"));
  test("refuses a missing and a broken transport header", async () => {
    await refused({ ...direct(), say: `${CANARY} and more than a header has` }, "bad_transport_header");
  });
  test("refuses a transport header that names the direct port itself", () =>
    refused({ ...direct(), say: HEADER.replace("\xd8\x36", "\xaf\x20") + CANARY }, "loop"));

  test("on a redirected port another server name is the application's own TLS: nothing is decrypted for it", async () => {
    const attempt = { ...redirected(), serverName: identityName("somebody") };
    const { handshaken } = await stranger.run(attack, server.ip, attempt, PATIENCE_MS);
    assert.equal(handshaken, false);
    await nothingArrived();
  });

  test("refuses a session offered for resumption, and gives out none", async () => {
    for (const base of [direct(), redirected()]) await refused({ ...base, resume: true }, "resumed_session");
  });

  test("a handshake of ours that says nothing more is a proof, and no error", async () => {
    const errors = (): Promise<number> => server.metric(/^inbound_tcp_errors_total/);
    const before = await errors();
    const ended = await stranger.run(
      ({ tls }, host, { key, cert, serverName: servername }, alpn) =>
        new Promise<string>((done) => {
          const socket = tls.connect(
            { host, port: 4143, key, cert, servername, ALPNProtocols: [alpn], rejectUnauthorized: false },
            () => socket.end(),
          );
          socket.on("data", () => undefined);
          socket.on("end", () => done("end"));
          socket.on("error", (error: NodeJS.ErrnoException) => done(error.code ?? ""));
          socket.on("close", () => done("closed"));
        }),
      server.ip,
      direct(),
      PILLION_ALPN,
    );
    assert.equal(ended, "end");
    assert.equal(await errors(), before);
  });

  test("plaintext to the direct port is refused", async () => {
    const before = await count("not_tls");
    await stranger.run(
      ({ net }, host) =>
        new Promise((done) =>
          net
            .connect({ host, port: 4143 }, function (this: Socket) {
              this.write("GET / HTTP/1.1\r\n\r\n");
            })
            .on("error", () => undefined)
            .on("close", () => done(null)),
        ),
      server.ip,
    );
    await until(async () => (await count("not_tls")) === before + 1, "the refusal is counted");
  });

  test("what a client has sent that was gone before it was accepted does not arrive: no rule can tell whose it is", async () => {
    const before = await count("client_gone");
    const stopped = server.sidecar;
    stopped?.kill("SIGSTOP");
    try {
      await stranger.run(
        ({ net }, host, port, say) =>
          new Promise((done) =>
            net
              .connect({ host, port }, function (this: Socket) {
                this.write(say, () => this.resetAndDestroy());
              })
              .on("error", () => undefined)
              .on("close", () => done(null)),
          ),
        server.ip,
        APP_PORT,
        CANARY,
      );
    } finally {
      stopped?.kill("SIGCONT");
    }
    await until(async () => (await count("client_gone")) === before + 1, "it is counted");
    await nothingArrived();
  });

  async function refused(attempt: Attempt, reason: string): Promise<void> {
    const { received } = await refusedWith(attempt, reason);
    assert.equal(received, "");
  }

  /** Refused for this reason, in metric and log, and nothing has arrived at the application. */
  async function refusedWith(attempt: Attempt, reason: string): Promise<Outcome> {
    const logged = (): number => server.refusals().filter((one) => one === reason).length;
    const before = await count(reason);
    const loggedBefore = logged();
    const outcome = await stranger.run(attack, server.ip, attempt, PATIENCE_MS);
    await until(
      async () => (await count(reason)) === before + 1 && logged() > loggedBefore,
      `${reason} is counted and logged for port ${attempt.port}; logged: ${server.refusals().slice(-3).join(", ")}`,
    );
    assert.equal(logged(), loggedBefore + 1);
    await nothingArrived();
    return outcome;
  }

  const count = (reason: string): Promise<number> =>
    server.metric(new RegExp(`^inbound_tcp_errors_total.*error="${reason}"`));

  async function nothingArrived(): Promise<void> {
    const got = await server.run(({ state }) => String(state["got"]));
    assert.equal(got.includes(CANARY), false, "application bytes arrived");
  }
});
