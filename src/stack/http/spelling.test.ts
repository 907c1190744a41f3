import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Fields } from "#/base/fields.ts";
import { FieldKind, kindOfValue } from "#/wire/hpack/field-kind.ts";
import { encodeResponseHead, reasonOf } from "#/wire/http1/writer.ts";
import { latin1Bytes } from "#/wire/latin1.ts";
import { HpackEncoder } from "#/wire/hpack/encoder.ts";
import { ByteWriter } from "#/wire/hpack/byte-writer.ts";
import { fieldName, SPELLING_FIELD } from "./field-names.ts";
import { caseOf, withCase } from "./letter-case.ts";
import { SPELLING_BYTES_MAX, Spelling } from "./spelling.ts";
import type { FarSide } from "./translate.ts";
import {
  carriageTo,
  Request,
  requestFromHttp2,
  requestToHttp2,
  responseFromHttp2,
  responseToHttp2,
  trailersFromHttp2,
  trailersToHttp1,
  trailersToHttp2,
} from "./translate.ts";

const TOKEN = fc.stringMatching(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,40}$/);

function request(fields: Fields, authority = "Web.Example:80"): Request {
  return new Request({
    method: "GET",
    scheme: "http",
    authority,
    path: "/",
    version: "1.1",
    absoluteForm: false,
    upgrade: null,
    fields,
  });
}

/** What a far sidecar makes of a request. */
function carried(fields: Fields, client: FarSide = "pillion"): Fields {
  return requestFromHttp2(requestToHttp2(request(fields), carriageTo(client)), client, null).fields;
}

test("any letter case comes back", () => {
  assert.deepEqual(["host", "Content-Type", "DNT", "ETag", "X-a", "1"].map(caseOf), [
    "-",
    "+",
    "^",
    "~c.",
    "~8.",
    "-",
  ]);
  fc.assert(fc.property(TOKEN, (word) => assert.equal(withCase(word.toLowerCase(), caseOf(word)), word)));
});

test("names, their order, repeats, and the places of Host and Transfer-Encoding survive HTTP/2", () => {
  const fields = [
    "x-a",
    "1",
    "TRANSFER-encoding",
    "Chunked",
    "ETag",
    "2",
    "hOST",
    "Web.Example:80",
    "X-A",
    "3",
  ];
  assert.deepEqual(carried(fields), fields);
  for (const coding of ["Transfer-Encoding", "transfer-encoding"])
    for (const value of ["chunked", "Chunked"]) {
      const last = ["host", "Web.Example:80", "x", "1", coding, value];
      assert.deepEqual(carried(last), last);
      assert.deepEqual(carried([...last, "y", "2"]), [...last, "y", "2"]);
    }
  const oddName = TOKEN.filter(
    (name) => !/^(l5d-|host$|te$|upgrade$|transfer-encoding$|proxy-connection$|keep-alive$)/i.test(name),
  );
  fc.assert(
    fc.property(
      fc.array(fc.tuple(oddName, fc.constantFrom("v", "")), { maxLength: 20 }),
      fc.nat(20),
      (pairs, at) => {
        const all: Fields = pairs.flat();
        all.splice(2 * Math.min(at, pairs.length), 0, "HoSt", "Web.Example:80");
        assert.deepEqual(carried(all), all);
      },
    ),
  );
});

test("an empty Host, which HTTP/2 cannot say, comes back where it was (RFC 9112 §3.2)", () => {
  const fields = requestToHttp2(request(["Accept", "*/*", "Host", ""], ""), "spelled");
  assert.ok(!fields.includes(":authority"));
  assert.deepEqual(requestFromHttp2(fields, "pillion", null).fields, ["Accept", "*/*", "Host", ""]);
});

test("an answer keeps its reason, empty or in any bytes, and how its body ends", () => {
  for (const [status, reason] of [
    [200, "OK"],
    [200, ""],
    [200, 'Sch\u00f6n "und" gut '],
    [599, "Odd"],
  ] as const) {
    const head = {
      status,
      version: "1.1" as const,
      reason,
      fields: ["content-LENGTH", "0", "X", "y"],
      endsWithConnection: true,
    };
    const back = responseFromHttp2(responseToHttp2(head, "spelled"), "pillion");
    const { version, fields, endsWithConnection } = back;
    assert.deepEqual(
      { status: back.status, version, reason: back.reason ?? "OK", fields, endsWithConnection },
      head,
    );
  }
});

test("trailers keep their case", () => {
  const sent = trailersToHttp2(["X-Sum", "1", "x-b", "2"], true);
  assert.deepEqual(trailersFromHttp2(sent, "pillion"), ["X-Sum", "1", "x-b", "2"]);
  assert.deepEqual(trailersToHttp1(trailersFromHttp2(sent, "foreign")), ["x-sum", "1", "x-b", "2"]);
});

