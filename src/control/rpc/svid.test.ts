import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { decodeJwt } from "jose";
import { JwtBundlesSchema, SignJwtRequestSchema, SignJwtResponseSchema } from "#/gen/pillion/svid_pb.ts";
import type { Identity } from "#/model/identity.ts";
import { SILENT } from "#/net/log.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { JwtAuthority, KEY_AHEAD_MS, KEY_SIGNS_MS } from "../identity/jwt-authority.ts";
import { StateFolder } from "../state-folder.ts";
import type { CallContext, MethodHandler } from "./server.ts";
import { RpcError } from "./status.ts";
import { AUDIENCE_CHARS_MAX, AUDIENCES_MAX, svidMethods } from "./svid.ts";

const WEB: Identity = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" };

let dir = "";
let authority: JwtAuthority;
let methods: Map<string, MethodHandler>;
let isInUse = true;
let isRevoked = false;
const clock = new ManualClock();
before(async () => {
  dir = mkdtempSync(join(tmpdir(), "pillion-svid-"));
  authority = await JwtAuthority.open(new StateFolder(dir), "cluster.local", clock, SILENT);
  methods = svidMethods(
    authority,
    () => isInUse,
    SILENT,
    () => isRevoked,
  );
});
after(() => {
  authority.close();
  rmSync(dir, { recursive: true });
});

const by = (identity: Identity | null): CallContext => ({
  caller: identity === null ? null : { identity, form: "dns+spiffe" },
  isTrusted: identity === null,
  peer: "test",
});

async function sign(audience: string[], context = by(WEB)): Promise<string | RpcError> {
  const request = toBinary(SignJwtRequestSchema, create(SignJwtRequestSchema, { audience }));
  try {
    const answer = await methods.get("/dev.pillion.svid.Svid/SignJwt")!.unary!(request, context);
    return fromBinary(SignJwtResponseSchema, answer).token;
  } catch (error) {
    assert.ok(error instanceof RpcError, String(error));
    return error;
  }
}

async function refusal(audience: string[], context = by(WEB)): Promise<number> {
  const answer = await sign(audience, context);
  assert.ok(answer instanceof RpcError, "a token was signed");
  return answer.status;
}

test("a token is of whom the certificate proves: the request has no place for another name", async () => {
  const token = await sign(["db"]);
  assert.equal(typeof token, "string");
  assert.equal(decodeJwt(token as string).sub, "spiffe://cluster.local/ns/shop/sa/web");
});

test("without a certificate there is no token, also on the listener that asks for none", async () => {
  assert.equal(methods.get("/dev.pillion.svid.Svid/SignJwt")!.isOpen, false);
  assert.equal(await refusal(["db"], by(null)), GrpcStatus.UNAUTHENTICATED);
});

test("a token without an audience, or for too many, is not signed (JWT-SVID §3.2)", async () => {
  const long = "a".repeat(AUDIENCE_CHARS_MAX + 1);
  for (const audience of [[], [""], ["db", ""], Array<string>(AUDIENCES_MAX + 1).fill("db"), [long]])
    assert.equal(await refusal(audience), GrpcStatus.INVALID_ARGUMENT);
});

test("an identity of another trust domain, that no pod has any more, or that was revoked gets no token", async () => {
  assert.equal(await refusal(["db"], by({ ...WEB, trustDomain: "other" })), GrpcStatus.PERMISSION_DENIED);
  isInUse = false;
  assert.equal(await refusal(["db"]), GrpcStatus.PERMISSION_DENIED);
  isInUse = true;
  isRevoked = true;
  assert.equal(await refusal(["db"]), GrpcStatus.PERMISSION_DENIED);
  isRevoked = false;
});

test("the keys are told at once, and again when they change", async () => {
  const counts: number[] = [];
  const stop = methods.get("/dev.pillion.svid.Svid/WatchJwtBundles")!.watch!(
    new Uint8Array(0),
    {
      send: (bytes) => {
        const [bundle] = fromBinary(JwtBundlesSchema, bytes).bundles;
        assert.equal(bundle?.trustDomain, "cluster.local");
        counts.push((JSON.parse(bundle.keySet) as { keys: unknown[] }).keys.length);
      },
      fail: (error) => assert.fail(error),
    },
    by(WEB),
  );
  clock.stall(KEY_SIGNS_MS - KEY_AHEAD_MS);
  await authority.rotate();
  assert.deepEqual(counts, [1, 2]);
  stop();
});
