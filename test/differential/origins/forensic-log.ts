import { CASE_FIELD, RUN_FIELD, type Arrival, type Field, type Run } from "../case.ts";
import { valueOf } from "../message-reader.ts";

/**
 * What Apache wrote of the requests it got: `+ID|request line|name:value|…`, with control characters, bytes above ASCII and its
 * own separators as %xx. It says nothing of bodies.
 */
export function parseForensicLog(text: string): Arrival[] {
  return text.split("\n").flatMap((line) => {
    const [id = "", requestLine = "", ...pairs] = line.split("|");
    if (!id.startsWith("+")) return [];
    const fields = pairs.filter((pair) => pair.includes(":")).map(fieldOf);
    const value = (name: string): string => valueOf(fields, name.toLowerCase()) ?? "";
    const [method = "", target = "", version = ""] = plain(requestLine).split(" ");
    return [
      {
        id: Number(value(CASE_FIELD)),
        run: value(RUN_FIELD) as Run,
        method,
        target,
        version: version.slice(5),
        fields,
        body: null,
        trailers: null,
        end: null,
      },
    ];
  });
}

function fieldOf(pair: string): Field {
  const at = pair.indexOf(":");
  return [plain(pair.slice(0, at)), plain(pair.slice(at + 1))];
}

function plain(text: string): string {
  return text.replace(/%([0-9a-f]{2})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 16)),
  );
}
