import assert from "node:assert/strict";
import type { X509Certificate } from "node:crypto";
import { test } from "node:test";
import { SILENT } from "#/net/log.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { TrustExpiry } from "./trust-expiry.ts";

const HOUR_MS = 3_600_000;
const clock = new ManualClock();

/** For so many hours from now. */
function certificate(name: string, hours: number, fromHours = -1): X509Certificate {
  const nowMs = clock.wallMs();
  return {
    subject: `CN=${name}`,
    serialNumber: "4F1C09AA00",
    validFromDate: new Date(nowMs + fromHours * HOUR_MS),
    validToDate: new Date(nowMs + hours * HOUR_MS),
  } as X509Certificate;
}

test("each certificate that is over is said once, with its end and what helps", () => {
  const chain = [certificate("web", 1), certificate("issuer", 2)];
  const root = certificate("root", 3);
  const said: unknown[] = [];
  const log = { ...SILENT, error: (_: string, fields?: object) => void said.push(fields) };
  const expiry = new TrustExpiry({ clock, log, chain: () => chain, roots: () => [root] });
  expiry.start();
  clock.advance(HOUR_MS / 2);
  assert.deepEqual(said, []);
  clock.advance(HOUR_MS);
  assert.equal(said.length, 1);
  assert.match(
    expiry.problems()[0]!,
    /^the leaf's certificate "web" \(serial 4f1c09aa…\) expired at 20[0-9T:.-]+Z; a new one is asked for$/,
  );
  clock.advance(HOUR_MS);
  assert.match(
    expiry.problems()[1]!,
    /^the issuer's certificate "issuer" .* expired at .*; check this machine's clock; if it is right: pillion identity repair$/,
  );
  clock.advance(HOUR_MS);
  assert.deepEqual(
    expiry.problems().map((problem) => problem.split(" ")[1]),
    ["leaf's", "issuer's", "root's"],
  );
  expiry.stop();
});

test("a certificate that does not hold yet is said, too", () => {
  const expiry = new TrustExpiry({
    clock,
    log: SILENT,
    chain: () => [certificate("web", 1), certificate("issuer", 9, 1)],
    roots: () => [],
  });
  assert.match(expiry.problems()[0]!, /^the issuer's certificate "issuer" .* begins only at /);
});
