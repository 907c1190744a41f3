import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { RefreshRequestSchema, RefreshResponseSchema } from "#/gen/pillion/keys_pb.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { PolicyWorld, service } from "../policy/testing.ts";
import type { ViewPod } from "../services/mesh-view.ts";
import { keysMethods } from "./keys.ts";
import { LiveView } from "./live-view.ts";
import type { CallContext } from "./server.ts";
import { RpcError } from "./status.ts";

const POLICY = `---
apiVersion: pillion.dev/v1alpha1
kind: JwtPolicy
metadata: {name: users, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  issuers:
    - {issuer: fetched, jwks: {url: "https://login.test/keys"}}
    - {issuer: given, jwks: {inline: '{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}'}}
`;

function liveOf(): LiveView {
  const { view } = new PolicyWorld(
    service("web", "shop", "{name: http, port: 80, targetPort: 8080}") + POLICY,
  );
  const pod = {
    namespace: "shop",
    name: "web-0",
    labels: { app: "web" },
    ports: [],
    identity: { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" },
  } as unknown as ViewPod;
  const live = new LiveView();
  live.publish({ ...view, podsByName: new Map([["shop/web-0", pod]]) });
  return live;
}

test("a workload has the keys of its own issuers asked for again, and no other URL", async () => {
  const asked: string[] = [];
  const refresh = async (url: string): Promise<string | null> => {
    asked.push(url);
    return await Promise.resolve("{}");
  };
  const ask = async (
    port: number,
    issuer: string,
    serviceAccount = "web",
    workload = "shop:web-0",
  ): Promise<unknown> => {
    const request = toBinary(RefreshRequestSchema, create(RefreshRequestSchema, { workload, port, issuer }));
    const caller = {
      identity: { trustDomain: "cluster.local", namespace: "shop", serviceAccount },
      form: "dns",
    };
    const call = { caller, isTrusted: false, peer: "test" } as CallContext;
    const method = keysMethods(liveOf(), { refresh }).get("/dev.pillion.keys.Keys/Refresh")!;
    try {
      return fromBinary(RefreshResponseSchema, await method.unary!(request, call)).jwks;
    } catch (error) {
      assert.ok(error instanceof RpcError, String(error));
      return error.status;
    }
  };
  assert.equal(await ask(8080, "fetched"), "{}");
  assert.deepEqual(asked, ["https://login.test/keys"]);
  assert.equal(await ask(8080, "given"), GrpcStatus.NOT_FOUND);
  assert.equal(await ask(8080, "https://evil.test"), GrpcStatus.NOT_FOUND);
  assert.equal(await ask(9000, "fetched"), GrpcStatus.NOT_FOUND);
  assert.equal(await ask(8080, "fetched", "other"), GrpcStatus.PERMISSION_DENIED);
  assert.equal(await ask(8080, "fetched", "web", "shop:web-1"), GrpcStatus.NOT_FOUND);
  assert.equal(asked.length, 1);
});
