import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { SeededRandom } from "#/base/random.ts";
import { Event, Http2Connection } from "./connection.ts";
import type { Http2Settings } from "./settings.ts";

/**
 * A client and a server joined by two pipes. Which side moves next, how bytes are cut, when bodies are written and when
 * they are consumed is all chance; every body must arrive exactly, and everything must end.
 */
class World {
  readonly random: SeededRandom;
  readonly client: Side;
  readonly server: Side;

  constructor(seed: number, client: Partial<Http2Settings>, server: Partial<Http2Settings>) {
    this.random = new SeededRandom(seed);
    this.client = new Side(new Http2Connection({ ...client, role: "client" }), this.random);
    this.server = new Side(new Http2Connection({ ...server, role: "server" }), this.random);
  }

  step(): void {
    const [from, to] = this.random.next() < 0.5 ? [this.client, this.server] : [this.server, this.client];
    const dice = this.random.next();
    if (dice < 0.3) from.write();
    else if (dice < 0.5) from.consume();
    else if (dice < 0.7) from.takeOutput();
    else to.receive(from.pipe);
  }

  /** Moves everything until both sides are quiet. */
  settle(): void {
    for (let quiet = 0, steps = 0; quiet < 2; steps++) {
      assert.ok(steps < 200_000, "the conversation does not end");
      let moved = false;
      for (const [from, to] of [
        [this.client, this.server],
        [this.server, this.client],
      ] as const) {
        moved = from.write() || moved;
        moved = from.takeOutput() || moved;
        while (from.pipe.length > 0) {
          to.receive(from.pipe);
          moved = true;
        }
        moved = to.consume() || moved;
      }
      quiet = moved ? 0 : quiet + 1;
    }
  }
}

interface Sending {
  readonly id: number;
  readonly body: Buffer;
  readonly trailers: boolean;
  at: number;
  mayWrite: boolean;
}

class Side {
  readonly machine: Http2Connection;
  /** Bytes taken from the machine and not yet delivered. */
  pipe: Buffer[] = [];
  readonly sending: Sending[] = [];
  readonly received = new Map<number, Buffer[]>();
  readonly ended = new Map<number, boolean>();
  /** DATA to be consumed: stream and bytes. */
  readonly held: [id: number, bytes: number][] = [];
  readonly #random: SeededRandom;
  onRequest: (id: number) => void = () => {};

  constructor(machine: Http2Connection, random: SeededRandom) {
    this.machine = machine;
    this.#random = random;
  }

  send(id: number, body: Buffer, trailers: boolean): void {
    this.sending.push({ id, body, trailers, at: 0, mayWrite: true });
  }

