import { Event, Http1Reader, type Http1ReaderSettings } from "#/wire/http1/reader.ts";
import type { TranscriptEvent, TranscriptMachine } from "./transcript.ts";

/**
 * `request` or `response`; `name=number` is a setting. Commands: `asked METHOD` (a request was sent that the next response
 * answers; `asked METHOD plainly` when it had no Upgrade) and `switched` (the request was answered with 101).
 *
 * Events: `head …` with start line, framing, length, and what is worth a note; one `field` line a field; `body`, `raw`, `end`,
 * `trailer` before the end it belongs to; `error CODE status`.
 */
export function makeMachine(words: readonly string[]): TranscriptMachine {
  const settings: Record<string, unknown> = { role: words[0] ?? "request" };
  for (const word of words.slice(1)) {
    const [name, value] = word.split("=");
    settings[name!] = Number(value);
  }
  return new Machine(settings as unknown as Http1ReaderSettings);
}

class Machine implements TranscriptMachine {
  readonly #reader: Http1Reader;
  readonly #isRequest: boolean;
  #failed = false;

  constructor(settings: Http1ReaderSettings) {
    this.#reader = new Http1Reader(settings);
    this.#isRequest = settings.role === "request";
  }

  feed(bytes: Uint8Array): void {
    this.#reader.feed(bytes);
  }

  end(): void {
    this.#reader.end();
  }

  command(line: string): void {
    const [verb, method, how] = line.split(" ");
    if (verb === "asked" && method !== undefined) this.#reader.responseTo(method, how !== "plainly");
    else if (verb === "switched") this.#reader.switchToRaw();
    else throw new Error(`unknown command: ${line}`);
  }

  events(): TranscriptEvent[] {
    const events: TranscriptEvent[] = [];
    const reader = this.#reader;
    while (!this.#failed) {
      const kind = reader.next();
      if (kind === Event.NOTHING) break;
      if (kind === Event.HEAD) events.push(this.#head(), ...fieldLines("field", reader.fields));
      else if (kind === Event.BODY) events.push({ text: "body", body: this.#bytes() });
      else if (kind === Event.UPGRADED) events.push({ text: "raw", body: this.#bytes() });
      else if (kind === Event.END)
        events.push(...fieldLines("trailer", reader.trailers ?? []), { text: "end" });
      else {
        this.#failed = true;
        events.push({ text: `error ${reader.error?.code} ${reader.statusHint}` });
      }
    }
    return events;
  }

  sent(): string[] {
    return [];
  }

  #head(): TranscriptEvent {
    const reader = this.#reader;
    const { method, target, status, reason, version } = reader;
    const words = this.#isRequest
      ? [method, target, version]
      : [version, String(status), JSON.stringify(reason)];
    words.push(reader.framing);
    if (reader.contentLength !== -1) words.push(String(reader.contentLength));
    words.push(reader.keepAlive ? "keep-alive" : "close");
    if (this.#isRequest && reader.expectContinue) words.push("expects-100");
    if (reader.upgrade !== null) words.push(`upgrade=${reader.upgrade}`);
    if (this.#isRequest && reader.absoluteForm) words.push("absolute");
    return { text: `head ${words.join(" ")}` };
  }

  #bytes(): string {
    const { bytes, start, stop } = this.#reader;
    return Buffer.from(bytes.subarray(start, stop)).toString("latin1");
  }
}

function fieldLines(label: string, fields: readonly string[]): TranscriptEvent[] {
  const events: TranscriptEvent[] = [];
  for (let i = 0; i < fields.length; i += 2)
    events.push({ text: `${label} ${fields[i]}: ${fields[i + 1]}`.trimEnd() });
  return events;
}
