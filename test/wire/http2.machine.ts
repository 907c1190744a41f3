import { Event, Http2Connection } from "#/wire/http2/connection.ts";
import { CLIENT_PREFACE, errorCodeName, Flag, Frame } from "#/wire/http2/frame.ts";
import type { Http2Settings } from "#/wire/http2/settings.ts";
import { parseBytes, type TranscriptEvent, type TranscriptMachine } from "./transcript.ts";

/**
 * `server` or `client`; `raw` leaves the opening (preface, SETTINGS both ways) to the transcript; `name=number` is a
 * setting. Frames are written `TYPE stream FLAG|FLAG payload`, with `-` for no flags; `PREFACE` is the client's.
 */
export function makeMachine(words: readonly string[]): TranscriptMachine {
  const settings: Record<string, unknown> = { role: words[0] ?? "server" };
  let isRaw = false;
  for (const word of words.slice(1)) {
    const [name, value] = word.split("=");
    if (word === "raw") isRaw = true;
    else settings[name!] = Number(value);
  }
  const machine = new Machine(settings as Partial<Http2Settings> & Pick<Http2Settings, "role">);
  if (!isRaw) machine.open();
  return machine;
}

class Machine implements TranscriptMachine {
  readonly #connection: Http2Connection;
  readonly #isServer: boolean;

  constructor(settings: Partial<Http2Settings> & Pick<Http2Settings, "role">) {
    this.#connection = new Http2Connection(settings);
    this.#isServer = settings.role === "server";
  }

