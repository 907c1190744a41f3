/** What a client says about itself and about whom it wants: what of it goes on, and what never does. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Fields } from "#/base/fields.ts";
import { Http1Reader, Event } from "#/wire/http1/reader.ts";
import { latin1Bytes } from "#/wire/latin1.ts";
import {
  requestFromHttp1,
  requestFromHttp2,
  requestToHttp2,
  trailersToHttp1,
  type Request,
} from "./translate.ts";

const CLIENT_ID = "web.shop.serviceaccount.identity.pillion.cluster.local";

function fromHttp1(target: string, lines: readonly string[], clientId: string | null = null): Request {
  const reader = new Http1Reader({ role: "request" });
  reader.feed(
    latin1Bytes(`GET ${target} HTTP/1.1\r\nHost: a\r\n${lines.map((line) => `${line}\r\n`).join("")}\r\n`),
  );
  assert.equal(reader.next(), Event.HEAD);
  return requestFromHttp1(reader, clientId, true);
}

function fromHttp2(fields: Fields, clientId: string | null = null): Request {
  return requestFromHttp2(withHead(fields), "foreign", clientId);
}

function withHead(fields: Fields): Fields {
  return [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a", ...fields];
}

test("no spelling of l5d-client-id passes that a program may take for it, and the proven one comes last", () => {
  // CGI, WSGI and PHP give fields as variables: HTTP_L5D_CLIENT_ID, whichever of "-" and "_" was meant.
  const forged = ["l5d-client-id", "l5d_client_id", "l5d-client_id", "l5d_client-id"];
  const spelled = [...forged, ...forged.map((name) => name.toUpperCase())];
  const http1 = fromHttp1(
    "/",
    spelled.map((name) => `${name}: forged`),
    CLIENT_ID,
  );
  assert.deepEqual(http1.fields, ["Host", "a", "l5d-client-id", CLIENT_ID]);
  const http2 = fromHttp2(
    forged.flatMap((name) => [name, "forged"]),
    CLIENT_ID,
  );
  assert.deepEqual(http2.fields, ["l5d-client-id", CLIENT_ID]);
  assert.deepEqual(fromHttp2(forged.flatMap((name) => [name, "forged"])).fields, []);
});

test("x-forwarded-*, forwarded and x-forwarded-client-cert go on as they came, and decide nothing here", () => {
  const fields = [
    ...["X-Forwarded-For", "10.0.0.1", "X-Forwarded-Host", "admin", "X-Forwarded-Proto", "https"],
    ...["Forwarded", "for=10.0.0.1;host=admin", "X-Forwarded-Client-Cert", "By=spiffe://x;Hash=00"],
    ...["X-Original-URL", "/admin", "X-Real-IP", "10.0.0.1"],
  ];
  const lines = fields.flatMap((name, at) => (at % 2 === 0 ? [`${name}: ${fields[at + 1]!}`] : []));
  const request = fromHttp1("/", lines);
  assert.deepEqual(request.fields, ["Host", "a", ...fields]);
  assert.equal(request.authority, "a");
  assert.equal(request.path, "/");
  assert.equal(request.scheme, "http");
});

test("a path goes on byte for byte, so that a rule and the application never read two of them (CVE-2021-31920)", () => {
  for (const path of [
    "/a/%2e%2e/b",
    "/a/%2F/b",
    "/a//b/../c",
    "/a;x/..;/b",
    "/%00",
    "/a\\b",
    "/\u00e4?x=/../y",
  ]) {
    const request = fromHttp1(path, []);
    assert.equal(request.path, path);
    // And over the leg between sidecars, where HTTP/1 is HTTP/2.
    assert.equal(requestFromHttp2(requestToHttp2(request, "upgraded"), "pillion", null).path, path);
  }
});

test("only one of our own sidecars can ask for its part of a trace; a program's wish ends here, however it is spelled", () => {
  const asked = ["x-pillion-debug", "1", "l5d-pillion-debug", "1", "accept", "*/*"];
  for (const client of ["foreign", "sidecar"] as const) {
    const { asksTrace, fields } = requestFromHttp2(withHead(asked), client, null);
    assert.equal(asksTrace, "program", client);
    assert.deepEqual(fields, ["accept", "*/*"]);
    assert.equal(requestFromHttp2(withHead(asked.slice(2)), client, null).asksTrace, null, client);
  }
  const ours = requestFromHttp2(withHead(asked), "pillion", null);
  assert.equal(ours.asksTrace, "sidecar");
  assert.deepEqual(ours.fields, ["accept", "*/*"]);
  const http1 = fromHttp1("/", ["X-PILLION-Debug: 1", "L5D-Pillion-Debug: 1", "L5d-Pillion-Trace: forged"]);
  assert.equal(http1.asksTrace, "program");
  assert.deepEqual(http1.fields, ["Host", "a"]);
  assert.equal(fromHttp1("/", ["L5D-Pillion-Debug: 1"]).asksTrace, null);
  // A trailer is no head, and says nothing either.
  assert.deepEqual(trailersToHttp1(["x-pillion-debug", "1", "x-sum", "2"]), ["x-sum", "2"]);
});
