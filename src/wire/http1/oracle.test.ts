import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { latin1, latin1Bytes } from "../latin1.ts";
import { byNode, type Outcome } from "./llhttp-testing.ts";
import { Event, Http1Reader } from "./reader.ts";

function byUs(bytes: Uint8Array, role: "request" | "response"): Outcome {
  const outcome: Outcome = { messages: [], error: null, over: false };
  const reader = new Http1Reader({ role, hostRequired: false });
  if (role === "response") for (let i = 0; i < 20; i++) reader.responseTo("GET");
  reader.feed(bytes);
  for (let kind = reader.next(); kind !== Event.NOTHING; kind = reader.next()) {
    const last = outcome.messages.at(-1);
    if (kind === Event.HEAD) {
      const start =
        role === "request" ? `${reader.method} ${reader.target}` : `${reader.status} ${reader.reason}`;
      const complete = role === "response" && reader.status < 200 && reader.status !== 101;
      outcome.messages.push({ start, fields: reader.fields, body: "", complete });
    } else if (kind === Event.ERROR || last === undefined) {
      outcome.error = reader.error?.code ?? "";
      break;
    } else if (kind === Event.BODY) last.body += latin1(reader.bytes, reader.start, reader.stop);
    else if (kind === Event.END) {
      last.complete = true;
      last.fields.push(...(reader.trailers ?? []));
      outcome.over = !reader.keepAlive;
    }
  }
  return outcome;
}

const REQUESTS = [
  "GET /a?b=c HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
  "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: 1\r\n\r\n",
  "DELETE /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
];
const RESPONSES = [
  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
  "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
  "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
];

/** Where Node refuses and we may not: methods outside its list, bytes after a last message, and changes of protocol. */
const NODE_ALONE = new Set([
  "HPE_INVALID_METHOD",
  "HPE_CLOSED_CONNECTION",
  "HPE_PAUSED_UPGRADE",
  "HPE_PAUSED_H2_UPGRADE",
]);

for (const role of ["request", "response"] as const) {
  test(`what we take of damaged ${role}s, Node's parser takes and reads alike`, () => {
    const whole = fc.array(fc.constantFrom(...(role === "request" ? REQUESTS : RESPONSES)), {
      minLength: 1,
      maxLength: 3,
    });
    const insertion = fc.constantFrom(
      "",
      "\r",
      "\n",
      "\r\n",
      " ",
      "\t",
      "\0",
      "\x7f",
      "\xff",
      ":",
      ",",
      ";",
      "0",
      "5",
      "a",
      "\r\n ",
      "\x0b",
      "chunked",
      "\r\nContent-Length: 5",
      "\r\nTransfer-Encoding: chunked",
    );
    const damage = fc.array(fc.tuple(fc.nat(), fc.nat(2), insertion), { maxLength: 3 });
    let compared = 0;
    let taken = 0;
    fc.assert(
      fc.property(whole, damage, (messages, changes) => {
        let text = messages.join("");
        for (const [at, removed, inserted] of changes) {
          const cut = at % (text.length + 1);
          text = text.slice(0, cut) + inserted + text.slice(cut + removed);
        }
        const bytes = latin1Bytes(text);
        const node = byNode(bytes, role);
        const ours = byUs(bytes, role);
        compared++;
        if (node.error !== null && NODE_ALONE.has(node.error)) return;
        // Clients do send raw UTF-8 in targets, and servers other than Node take it.
        if (node.error === "HPE_INVALID_URL" && text.includes("\xff")) return;
        // Messages that we told to the end must be what Node told, in its order, whatever comes after.
        const told = ours.messages.filter((m) => m.complete);
        taken += told.length;
        assert.deepEqual(trimmed(told), trimmed(node.messages.slice(0, told.length)), JSON.stringify(text));
        if (node.error === null || ours.error !== null || ours.over) return;
        // Node refuses at the line, we when the section is whole: until then we have told nothing of it.
        const closed = byUs(latin1Bytes(`${text}\r\n\r\n`), role);
        const pending = closed.messages.at(-1);
        assert.ok(
          closed.error !== null || pending === undefined,
          `Node: ${node.error}, ours: ${JSON.stringify(pending)} ${JSON.stringify(text)}`,
        );
      }),
      // The seed is fixed so that a new difference is found when somebody looks for it, not in somebody else's change.
      { numRuns: 2000, seed: 9112 },
    );
    assert.ok(compared === 2000 && taken > 500, `${taken} messages compared`);
  });
}

/** RFC 9112 §5.1: the blanks around a value are not part of it; llhttp leaves those at its end. */
function trimmed(messages: Outcome["messages"]): unknown[] {
  return messages.map(({ start, fields, body }) => ({
    start,
    fields: fields.map((f) => f.replace(/[ \t]+$/, "")),
    body,
  }));
}
