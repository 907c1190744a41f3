import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { kindOfName } from "../hpack/field-kind.ts";
import { Event, Http2Connection } from "./connection.ts";
import { CLIENT_PREFACE } from "./frame.ts";
import { MessageRules, Section } from "./message-rules.ts";

/** Feeds `bytes` cut at `cuts`; says what happened, DATA joined, and what was sent. Consumes nothing. */
function hear(
  role: "client" | "server",
  bytes: Buffer,
  cuts: readonly number[],
): { events: string[]; sent: string } {
  const machine = new Http2Connection({
    role,
    maxConcurrentStreams: 5,
    headerBytesMax: 400,
    headerBlockBytesMax: 1000,
  });
  const events: string[] = [];
  const sent: Buffer[] = [];
  if (role === "client") {
    for (let i = 0; i < 3; i++)
      machine.request([":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"], true);
  }
  const drain = (): void => {
    for (let event = machine.next(); event !== Event.NOTHING; event = machine.next()) {
      const { streamId, endStream } = machine;
      if (event === Event.DATA) {
        const text = Buffer.from(machine.bytes.subarray(machine.start, machine.stop)).toString("hex");
        const head = `data ${streamId} `;
        if (events.at(-1)?.startsWith(head) === true && !events.at(-1)!.endsWith("end"))
          events[events.length - 1] += text;
        else events.push(head + text);
        if (endStream) events[events.length - 1] += " end";
      } else if (event === Event.ERROR) {
        events.push(`error ${machine.error!.code} ${machine.error!.message}`);
      } else if (event === Event.RESET) {
        events.push(`reset ${streamId} ${machine.errorCode} ${machine.reason}`);
      } else {
        events.push(`${event} ${streamId} ${machine.fields.join(",")} ${endStream}`);
      }
      assert.ok(events.length < 10_000);
      assert.ok(machine.activeStreams <= 5);
    }
    const out = machine.takeOutput();
    if (out !== null) sent.push(Buffer.from(out));
  };
  drain();
  let at = 0;
  for (const cut of [...cuts, bytes.length]) {
    const stop = Math.max(at, Math.min(cut, bytes.length));
    machine.feed(Uint8Array.from(bytes.subarray(at, stop)));
    at = stop;
    drain();
  }
  machine.end();
  drain();
  return { events, sent: Buffer.concat(sent).toString("hex") };
}

const frame = fc
  .tuple(
    fc.constantFrom(0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 200),
    fc.constantFrom(0, 1, 4, 5, 8, 9, 0x0d, 0x24, 0x25, 0xff),
    fc.constantFrom(0, 1, 3, 5, 5, 7, 9, 2),
    fc.oneof(
      fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
      fc
        .constantFrom(
          "82868441" + "0161",
          "88",
          "880f0d0131",
          "0001740131",
          "00000001",
          "0000000000000000",
          "8286",
          "844101" + "61",
        )
        .map((hex) => Buffer.from(hex, "hex")),
    ),
  )
  .map(([type, flags, streamId, payload]) => {
    const head = Buffer.alloc(9);
    head.writeUIntBE(payload.length, 0, 3);
    head[3] = type;
    head[4] = flags;
    head.writeUInt32BE(streamId, 5);
    return Buffer.concat([head, payload]);
  });
const SETTINGS = Buffer.from("000000040000000000", "hex");
const conversation = fc.record({
  role: fc.constantFrom("client" as const, "server" as const),
  frames: fc.array(frame, { maxLength: 25 }),
  rest: fc.uint8Array({ maxLength: 20 }),
});
const cuts = fc.array(fc.nat(1500), { maxLength: 40 }).map((places) => places.toSorted((a, b) => a - b));

test("any split gives the same events and the same answers", () => {
  fc.assert(
    fc.property(conversation, cuts, ({ role, frames, rest }, places) => {
      const opening = role === "server" ? [CLIENT_PREFACE, SETTINGS] : [SETTINGS];
      const bytes = Buffer.concat([...opening, ...frames, rest]);
      const whole = hear(role, bytes, []);
      assert.deepEqual(hear(role, bytes, places), whole);
      assert.deepEqual(
        hear(
          role,
          bytes,
          Array.from({ length: bytes.length }, (_, i) => i),
        ),
        whole,
      );
    }),
    { numRuns: 1500 },
  );
});

test("random bytes never throw", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (bytes, hasOpening) => {
      const opening = hasOpening ? [CLIENT_PREFACE, SETTINGS] : [];
      const { events } = hear("server", Buffer.concat([...opening, bytes]), []);
      assert.ok(events.length <= 300);
    }),
    { numRuns: 1500 },
  );
});

test("repeated content-length and host are refused even where they agree (RFC 9110 §8.6, RFC 9112 §3.2)", () => {
  for (const name of ["content-length", "host"]) {
    const rules = new MessageRules();
    const fields = [":method", "POST", ":scheme", "http", ":path", "/", name, "5", name, "5"];
    const kinds = Uint8Array.from({ length: fields.length / 2 }, (_, i) => kindOfName(fields[2 * i]!));
    assert.match(rules.check(Section.REQUEST, fields, kinds) ?? "", /^more than one /);
    assert.equal(rules.check(Section.REQUEST, fields.slice(0, -2), kinds), null);
  }
});
