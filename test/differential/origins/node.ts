/** Node's own server of HTTP/1, answering as the request's recipe says. Started with its port. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import {
  ANSWER_FIELD,
  bodyOf,
  CASE_FIELD,
  recipeOf,
  RUN_FIELD,
  type Field,
  type Recipe,
  type Run,
} from "../case.ts";
import { ArrivalLog } from "./arrival-log.ts";

const server = createServer({ keepAliveTimeout: 60_000, maxHeaderSize: 131_072 }, serve);
server.on("checkContinue", serve);
// A client may close its half after the request (RFC 9112 §9.6); by default Node takes that for a client that went away.
Object.assign(server, { httpAllowHalfOpen: true });
server.listen(Number(process.argv[2]), "0.0.0.0", () => process.stdout.write("listening\n"));

function serve(request: IncomingMessage, response: ServerResponse): void {
  const value = (name: string): string => String(request.headers[name.toLowerCase()] ?? "");
  const id = Number(value(CASE_FIELD));
  const recipe = recipeOf(value(ANSWER_FIELD));
  const log = new ArrivalLog({
    id,
    run: value(RUN_FIELD) as Run,
    method: request.method ?? "",
    target: request.url ?? "",
    version: request.httpVersion,
    fields: pairs(request.rawHeaders),
  });
  let isAnswered = false;
  const answer = (): void => {
    if (isAnswered) return;
    isAnswered = true;
    respond(request, response, id, recipe);
  };
  const isDue = (): boolean => recipe.early !== undefined && log.bytes >= recipe.early.after;
  request.on("data", (bytes: Buffer) => {
    log.body(bytes);
    if (isDue()) answer();
  });
  const { socket } = request;
  const gone = (): void => log.over(request.complete ? "left" : "cut", []);
  socket.once("close", gone);
  if (recipe.hold !== undefined) socket.once("end", gone);
  request.on("end", () => {
    if (recipe.hold === undefined) {
      log.over("complete", pairs(request.rawTrailers));
      socket.off("close", gone);
    }
    answer();
  });
  // A client that is not asked for its body gets its answer first.
  if (isDue()) answer();
  else if (request.headers.expect !== undefined) response.writeContinue();
}

function respond(request: IncomingMessage, response: ServerResponse, id: number, recipe: Recipe): void {
  for (const status of recipe.interim ?? []) {
    if (status === 102) response.writeProcessing();
    else response.writeEarlyHints({ link: `</style-${status}.css>; rel=preload; as=style` });
  }
  if (recipe.hold === "interim") return;
  if (recipe.cut?.after === -1) {
    breakOff(response, "HTTP/1.1 200 OK\r\nX-Half: ", recipe.cut.by);
    return;
  }
  const fields = (recipe.fields ?? []).flat();
  if (recipe.framing === "length") fields.push("Content-Length", String(recipe.bytes));
  if (recipe.framing === "close") response.useChunkedEncodingByDefault = false;
  if (recipe.early?.next === "close" || recipe.framing === "close") response.shouldKeepAlive = false;
  const hasTrailers =
    recipe.trailers !== undefined && recipe.framing === "chunked" && hasBody(request, recipe);
  if (hasTrailers) fields.push("Trailer", (recipe.trailers ?? []).map(([name]) => name).join(", "));
  if (recipe.reason === undefined) response.writeHead(recipe.status, fields);
  else response.writeHead(recipe.status, recipe.reason, fields);
  const body = bodyOf(id, recipe.bytes);
  if (typeof recipe.hold === "number") response.write(body.subarray(0, recipe.hold));
  else if (recipe.cut !== undefined) {
    const { by } = recipe.cut;
    response.write(body.subarray(0, recipe.cut.after), () => breakOff(response, "", by));
  } else {
    if (hasTrailers) response.addTrailers([...(recipe.trailers ?? [])]);
    response.end(hasBody(request, recipe) ? body : undefined);
  }
}

function hasBody(request: IncomingMessage, { status }: Recipe): boolean {
  return request.method !== "HEAD" && status !== 204 && status !== 304;
}

function breakOff(response: ServerResponse, last: string, by: "end" | "reset"): void {
  const { socket } = response;
  if (by === "end") socket?.end(last);
  else socket?.write(last, () => socket.resetAndDestroy());
}

function pairs(raw: readonly string[]): Field[] {
  return Array.from({ length: raw.length / 2 }, (_, i) => [raw[2 * i] ?? "", raw[2 * i + 1] ?? ""]);
}
