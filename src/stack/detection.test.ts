import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "#/base/conn.ts";
import { ConnError } from "#/base/errors.ts";
import { detectHttp } from "#/wire/detect.ts";
import { detect, type Detected, type Dialled } from "./detection.ts";
import { ManualClock, memoryPair, type MemoryConn } from "./http/testing.ts";

/** One detection, from the client's first byte to its outcome. */
class Rig {
  readonly clock = new ManualClock();
  readonly app: MemoryConn;
  readonly server: MemoryConn;
  dials = 0;
  cancelled = 0;
  released = 0;
  outcome: Detected<Dialled> | null = null;
  readonly #client: MemoryConn;
  readonly #near: MemoryConn;

  constructor(options: { patienceMs?: number; mayDial?: boolean; dialError?: ConnError } = {}) {
    [this.app, this.#client] = memoryPair(this.clock);
    [this.#near, this.server] = memoryPair(this.clock);
    detect<Dialled>(
      {
        clock: this.clock,
        client: this.#client,
        patienceMs: options.patienceMs ?? 10,
        timeoutMs: 10_000,
        inspect: (bytes) => detectHttp(bytes),
        dial:
          options.mayDial === false
            ? null
            : (done) => {
                this.dials++;
                const timer = this.clock.after(1, () =>
                  done(
                    options.dialError ?? null,
                    options.dialError === undefined
                      ? { conn: this.#near, release: () => void this.released++ }
                      : null,
                  ),
                );
                return {
                  cancel: () => {
                    this.cancelled++;
                    timer.cancel();
                  },
                };
              },
      },
      (detected) => (this.outcome = detected),
    );
    this.clock.advance(0);
  }

  say(from: Conn, text: string): void {
    from.write(Buffer.from(text, "latin1"));
    this.clock.advance(0);
  }

  /** What the next handler of the client's connection is given. */
  rest(): string {
    let text = "";
    this.#client.resume();
    this.#client.setHandler({
      onData: (bytes) => void (text += Buffer.from(bytes).toString("latin1")),
      onEnd: () => undefined,
      onDrain: () => undefined,
      onClose: () => undefined,
    });
    this.clock.advance(0);
    return text;
  }

  expect(kind: string, decidedBy: string, isDialled: boolean): void {
    assert(this.outcome !== null && "dialled" in this.outcome, `outcome: ${this.outcome?.kind}`);
    assert.deepEqual(
      [this.outcome.kind, this.outcome.decidedBy, this.outcome.dialled !== null],
      [kind, decidedBy, isDialled],
    );
  }
}

test("a client that speaks at once decides alone, and its bytes are all still there", () => {
  for (const [text, kind] of [
    ["GET / HTTP/1.1\r\n", "http1"],
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"],
    ["\x00\x01", "opaque"],
  ] as const) {
    const rig = new Rig();
    rig.say(rig.app, text.slice(0, 1));
    rig.say(rig.app, text.slice(1));
    rig.expect(kind, "client", false);
    assert.equal(rig.dials, 0);
    assert.equal(rig.rest(), text);
  }
});

test("a silent client's server is dialled after the patience, and a greeting decides", () => {
  const rig = new Rig();
  rig.clock.advance(9);
  assert.equal(rig.dials, 0);
  rig.clock.advance(3);
  assert.equal(rig.dials, 1);
  rig.say(rig.server, "220 mail\r\n");
  rig.expect("opaque", "server", true);
});

test("a server that is known to speak first is dialled at once", () => {
  const rig = new Rig({ patienceMs: 0 });
  rig.clock.advance(1);
  assert.equal(rig.dials, 1);
});

test("SETTINGS from the server decide nothing; the client's late bytes do, on the connection that is up (RFC 9113 §3.4)", () => {
  const rig = new Rig();
  rig.clock.advance(20);
  rig.say(rig.server, "\x00\x00\x00\x04\x00\x00\x00\x00\x00");
  assert.equal(rig.outcome, null);
  rig.say(rig.app, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  rig.expect("http2", "client", true);
});

test("a client that speaks while the server is being dialled cancels that", () => {
  const rig = new Rig();
  rig.clock.advance(10);
  assert.equal(rig.dials, 1);
  rig.say(rig.app, "GET / HTTP/1.1\r\n");
  rig.expect("http1", "client", false);
  assert.equal(rig.cancelled, 1);
});

test("a client that ends its half without a word waits for the server: opaque", () => {
  const rig = new Rig();
  rig.app.end();
  rig.clock.advance(0);
  rig.expect("opaque", "client", false);
});

test("where the server may not be reached yet, nothing is dialled, and time decides", () => {
  const rig = new Rig({ mayDial: false });
  rig.clock.advance(9_999);
  assert.equal(rig.outcome, null);
  rig.clock.advance(2);
  rig.expect("opaque", "timeout", false);
  assert.equal(rig.dials, 0);
});

test("half a request line stays undecided until the bound, then is opaque", () => {
  const rig = new Rig();
  rig.say(rig.app, "GE");
  rig.clock.advance(9_000);
  assert.equal(rig.outcome, null);
  rig.clock.advance(1_001);
  rig.expect("opaque", "timeout", true);
  assert.equal(rig.rest(), "GE");
});

test("a server that cannot be reached, and a client that goes away, are told", () => {
  const failing = new Rig({ dialError: new ConnError("CONNECT_REFUSED", "no") });
  failing.clock.advance(20);
  assert.equal(failing.outcome?.kind, "dial-failed");
  const leaving = new Rig();
  leaving.app.reset();
  leaving.clock.advance(1);
  assert.equal(leaving.outcome?.kind, "client-gone");
});

test("a connection that detection itself gives up counts as load no more", () => {
  const gone = new Rig();
  gone.clock.advance(20);
  assert.equal(gone.dials, 1);
  gone.app.reset();
  gone.clock.advance(0);
  assert.equal(gone.outcome?.kind, "client-gone");
  assert.equal(gone.released, 1);
  const failed = new Rig();
  failed.clock.advance(20);
  failed.server.reset();
  failed.clock.advance(0);
  assert.equal(failed.outcome?.kind, "dial-failed");
  assert.equal(failed.released, 1);
  const decided = new Rig();
  decided.clock.advance(20);
  decided.say(decided.server, "220 hello");
  assert.equal(decided.outcome?.kind, "opaque");
  assert.equal(decided.released, 0, "it goes on");
});