test("nobody but a proven sidecar of ours is told of spelling, and nobody else is believed", () => {
  const fields = ["Host", "Web.Example:80", "X-A", "1"];
  for (const far of ["foreign", "sidecar"] as const) {
    assert.ok(!requestToHttp2(request(fields), carriageTo(far)).includes(SPELLING_FIELD));
    const forged = [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a", "x-a", "1"];
    forged.push("l5d-orig-proto", "HTTP/1.1", SPELLING_FIELD, "^");
    assert.deepEqual(requestFromHttp2(forged, far, null).fields, ["x-a", "1"]);
    const answer = [":status", "200", "l5d-orig-proto", "HTTP/1.1", "x-a", "1", SPELLING_FIELD, '^"Odd"'];
    assert.deepEqual(responseFromHttp2(answer, far).fields, ["x-a", "1"]);
    assert.equal(responseFromHttp2(answer, far).reason, null);
  }
});

test("a spelling that does not fit its fields changes nothing", () => {
  const fields = ["x-a", "1", "b", "2"];
  const odd = [
    "++-",
    "~.",
    "~zz.",
    "~ffff.",
    "~f.",
    "@",
    "@@",
    "@-@-",
    "*-",
    "*--*--",
    "?",
    "--+",
    '"',
    "~8",
  ];
  for (const text of odd) assert.deepEqual(new Spelling(text).restore(fields, "h"), fields, text);
  // Two hosts would be read differently by different servers.
  assert.deepEqual(new Spelling("@+").restore(["host", "b"], "a"), ["host", "b"]);
  fc.assert(
    fc.property(
      fc.string({ unit: "binary-ascii" }),
      fc.constantFrom("-", "+", "^", "@+", "*+-", "$"),
      (text, more) => {
        const restored = new Spelling(more + text).restore(fields, "h");
        const plain = restored.map((part, i) => (i % 2 === 0 ? part.toLowerCase() : part));
        const kept = plain.filter(
          (_, i) => !["host", "transfer-encoding"].includes(plain[i - (i % 2)] as string),
        );
        assert.deepEqual(kept, fields);
      },
    ),
  );
});

test("a spelling remembers the names it was used on, and is not misled by others", () => {
  const spelling = new Spelling("@++^");
  for (let i = 0; i < 2; i++) {
    assert.deepEqual(spelling.restore(["a-b", "1", "c", "2"], "h"), ["Host", "h", "A-B", "1", "C", "2"]);
    assert.deepEqual(spelling.restore(["c", "2", "a-b", "3"], "i"), ["Host", "i", "C", "2", "A-B", "3"]);
    assert.deepEqual(spelling.restore(["c", "2"], "i"), ["c", "2"]);
  }
});

test("a spelling is bounded: beyond it the head goes on in lower case", () => {
  const fields: Fields = [];
  for (let i = 0; i < 500; i++) fields.push(`${"aB".repeat(40)}${i}`, "");
  const sent = requestToHttp2(request(fields), "spelled");
  assert.ok(!sent.includes(SPELLING_FIELD));
  const head = { status: 200, version: "1.1" as const, fields: ["X-A", ""] };
  const long = responseToHttp2({ ...head, reason: "r".repeat(SPELLING_BYTES_MAX) }, "spelled");
  assert.equal(responseFromHttp2(long, "pillion").reason, null);
  assert.deepEqual(responseFromHttp2(long, "pillion").fields, ["X-A", ""]);
});

test("long names are not remembered: a thousand of them would fill the memory", () => {
  assert.equal(fieldName("X-Short"), fieldName("X-Short"));
  const long = "X-".repeat(100);
  assert.notEqual(fieldName(long), fieldName(long));
  const fields = ["Host", "Web.Example:80", long, "1", "X-B", "2"];
  for (let i = 0; i < 3; i++) assert.deepEqual(carried(fields), fields);
  const many = Array.from({ length: 200 }, (_, i) => [`X-${i}`, ""]).flat();
  for (let i = 0; i < 3; i++) assert.deepEqual(carried(many), many);
});

test("requests that differ in values only share one spelling, which costs a byte of HPACK once it is known", () => {
  const sizeOfLast = (carriage: "upgraded" | "spelled"): number => {
    const encoder = new HpackEncoder({ tableBytesMax: 4096 });
    let size = 0;
    for (let i = 0; i < 8; i++) {
      const out = new ByteWriter();
      const fields = requestToHttp2(request(["Host", "Web.Example:80", "X-Id", String(i)]), carriage);
      size = -encoder.encode(fields, out, 0) + out.at;
    }
    return size;
  };
  assert.equal(sizeOfLast("spelled") - sizeOfLast("upgraded"), 1);
});

test("a reason that no status line may hold is the usual one: what HTTP/2 lets through must not stop who writes HTTP/1", () => {
  for (let code = 0; code < 256; code++) {
    const text = `"a${String.fromCharCode(code)}b"`;
    if (kindOfValue(FieldKind.ORDINARY, latin1Bytes(text), 0, text.length) !== 0) continue;
    const head = responseFromHttp2(
      [":status", "200", "l5d-orig-proto", "HTTP/1.1", SPELLING_FIELD, text],
      "pillion",
    );
    const reason = head.reason ?? reasonOf(200);
    const isFit = code === 9 || (code >= 32 && code !== 127);
    assert.equal(reason, isFit ? text.slice(1, -1) : "OK");
    encodeResponseHead({ version: "1.1", status: 200, reason, fields: head.fields });
  }
});

test("a field that is never indexed stays so where its spelling is restored (RFC 7541 §6.2.3)", () => {
  const secret = (...fields: string[]): Fields => Object.assign(fields, { neverIndexed: new Set(["x-pin"]) });
  const head = responseFromHttp2(
    secret(":status", "200", "x-pin", "1", "l5d-orig-proto", "HTTP/1.1", SPELLING_FIELD, "+"),
    "pillion",
  );
  assert.deepEqual(head.fields, secret("X-Pin", "1"));
  assert.deepEqual(
    trailersFromHttp2(secret("x-pin", "1", SPELLING_FIELD, "+"), "pillion"),
    secret("X-Pin", "1"),
  );
});