  open(): void {
    const opening = [this.parseLine("SETTINGS 0 -")!, this.parseLine("SETTINGS 0 ACK")!];
    if (this.#isServer) opening.unshift(CLIENT_PREFACE);
    this.feed(Buffer.concat(opening));
    this.events();
    this.sent();
  }

  feed(bytes: Uint8Array): void {
    this.#connection.feed(bytes);
  }

  end(): void {
    this.#connection.end();
  }

  events(): TranscriptEvent[] {
    const events: TranscriptEvent[] = [];
    for (let event = this.#connection.next(); event !== Event.NOTHING; event = this.#connection.next()) {
      events.push(this.#describe(event));
    }
    return events;
  }

  #describe(event: number): TranscriptEvent {
    const connection = this.#connection;
    const { streamId, endStream } = connection;
    switch (event) {
      case Event.HEADERS:
        return { text: `headers ${streamId} ${showFields(connection.fields)}`, isLast: endStream };
      case Event.INFORMATIONAL:
        return { text: `informational ${streamId} ${showFields(connection.fields)}` };
      case Event.TRAILERS:
        return { text: `trailers ${streamId} ${showFields(connection.fields)}`, isLast: endStream };
      case Event.DATA: {
        const { bytes, start, stop } = connection;
        const body = Buffer.from(bytes.subarray(start, stop)).toString("latin1");
        return { text: `data ${streamId}`, body, isLast: endStream };
      }
      case Event.RESET: {
        const why = connection.byUs ? ` by us: ${connection.reason}` : "";
        return { text: `reset ${streamId} ${errorCodeName(connection.errorCode)}${why}` };
      }
      case Event.WRITABLE:
        return { text: `writable ${streamId}` };
      case Event.GOAWAY:
        return { text: `goaway last=${connection.lastStreamId} ${errorCodeName(connection.errorCode)}` };
      case Event.SETTINGS:
        return { text: "settings" };
      case Event.PING_ACK:
        return { text: "ping ack" };
      default:
        return { text: `error ${connection.error!.code}: ${connection.error!.message}` };
    }
  }

  sent(): string[] {
    const bytes = Buffer.from(this.#connection.takeOutput() ?? []);
    const lines: string[] = [];
    let at = 0;
    if (bytes.subarray(0, CLIENT_PREFACE.length).equals(CLIENT_PREFACE)) {
      lines.push("PREFACE");
      at = CLIENT_PREFACE.length;
    }
    while (at < bytes.length) {
      const length = bytes.readUIntBE(at, 3);
      const type = bytes[at + 3]!;
      const payload = bytes.subarray(at + 9, at + 9 + length);
      lines.push(showFrame(type, bytes[at + 4]!, bytes.readUInt32BE(at + 5), payload));
      at += 9 + length;
    }
    return lines;
  }

  command(line: string): void {
    const [verb, ...words] = line.split(/\s+/);
    const connection = this.#connection;
    const id = Number(words[0]);
    const isEnd = words.at(-1) === "end";
    switch (verb) {
      case "request": {
        const fields = [":method", words[0]!, ":scheme", "http", ":authority", "a", ":path", words[1]!];
        connection.request(fields, isEnd);
        return;
      }
      case "respond":
        connection.respond(id, [":status", words[1]!], isEnd);
        return;
      case "data": {
        const bytes = parseBytes(line.replace(/^data\s+\d+/, "").replace(/\bend$/, ""));
        connection.sendData(id, bytes, 0, bytes.length, isEnd);
        return;
      }
      case "trailers":
        connection.sendTrailers(id, words.slice(1));
        return;
      case "reset":
        connection.reset(id, Number(words[1]));
        return;
      case "consumed":
        connection.consumed(id, Number(words[1]));
        return;
      case "goaway":
        connection.goAway(id);
        return;
      case "goaway-final":
        connection.goAwayFinal();
        return;
      case "ping":
        connection.ping(id);
        return;
      case "wake":
        connection.wake(id);
        return;
      default:
        throw new Error(`unknown command: ${line}`);
    }
  }

  parseLine(line: string): Uint8Array | null {
    const repeated = /^(.*) \*\* (\d+)$/.exec(line);
    if (repeated !== null) {
      const one = this.parseLine(repeated[1]!);
      return one === null ? null : Buffer.concat(Array.from({ length: Number(repeated[2]) }, () => one));
    }
    if (line.trim() === "PREFACE") return CLIENT_PREFACE;
    const match = /^([A-Z_]+) (\d+) (\S+)(?: (.*))?$/.exec(line);
    if (match === null) return null;
    const type = Frame[match[1] as keyof typeof Frame];
    if (type === undefined) return null;
    const payload = parseBytes(match[4] ?? "");
    let flags = 0;
    if (match[3] !== "-") for (const name of match[3]!.split("|")) flags |= Flag[name as keyof typeof Flag];
    const head = Buffer.alloc(9);
    head.writeUIntBE(payload.length, 0, 3);
    head[3] = type;
    head[4] = flags;
    head.writeUInt32BE(Number(match[2]), 5);
    return Buffer.concat([head, payload]);
  }
}

const TYPE_NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(Frame).map(([name, type]) => [type, name]),
);

function showFields(fields: readonly string[]): string {
  const parts: string[] = [];
  for (let i = 0; i < fields.length; i += 2) parts.push(`${fields[i]!}=${fields[i + 1]!}`);
  return parts.join(" ");
}

function showFrame(type: number, flags: number, streamId: number, payload: Buffer): string {
  const name = `${TYPE_NAMES[type] ?? type} ${streamId}`;
  switch (type) {
    case Frame.SETTINGS: {
      if ((flags & Flag.ACK) !== 0) return `${name} ACK`;
      const parts: string[] = [];
      for (let at = 0; at < payload.length; at += 6) {
        parts.push(`${payload.readUInt16BE(at).toString(16)}=${payload.readUInt32BE(at + 2)}`);
      }
      return `${name} ${parts.join(" ")}`;
    }
    case Frame.RST_STREAM:
      return `${name} ${errorCodeName(payload.readUInt32BE(0))}`;
    case Frame.WINDOW_UPDATE:
      return `${name} ${payload.readUInt32BE(0)}`;
    case Frame.GOAWAY:
      return `${name} last=${payload.readUInt32BE(0)} ${errorCodeName(payload.readUInt32BE(4))}`;
    case Frame.DATA:
      return `${name} ${JSON.stringify(payload.toString("latin1"))}${(flags & Flag.END_STREAM) === 0 ? "" : " end"}`;
    default: {
      const names: string[] = [];
      if ((flags & 1) !== 0) names.push(type === Frame.PING ? "ACK" : "END_STREAM");
      if ((flags & Flag.END_HEADERS) !== 0) names.push("END_HEADERS");
      return `${name} ${names.join("|") || "-"} ${payload.toString("hex")}`;
    }
  }
}
