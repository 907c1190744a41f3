/**
 * An origin that writes its answers byte by byte, for what no server's library would send. It reads requests with the reader
 * of the differential run. Started with its port.
 */
import { createServer, type Socket } from "node:net";
import { ANSWER_FIELD, bodyOf, CASE_FIELD, recipeOf, RUN_FIELD, type Recipe, type Run } from "../case.ts";
import { hasToken, MessageReader, valueOf, type Framing, type Head } from "../message-reader.ts";
import { ArrivalLog } from "./arrival-log.ts";

createServer({ allowHalfOpen: true, noDelay: true }, (socket) => void new Conversation(socket)).listen(
  Number(process.argv[2]),
  "0.0.0.0",
  () => process.stdout.write("listening\n"),
);

class Conversation {
  readonly #socket: Socket;
  #log: ArrivalLog | null = null;
  #recipe: Recipe = { status: 200, framing: "none", bytes: 0 };
  #method = "";
  #id = 0;
  #isAnswered = false;
  #isRead = false;
  #closes = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    const reader = new MessageReader({
      head: (head) => this.#begin(head),
      body: (bytes) => {
        this.#log?.body(bytes);
        this.#answerEarly();
      },
      end: (trailers) => {
        this.#isRead = true;
        if (this.#recipe.hold === undefined) this.#log?.over("complete", trailers);
        this.#answer();
      },
    });
    socket.on("data", (bytes: Buffer) => {
      try {
        reader.feed(bytes);
      } catch (error) {
        socket.end(
          `HTTP/1.1 400 ${(error as Error).message}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`,
        );
      }
    });
    socket.on("end", () => {
      this.#gone();
      socket.end();
    });
    socket.on("error", () => this.#gone());
    socket.on("close", () => this.#gone());
  }

  #begin(head: Head): Framing {
    const [method = "", target = "", version = ""] = head.line.split(" ");
    const value = (name: string): string => valueOf(head.fields, name.toLowerCase()) ?? "";
    this.#id = Number(value(CASE_FIELD));
    this.#method = method;
    this.#recipe = recipeOf(value(ANSWER_FIELD));
    this.#isAnswered = false;
    this.#isRead = false;
    this.#closes =
      hasToken(head.fields, "connection", "close") ||
      (version === "HTTP/1.0" && !hasToken(head.fields, "connection", "keep-alive")) ||
      this.#recipe.framing === "close" ||
      (this.#recipe.version === "1.0" && !hasToken(this.#recipe.fields ?? [], "connection", "keep-alive")) ||
      this.#recipe.early?.next === "close";
    this.#log = new ArrivalLog({
      id: this.#id,
      run: value(RUN_FIELD) as Run,
      method,
      target,
      version: version.slice(5),
      fields: head.fields,
    });
    const isDue = this.#answerEarly();
    if (!isDue && value("expect") !== "") this.#socket.write("HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n");
    if (hasToken(head.fields, "transfer-encoding", "chunked")) return { kind: "chunked" };
    return { kind: "length", bytes: Number(value("content-length")) };
  }

  #answerEarly(): boolean {
    const { early } = this.#recipe;
    const isDue = early !== undefined && (this.#log?.bytes ?? 0) >= early.after;
    if (isDue) this.#answer();
    return isDue;
  }

  #answer(): void {
    if (this.#isAnswered) return;
    this.#isAnswered = true;
    const recipe = this.#recipe;
    const socket = this.#socket;
    const interim = (recipe.interim ?? []).map(
      (status) =>
        `HTTP/1.1 ${status} Hint\r\nLink: </style-${status}.css>; rel=preload\r\nX-Interim: yes\r\n\r\n`,
    );
    socket.write(interim.join(""), "latin1");
    if (recipe.hold === "interim") return;
    const head = Buffer.from(this.#head(), "latin1");
    const body = this.#hasBody() ? bodyOf(this.#id, recipe.bytes) : Buffer.alloc(0);
    if (recipe.cut?.after === -1) this.#breakOff(head.subarray(0, head.length - 5), recipe.cut.by);
    else if (recipe.cut !== undefined)
      this.#breakOff(Buffer.concat([head, this.#framed(body).subarray(0, recipe.cut.after)]), recipe.cut.by);
    else if (typeof recipe.hold === "number")
      socket.write(Buffer.concat([head, this.#framed(body).subarray(0, recipe.hold)]));
    else {
      socket.write(Buffer.concat([head, this.#framed(body)]));
      if (this.#closes) socket.end();
      // What still comes belongs to nobody; whether it does is a matter of who learns first that this is the end.
      if (!this.#isRead && recipe.early?.next === "close") this.#log?.over("cut", []);
    }
  }

  #head(): string {
    const { status, reason = "Fine", framing, bytes, fields = [], version = "1.1" } = this.#recipe;
    const all = fields.map(([name, value]) => `${name}: ${value}`);
    if (framing === "length") all.push(`Content-Length: ${bytes}`);
    if (framing === "chunked") all.push("Transfer-Encoding: chunked");
    if (this.#closes) all.push("Connection: close");
    return [`HTTP/${version} ${status} ${reason}`, ...all, "", ""].join("\r\n");
  }

  #hasBody(): boolean {
    return this.#method !== "HEAD" && this.#recipe.status !== 204 && this.#recipe.status !== 304;
  }

  /** In chunks of growing sizes, one of them with an extension. */
  #framed(body: Buffer): Buffer {
    if (this.#recipe.framing !== "chunked" || !this.#hasBody()) return body;
    const parts: Buffer[] = [];
    for (let at = 0, bytes = 1; at < body.length; at += bytes, bytes *= 3) {
      const chunk = body.subarray(at, at + bytes);
      parts.push(Buffer.from(`${chunk.length.toString(16)}${bytes === 3 ? ";ext=1" : ""}\r\n`), chunk);
      parts.push(Buffer.from("\r\n"));
    }
    const trailers = (this.#recipe.trailers ?? []).map(([name, value]) => `${name}: ${value}\r\n`);
    return Buffer.concat([...parts, Buffer.from(`0\r\n${trailers.join("")}\r\n`, "latin1")]);
  }

  #breakOff(last: Buffer, by: "end" | "reset"): void {
    if (by === "end") this.#socket.end(last);
    else this.#socket.write(last, () => this.#socket.resetAndDestroy());
  }

  #gone(): void {
    this.#log?.over(this.#isRead ? "left" : "cut", []);
  }
}