  write(): boolean {
    const ready = this.sending.filter((each) => each.mayWrite);
    if (ready.length === 0) return false;
    const each = ready[Math.floor(this.#random.next() * ready.length)]!;
    const left = each.body.length - each.at;
    const part = this.#random.next() < 0.5 ? left : Math.floor(this.#random.next() * (left + 1));
    const isLast = part === left;
    const accepted = this.machine.sendData(
      each.id,
      each.body,
      each.at,
      each.at + part,
      isLast && !each.trailers,
    );
    assert.ok(accepted >= 0 && accepted <= part);
    each.at += accepted;
    if (accepted < part) each.mayWrite = false;
    else if (isLast) {
      this.sending.splice(this.sending.indexOf(each), 1);
      if (each.trailers) this.machine.sendTrailers(each.id, ["grpc-status", "0"]);
    }
    this.drain();
    return true;
  }

  consume(): boolean {
    if (this.held.length === 0) return false;
    const index = Math.floor(this.#random.next() * this.held.length);
    const [id, bytes] = this.held[index]!;
    const part = this.#random.next() < 0.5 ? bytes : Math.ceil(this.#random.next() * bytes);
    if (part === bytes) this.held.splice(index, 1);
    else this.held[index]![1] -= part;
    this.machine.consumed(id, part);
    this.drain();
    return true;
  }

  takeOutput(): boolean {
    const parts =
      this.#random.next() < 0.5
        ? this.machine.takeOutputs()
        : [this.machine.takeOutput()].filter((part) => part !== null);
    for (const part of parts) this.pipe.push(Buffer.from(part));
    this.drain();
    return parts.length > 0;
  }

  receive(pipe: Buffer[]): void {
    const first = pipe.shift();
    if (first === undefined) return;
    const cut = this.#random.next() < 0.5 ? first.length : 1 + Math.floor(this.#random.next() * first.length);
    if (cut < first.length) pipe.unshift(first.subarray(cut));
    this.machine.feed(first.subarray(0, cut));
    this.drain();
  }

  drain(): void {
    const { machine } = this;
    for (let event = machine.next(); event !== Event.NOTHING; event = machine.next()) {
      const { streamId } = machine;
      if (event === Event.HEADERS) {
        assert.ok(!this.received.has(streamId));
        this.received.set(streamId, []);
        if (machine.endStream) this.#end(streamId, false);
        this.onRequest(streamId);
      } else if (event === Event.DATA) {
        const bytes = Buffer.from(machine.bytes.subarray(machine.start, machine.stop));
        this.received.get(streamId)!.push(bytes);
        if (bytes.length > 0) this.held.push([streamId, bytes.length]);
        if (machine.endStream) this.#end(streamId, false);
      } else if (event === Event.TRAILERS) {
        assert.deepEqual(machine.fields, ["grpc-status", "0"]);
        this.#end(streamId, true);
      } else if (event === Event.WRITABLE) {
        const each = this.sending.find((sending) => sending.id === streamId);
        assert.ok(each !== undefined && !each.mayWrite, "WRITABLE for a stream that waits");
        each.mayWrite = true;
      } else if (event !== Event.SETTINGS) {
        assert.fail(`event ${event}: ${machine.error?.message ?? machine.reason}`);
      }
    }
  }

  #end(id: number, trailers: boolean): void {
    assert.ok(!this.ended.has(id), "a stream ends once");
    this.ended.set(id, trailers);
  }
}

const settings = fc.record({
  streamWindowBytes: fc.constantFrom(1, 7, 1000, 65535, 200_000),
  connectionWindowBytes: fc.constantFrom(65535, 70_000, 1 << 20),
  maxFrameBytes: fc.constantFrom(16384, 20_000),
  outputBytesMax: fc.constantFrom(100, 20_000, 1 << 18),
  sendFrameBytesMost: fc.constantFrom(16384, 100_000),
  passesData: fc.boolean(),
});
const bodies = fc.array(
  fc.record({
    request: fc.constantFrom(0, 1, 20, 3000, 100_000),
    response: fc.constantFrom(0, 1, 20, 3000, 100_000),
    trailers: fc.boolean(),
  }),
  { minLength: 1, maxLength: 6 },
);

test("every body arrives exactly, whatever the windows and the order of things (RFC 9113 §5.2, §6.9)", () => {
  fc.assert(
    fc.property(fc.integer(), settings, settings, bodies, (seed, client, server, exchanges) => {
      const tiny = client.streamWindowBytes < 100 || server.streamWindowBytes < 100;
      // A window of a byte or seven makes a frame a byte: keep those bodies short.
      const body = (bytes: number, fill: number): Buffer =>
        Buffer.alloc(tiny ? Math.min(bytes, 200) : bytes, fill);
      const world = new World(seed, client, server);
      const planned = new Map<number, (typeof exchanges)[number]>();
      world.server.onRequest = (id) => {
        const plan = planned.get(id)!;
        world.server.machine.respond(id, [":status", "200"], false);
        world.server.send(id, body(plan.response, id), plan.trailers);
      };
      for (const plan of exchanges) {
        const fields = [":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/"];
        const id = world.client.machine.request(fields, false);
        assert.ok(id > 0);
        planned.set(id, plan);
        world.client.send(id, body(plan.request, id + 100), plan.trailers);
        for (let steps = Math.floor(world.random.next() * 40); steps > 0; steps--) world.step();
      }
      for (let steps = 0; steps < 300; steps++) world.step();
      world.settle();
      for (const [id, plan] of planned) {
        assert.deepEqual(Buffer.concat(world.server.received.get(id)!), body(plan.request, id + 100));
        assert.deepEqual(Buffer.concat(world.client.received.get(id)!), body(plan.response, id));
        assert.equal(world.server.ended.get(id), plan.trailers);
        assert.equal(world.client.ended.get(id), plan.trailers);
      }
      assert.equal(world.client.machine.activeStreams, 0);
      assert.equal(world.server.machine.activeStreams, 0);
    }),
    { numRuns: 120 },
  );
});
