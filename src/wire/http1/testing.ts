import { latin1, latin1Bytes } from "../latin1.ts";
import { Event, Http1Reader, type Http1ReaderSettings } from "./reader.ts";

/** What a reader finds in `chunks`, one line each, with neighbouring body pieces joined: how tests compare. */
export function readAll(
  reader: Http1Reader,
  chunks: readonly Uint8Array[],
  role: "request" | "response",
  ended = false,
): string[] {
  const found: string[] = [];
  const drain = (): boolean => {
    for (;;) {
      const kind = reader.next();
      if (kind === Event.NOTHING) return true;
      if (kind === Event.HEAD) found.push(describeHead(reader, role));
      else if (kind === Event.BODY) addBytes(found, "body ", reader);
      else if (kind === Event.UPGRADED) addBytes(found, "raw ", reader);
      else if (kind === Event.END)
        found.push(`end${reader.trailers === null ? "" : describeFields(reader.trailers)}`);
      else {
        found.push(`error ${reader.error?.code} ${reader.error?.statusHint}: ${reader.error?.message}`);
        return false;
      }
    }
  };
  for (const chunk of chunks) {
    reader.feed(chunk);
    if (!drain()) return found;
  }
  if (ended) {
    reader.end();
    drain();
  }
  return found;
}

export function requestEvents(
  text: string,
  settings: Partial<Http1ReaderSettings> = {},
  ended = false,
): string[] {
  return readAll(new Http1Reader({ ...settings, role: "request" }), [latin1Bytes(text)], "request", ended);
}

/** `methods` are those of the requests that are answered, "GET" for one by default. */
export function responseEvents(
  text: string,
  methods = "GET",
  ended = false,
  settings: Partial<Http1ReaderSettings> = {},
): string[] {
  const reader = new Http1Reader({ ...settings, role: "response" });
  for (const method of methods.split(" ")) reader.responseTo(method);
  return readAll(reader, [latin1Bytes(text)], "response", ended);
}

function describeHead(reader: Http1Reader, role: "request" | "response"): string {
  const line =
    role === "request" ? `${reader.method} ${reader.target}` : `${reader.status} "${reader.reason}"`;
  const notes = [
    reader.keepAlive ? "keep-alive" : "close",
    reader.expectContinue ? "expects-100" : "",
    reader.upgrade === null ? "" : `upgrade=${reader.upgrade}`,
    reader.absoluteForm ? "absolute" : "",
  ];
  const text = notes.filter((note) => note !== "").join(" ");
  return `head ${line} ${reader.version} ${reader.framing} ${reader.contentLength} ${text}${describeFields(reader.fields)}`;
}

function describeFields(fields: readonly string[]): string {
  let text = "";
  for (let i = 0; i < fields.length; i += 2) text += ` [${fields[i]}: ${fields[i + 1]}]`;
  return text;
}

function addBytes(found: string[], label: string, reader: Http1Reader): void {
  const text = latin1(reader.bytes, reader.start, reader.stop);
  if (found.at(-1)?.startsWith(label) === true) found[found.length - 1] += text;
  else found.push(`${label}${text}`);
}
