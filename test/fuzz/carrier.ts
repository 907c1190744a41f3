import assert from "node:assert/strict";
import type { ConnHandler } from "#/base/conn.ts";
import { LIMITS } from "#/model/limits.ts";
import { ServerCarrier } from "#/stack/carrier/server-carrier.ts";
import { Guard } from "#/stack/http/guard.ts";
import { ManualClock, memoryPair } from "#/stack/http/testing.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { pipe } from "#/stack/pipe.ts";
import { HpackEncoder } from "#/wire/hpack/encoder.ts";
import { CLIENT_PREFACE, ErrorCode } from "#/wire/http2/frame.ts";
import { FrameWriter } from "#/wire/http2/frame-writer.ts";
import { framesOf, type FuzzMachine } from "./fuzz-machine.ts";

const SILENT: ConnHandler = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} };
const STREAMS_MAX = 256;

/** A carrier as a client of ours would write it. */
function talk(say: (writer: FrameWriter) => void): Uint8Array {
  const writer = new FrameWriter(new HpackEncoder({ tableBytesMax: 4096 }));
  writer.preface();
  writer.settings([]);
  say(writer);
  return writer.take() as Uint8Array;
}

const CONNECT = [":method", "CONNECT", ":authority", "10.0.0.2:5432"];

/** A far sidecar that has gone wild, before applications that echo, are silent, reset or end at once. Each stream is told its end once. */
export const carrier: FuzzMachine = {
  name: "carrier",
  hasTurns: true,
  seeds: () => [
    talk((writer) => {
      for (const id of [1, 3, 5, 7]) {
        writer.section(id, CONNECT, false);
        writer.data(id, Buffer.alloc(100 * id, "x"), 0, 100 * id, false);
      }
      writer.windowUpdate(1, 100);
      writer.data(1, Buffer.alloc(3), 0, 3, true);
      writer.reset(3, ErrorCode.CONNECT_ERROR);
      writer.ping(1, 2);
      writer.goAway(0, ErrorCode.NO_ERROR, "");
    }),
    talk((writer) => {
      writer.section(1, CONNECT, true);
      writer.section(3, [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"], false);
      writer.section(5, CONNECT, false);
      writer.section(5, ["x", "y"], true);
      writer.data(7, Buffer.alloc(70_000), 0, 70_000, false);
    }),
  ],
  parts: (bytes) => framesOf(bytes, CLIENT_PREFACE.length, 9, 0, 3),
  run(pieces) {
    const clock = new ManualClock();
    const [near, far] = memoryPair(clock);
    const guard = new Guard(LIMITS, "inbound", clock, new Registry());
    let opened = 0;
    let open = 0;
    let isOver = false;
    const server = new ServerCarrier(far, clock, guard, {
      opened: (stream) => {
        assert.ok(!isOver, "a stream after the end");
        const [app, program] = memoryPair(clock);
        assert.ok(++open <= STREAMS_MAX + opened, "streams out of nothing");
        const kind = opened++ % 4;
        if (kind === 0)
          program.setHandler({
            ...SILENT,
            onData: (bytes) => void program.write(bytes),
            onEnd: () => program.end(),
          });
        else program.setHandler(SILENT);
        if (kind === 1) program.reset();
        if (kind === 2) program.end();
        pipe(stream, app, () => open--);
      },
      refused: () => undefined,
      closed: () => (isOver = true),
    });
    near.setHandler(SILENT);
    for (const piece of pieces) {
      near.write(Uint8Array.from(piece));
      if (piece.length % 3 !== 0) clock.settle();
    }
    clock.advance(10_000);
    if (pieces.length % 2 === 0) server.drain();
    near.reset();
    clock.advance(100_000);
    assert.ok(isOver, "the carrier is over");
    // A program that is silent keeps its own half; its stream is over all the same.
    assert.equal(open, 0, "streams are left");
    return [`${opened} streams`];
  },
};
