import assert from "node:assert/strict";
import { test } from "node:test";
import type { IdentityStatus, RotationReport } from "#/model/identity-status.ts";
import { identityText, rotationLine, rotationText } from "./identity-text.ts";

const NOW_MS = Date.UTC(2026, 0, 1);
const ROTATION: RotationReport = {
  what: "root",
  startedAtMs: NOW_MS - 300_000,
  isForced: false,
  sinceMs: NOW_MS - 200_000,
  steps: [
    { step: "prepare", state: "done", what: "make a root" },
    { step: "distribute", state: "now", what: "tell of it" },
    { step: "sign", state: "to come", what: "sign by it" },
  ],
  waitingFor: [
    { namespace: "shop", name: "a", why: "has not confirmed" },
    { namespace: "shop", name: "b", why: "has not confirmed" },
  ],
};
const IDENTITY: IdentityStatus = {
  trustDomain: "cluster.local",
  source: "own",
  sequence: 7,
  roots: [
    { name: "root", serial: "4f1c", notBeforeMs: 0, notAfterMs: NOW_MS + 86_400_000 * 3, role: "signs" },
  ],
  issuer: { name: "issuer", serial: "5a2d", notBeforeMs: 0, notAfterMs: NOW_MS - 1, role: "issuer" },
  rotation: ROTATION,
  problems: ["the issuer's certificate expired"],
  revoked: ["spiffe://cluster.local/ns/shop/sa/web"],
};

test("shows roots, issuer, rotation, revoked identities and problems", () => {
  const text = identityText(IDENTITY, NOW_MS);
  assert.match(text, /root +root in force +4f1c +2026-01-04T00:00:00\.000Z +3d/);
  assert.match(text, /issuer +issuer +5a2d +2025-12-31T23:59:59\.999Z +over/);
  assert.match(text, /→ distribute tell of it/);
  assert.match(text, /revoked:\n {2}spiffe:\/\/cluster\.local\/ns\/shop\/sa\/web/);
  assert.match(text, /! the issuer's certificate expired/);
});

test("says for whom a step waits, and since when; before it begins, who would be waited for", () => {
  assert.equal(
    rotationLine(ROTATION, NOW_MS),
    "rotation of the root: distribute, waits for 2 since 3m: shop/a …",
  );
  assert.match(
    rotationText(ROTATION, NOW_MS).join("\n"),
    /waiting for 2, since 3m:\n {2}shop\/a: has not confirmed/,
  );
  const planned = {
    ...ROTATION,
    steps: ROTATION.steps.map((step) => ({ ...step, state: "to come" as const })),
  };
  const text = rotationText(planned, NOW_MS).join("\n");
  assert.match(text, /^a rotation of the root would:/);
  assert.match(text, /and wait for 2:/);
});
