import { RecvWindow } from "./recv-window.ts";
import { State } from "./stream-state.ts";

/** One stream of an `Http2Connection`. Made at its HEADERS, kept until both halves ended and its DATA is consumed. */
export class Stream extends RecvWindow {
  readonly id: number;
  state: number = State.IDLE;
  /** What we may still send; negative after the remote shrank its window (RFC 9113 §6.9.2). */
  sendWindowBytes: number;
  /** DATA handed to the application and not yet reported as consumed. */
  heldBytes = 0;
  /** What `content-length` still promises; -1 when there is none or it does not bind. */
  promisedBytes = -1;
  /** A final header section was received: what follows are trailers. */
  isHeadReceived = false;
  /** A final header section was sent. */
  isHeadSent = false;
  /** The request was HEAD: its answer's content-length promises nothing (RFC 9110 §8.6). */
  isHead = false;
  /** The request was CONNECT: what follows is a tunnel (RFC 9113 §8.5). */
  isConnect = false;
  /** Whether the application waits for WRITABLE, and for what. */
  waits: number = Waits.NOT;

  constructor(id: number, sendWindowBytes: number, recvWindowBytes: number) {
    super(recvWindowBytes);
    this.id = id;
    this.sendWindowBytes = sendWindowBytes;
  }
}

/** What a stream with unsent DATA waits for. QUEUED: for the connection, or for its turn. */
export const Waits = { NOT: 0, FOR_WINDOW: 1, QUEUED: 2 } as const;
