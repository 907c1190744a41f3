import type { Fields } from "#/base/fields.ts";
import type { HttpService, RequestHead, RequestSink, ResponseHead, ResponseSink } from "../http/exchange.ts";
import { SPENT } from "../http/exchange.ts";
import { fault, type Fault } from "../http/fault.ts";

export interface MirrorSettings {
  readonly copiesMax: number;
  readonly behindBytesMax: number;
}

/** All copies that a sidecar has under way, and their bounds. */
export class Mirrors {
  /** At the bound the oldest copy is given up: its mirror is the slowest. */
  readonly #copiesMax: number;
  /** Bytes of a body that a mirror may be behind; then its copy is given up. */
  readonly behindBytesMax: number;
  /** In the order in which they began. */
  readonly #copies = new Set<MirrorCopy>();
  /** Copies that were given up for a bound. */
  dropped = 0;
  readonly #tell: () => void;

  /** `tell`: a copy was given up for a bound. */
  constructor(
    tell: () => void = () => {},
    { copiesMax, behindBytesMax }: MirrorSettings = { copiesMax: 1_000, behindBytesMax: 65_536 },
  ) {
    this.#copiesMax = copiesMax;
    this.behindBytesMax = behindBytesMax;
    this.#tell = tell;
  }

  get count(): number {
    return this.#copies.size;
  }

  /** Sends a copy of a request's head. */
  begin(service: HttpService, head: RequestHead, last: boolean): MirrorCopy {
    if (this.#copies.size >= this.#copiesMax) {
      const [oldest] = this.#copies;
      oldest?.giveUp("more copies are under way than may be");
    }
    const copy = new MirrorCopy(this);
    this.#copies.add(copy);
    copy.begin(service, head, last);
    return copy;
  }

  gaveUp(): void {
    this.dropped++;
    this.#tell();
  }

  left(copy: MirrorCopy): void {
    this.#copies.delete(copy);
  }
}

/**
 * One copy of a request, sent and forgotten: its answer is read and thrown away, and nothing that happens to it is felt by the
 * request itself. Of a body it holds views of buffers that are never written again, up to the bound.
 */
export class MirrorCopy implements ResponseSink {
  readonly #mirrors: Mirrors;
  #sink: RequestSink = SPENT;
  #behindBytes = 0;
  #isSent = false;
  #isAnswered = false;
  #isOver = false;

  constructor(mirrors: Mirrors) {
    this.#mirrors = mirrors;
  }

  begin(service: HttpService, head: RequestHead, last: boolean): void {
    this.#isSent = last;
    const sink = service.call(head, last, this);
    if (!this.#isOver) this.#sink = sink;
  }

  // --- from the request ---

  data(bytes: Uint8Array, start: number, stop: number): void {
    if (this.#isOver) return;
    this.#behindBytes += stop - start;
    if (this.#behindBytes > this.#mirrors.behindBytesMax) this.giveUp("the mirror is too far behind");
    else this.#sink.data(bytes, start, stop);
  }

  end(trailers: Fields | null): void {
    if (this.#isSent) return;
    this.#isSent = true;
    this.#sink.end(trailers);
    if (this.#isAnswered) this.#leave();
  }

  /** The request will not be complete: the copy cannot be either. Once it is, it goes on by itself. */
  abort(cause: Fault): void {
    if (this.#isSent || this.#isOver) return;
    const sink = this.#sink;
    this.#leave();
    sink.abort(cause);
  }

  giveUp(why: string): void {
    if (this.#isOver) return;
    const sink = this.#sink;
    this.#mirrors.gaveUp();
    this.#leave();
    sink.abort(fault("CANCELLED", why));
  }

  // --- the answer that nobody reads ---

  informational(): void {}
  head(_head: ResponseHead, last: boolean): void {
    if (last) this.finish();
  }
  body(_bytes: Uint8Array, start: number, stop: number): void {
    this.#sink.responseConsumed(stop - start);
  }
  finish(): void {
    this.#isAnswered = true;
    if (this.#isSent) this.#leave();
  }
  fail(): void {
    this.#leave();
  }
  requestConsumed(bytes: number): void {
    this.#behindBytes -= bytes;
  }

  #leave(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#sink = SPENT;
    this.#mirrors.left(this);
  }
}

/** A request with a body on its way to where it goes and to its mirrors; the answer comes from the one alone. */
export class MirroredRequest implements RequestSink, ResponseSink {
  readonly #copies: readonly MirrorCopy[];
  readonly #reply: ResponseSink;
  /** Set by who makes it, once the request is sent. */
  main: RequestSink = SPENT;

  constructor(copies: readonly MirrorCopy[], reply: ResponseSink) {
    this.#copies = copies;
    this.#reply = reply;
  }

  data(bytes: Uint8Array, start: number, stop: number): void {
    for (const copy of this.#copies) copy.data(bytes, start, stop);
    this.main.data(bytes, start, stop);
  }
  end(trailers: Fields | null): void {
    for (const copy of this.#copies) copy.end(trailers);
    this.main.end(trailers);
  }
  abort(cause: Fault): void {
    for (const copy of this.#copies) copy.abort(cause);
    this.main.abort(cause);
  }
  responseConsumed(bytes: number): void {
    this.main.responseConsumed(bytes);
  }

  informational(head: ResponseHead): void {
    this.#reply.informational(head);
  }
  head(head: ResponseHead, last: boolean): void {
    this.#reply.head(head, last);
  }
  body(bytes: Uint8Array, start: number, stop: number): void {
    this.#reply.body(bytes, start, stop);
  }
  finish(trailers: Fields | null): void {
    this.#reply.finish(trailers);
  }
  /** After it nothing of the request comes any more. */
  fail(cause: Fault): void {
    for (const copy of this.#copies) copy.abort(cause);
    this.#reply.fail(cause);
  }
  requestConsumed(bytes: number): void {
    this.#reply.requestConsumed(bytes);
  }
}
