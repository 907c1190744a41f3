/**
 * Mistakes that a proxy can make, as changes of our sources. Each is put into a copy that the sidecars of one run are made from,
 * so that the sidecar itself knows nothing of it. What is to be replaced stands in its file exactly once.
 */
export interface Fault {
  readonly name: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

const SERVER = "src/stack/http/http1-server.ts";
const CLIENT = "src/stack/http/http1-client.ts";
const TRANSLATE = "src/stack/http/translate.ts";

const PASSED = `      case Kind.TRANSFER_ENCODING:
        out.push(name, value);`;
const ANSWER_FIELDS = "let fields: Fields = head.fields.slice();";
const TARGET = "if (!head.absoluteForm) return head.path;";
const CHUNK = "this.#conn.write(encodeChunkHead(view.length));";
const BODILESS = `exchange.bodiless = request.method === "HEAD" || head.status === 204 || head.status === 304;`;

const ANSWER = "this.#write(exchange, encodeResponse(head, added), 0);";

/** No mistake at all: a copy that is made in the same way has to differ in nothing. */
export const CONTROL: Fault = { name: "nothing changed", file: TRANSLATE, find: PASSED, replace: PASSED };

export const FAULTS: readonly Fault[] = [
  {
    name: "drops a field that was said before",
    file: TRANSLATE,
    find: PASSED,
    replace: PASSED.replace("out.push", "if (!out.includes(name)) out.push"),
  },
  {
    name: "drops a field without a value",
    file: TRANSLATE,
    find: PASSED,
    replace: PASSED.replace("out.push", `if (value !== "") out.push`),
  },
  {
    name: "makes a blank of a tab",
    file: TRANSLATE,
    find: PASSED,
    replace: PASSED.replace("value)", `value.replaceAll("\\t", " "))`),
  },
  {
    name: "changes the order of an answer's fields",
    file: TRANSLATE,
    find: ANSWER_FIELDS,
    replace: "let fields: Fields = [...head.fields.slice(2), ...head.fields.slice(0, 2)];",
  },
  {
    name: "writes an answer's names in lower case",
    file: TRANSLATE,
    find: ANSWER_FIELDS,
    replace: "let fields: Fields = head.fields.map((text, i) => (i % 2 === 0 ? text.toLowerCase() : text));",
  },
  {
    name: "drops an answer's trailers",
    file: SERVER,
    find: "encodeLastChunk(trailersToHttp1(trailers))",
    replace: "encodeLastChunk(null)",
  },
  {
    name: "drops a request's trailers",
    file: CLIENT,
    find: "encodeLastChunk(trailersToHttp1(trailers))",
    replace: "encodeLastChunk(null)",
  },
  {
    name: "says 100 (Continue) twice",
    file: SERVER,
    find: "if (head.status === 100) this.#continued = true;",
    replace: "if (head.status === 100) this.server.sendInformational(head);",
  },
  {
    name: "drops a query",
    file: TRANSLATE,
    find: TARGET,
    replace: `if (!head.absoluteForm) return head.path.split("?", 1)[0] as string;`,
  },
  {
    name: "decodes %2F in a path",
    file: TRANSLATE,
    find: TARGET,
    replace: `if (!head.absoluteForm) return head.path.replaceAll("%2F", "/");`,
  },
  {
    name: "loses a piece of a body that is larger than a page",
    file: SERVER,
    find: CHUNK,
    replace: `if (view.length > 4_096) return exchange.sink.responseConsumed(view.length);
${CHUNK}`,
  },
  {
    name: "sends a chunk twice",
    file: SERVER,
    find: CHUNK,
    replace: `for (const part of [encodeChunkHead(view.length), view, CHUNK_TAIL]) this.#conn.write(part);\n${CHUNK}`,
  },
  {
    name: "makes 203 a 200",
    file: TRANSLATE,
    find: "return new Response(parts.status, parts.version",
    replace: "return new Response(parts.status === 203 ? 200 : parts.status, parts.version",
  },
  {
    name: "writes the usual reason instead of the application's",
    file: TRANSLATE,
    find: "head.reason ?? reasonOf(head.status)",
    replace: "reasonOf(head.status)",
  },
  {
    name: "gives the answer to HEAD a length of its own",
    file: SERVER,
    find: ANSWER,
    replace: `const isLength = (i: number): boolean => head.fields[i - 1]?.toLowerCase() === "content-length";
    const fields = head.fields.map((text, i) => (isLength(i) ? "0" : text));
    ${ANSWER.replace("head,", `request.method === "HEAD" ? { ...head, fields } : head,`)}`,
  },
  {
    name: "gives 304 a body",
    file: SERVER,
    find: BODILESS,
    replace: BODILESS.replace(" || head.status === 304", ""),
  },
  {
    name: "ends a cut answer as if it were whole",
    file: SERVER,
    find: `    this.#leave();
    this.#conn.reset();
    this.#closed();`,
    replace: `    this.#leave();
    this.#conn.end();
    this.#closed();`,
  },
  {
    name: "closes without saying so",
    file: TRANSLATE,
    find: `fields.push("Connection", "close");`,
    replace: `fields.push("Connection", "keep-alive");`,
  },
  {
    name: "sends a request without a body twice",
    file: CLIENT,
    find: `    this.#reader.responseTo(head.method, head.upgrade !== null);`,
    replace: `    this.#reader.responseTo(head.method, head.upgrade !== null);
    if (last && head.version !== "1.0")
      this.#conn.write(message.bytes);`,
  },
  {
    name: "lets an application finish a request whose client has gone",
    file: CLIENT,
    find: `    this.#exchange = null;
    this.#reusable = false;
    this.#conn.reset();
    this.#leave();`,
    replace: `    this.#exchange = null;
    this.#reusable = false;
    this.#leave();`,
  },
];
