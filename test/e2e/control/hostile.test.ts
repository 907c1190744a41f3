import assert from "node:assert/strict";
import { connect as connectHttp2 } from "node:http2";
import { connect as connectTcp } from "node:net";
import test from "node:test";
import { connect as connectTls } from "node:tls";
import type { TLSSocket } from "node:tls";
import { create, toBinary } from "@bufbuild/protobuf";
import { GetDestinationSchema } from "../../../src/gen/linkerd/destination_pb.ts";
import { encodeGrpcMessage } from "../../../src/wire/grpc.ts";
import { CONTROL_NAME, Rig, statusOf } from "./rig.ts";
import type { FakeAgent } from "./rig.ts";

const FOLDER = `
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: web, command: [web]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
`;

async function begin(rig: Rig): Promise<FakeAgent> {
  const agent = await rig.start();
  agent.report();
  agent.folder({ "web.yaml": FOLDER });
  await agent.planThat((plan) => plan.pods.length === 1);
  agent.obey();
  await agent.planThat((plan) => plan.services[0]?.endpoints.length === 1);
  return agent;
}

/** One call over a connection of its own: HTTP status, gRPC status. */
async function post(
  port: number,
  headers: Record<string, string>,
  body: Uint8Array,
): Promise<{ http: number; grpc: string }> {
  const session = connectHttp2(`http://127.0.0.1:${port}`);
  session.on("error", () => {});
  try {
    const stream = session.request({
      ":method": "POST",
      ":path": "/io.linkerd.proxy.destination.Destination/Get",
      "content-type": "application/grpc",
      ...headers,
    });
    stream.on("error", () => {});
    stream.resume();
    return await new Promise((resolve) => {
      stream.on("response", (head) => {
        const http = Number(head[":status"]);
        if (http !== 200 || head["grpc-status"] !== undefined)
          resolve({ http, grpc: String(head["grpc-status"] ?? "") });
      });
      stream.on("trailers", (trailers) => resolve({ http: 200, grpc: String(trailers["grpc-status"]) }));
      stream.on("close", () => resolve({ http: 0, grpc: "" }));
      stream.end(body);
    });
  } finally {
    session.destroy();
  }
}

test("a call that is no gRPC, names no method, holds nonsense or too much is refused, and the server goes on", async () => {
  await using rig = new Rig();
  await begin(rig);
  const port = rig.plaintextPort;
  const good = encodeGrpcMessage(
    toBinary(
      GetDestinationSchema,
      create(GetDestinationSchema, { path: "nobody.default.svc.cluster.local:80" }),
    ),
  );
  assert.deepEqual(await post(port, { "content-type": "text/plain" }, good), { http: 415, grpc: "" });
  assert.deepEqual(await post(port, { ":path": "/io.linkerd.proxy.tap.Tap/Observe" }, good), {
    http: 200,
    grpc: "12",
  });
  assert.deepEqual(await post(port, { ":path": "/constructor" }, good), { http: 200, grpc: "12" });
  assert.deepEqual(await post(port, {}, new Uint8Array()), { http: 200, grpc: "3" });
  assert.deepEqual(await post(port, {}, encodeGrpcMessage(Uint8Array.of(0xff, 0xff))), {
    http: 200,
    grpc: "3",
  });
  assert.deepEqual(await post(port, {}, encodeGrpcMessage(new Uint8Array(70_000))), { http: 200, grpc: "3" });
  assert.deepEqual(await post(port, {}, encodeGrpcMessage(good, true)), { http: 200, grpc: "3" });
  assert.deepEqual(await post(port, {}, good), { http: 200, grpc: "5" });
});

test("bytes that are neither TLS nor HTTP/2 end the connection, and the server goes on", async () => {
  await using rig = new Rig();
  await begin(rig);
  for (const port of [rig.port, rig.plaintextPort]) {
    await new Promise<void>((resolve) => {
      const socket = connectTcp(port, "127.0.0.1", () => socket.write(Buffer.alloc(4096, "x")));
      socket.on("error", () => {});
      socket.on("close", () => resolve());
      socket.resume();
    });
  }
  const good = encodeGrpcMessage(
    toBinary(
      GetDestinationSchema,
      create(GetDestinationSchema, { path: "nobody.default.svc.cluster.local:80" }),
    ),
  );
  assert.equal((await post(rig.plaintextPort, {}, good)).grpc, "5");
});

test("a client that does not read its updates is let go after a hundred of them", async () => {
  await using rig = new Rig();
  const agent = await begin(rig);
  const session = connectHttp2(`http://127.0.0.1:${rig.plaintextPort}`, {
    settings: { initialWindowSize: 0 },
  });
  session.on("error", () => {});
  const stream = session.request({
    ":method": "POST",
    ":path": "/io.linkerd.proxy.destination.Destination/Get",
    "content-type": "application/grpc",
  });
  stream.on("error", () => {});
  stream.end(
    encodeGrpcMessage(
      toBinary(
        GetDestinationSchema,
        create(GetDestinationSchema, { path: "web.default.svc.cluster.local:80" }),
      ),
    ),
  );
  const [pod] = agent.plan!.pods;
  for (let i = 0; i < 130; i++) {
    const before = agent.plan!.revision;
    agent.set(statusOf(pod!, "10.201.0.50", i % 2 === 0));
    agent.report();
    await agent.planThat((plan) => plan.revision > before);
  }
  // Once it reads again it finds the first hundred and the end.
  const ended = new Promise<string>((resolve) => {
    stream.on("trailers", (trailers) => resolve(String(trailers["grpc-status"])));
  });
  stream.resume();
  session.settings({ initialWindowSize: 1 << 20 });
  assert.equal(await ended, "8");
  session.destroy();
});

test("no session is ever resumed, because a resumed one shows no certificate", async () => {
  await using rig = new Rig();
  const agent = await begin(rig);
  const anchors = agent.plan!.pods[0]!.sidecar!.env["LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS"]!;
  const dial = async (session?: Buffer): Promise<{ socket: TLSSocket; ticket: Promise<Buffer> }> => {
    const { promise: ticket, resolve: gotTicket } = Promise.withResolvers<Buffer>();
    const socket = await new Promise<TLSSocket>((resolve, reject) => {
      const made: TLSSocket = connectTls(
        {
          host: "127.0.0.1",
          port: rig.port,
          servername: CONTROL_NAME,
          ca: anchors,
          ...(session === undefined ? {} : { session }),
        },
        () => resolve(made),
      );
      made.once("error", reject);
      made.once("session", gotTicket);
    });
    socket.on("error", () => {});
    socket.resume();
    return { socket, ticket };
  };
  const first = await dial();
  assert.equal(first.socket.getProtocol(), "TLSv1.3");
  const ticket = await first.ticket;
  const second = await dial(ticket);
  // The ticket was real and is worth nothing. Were it ever taken, SecureListener would end the connection.
  assert.equal(second.socket.isSessionReused(), false);
  first.socket.destroy();
  second.socket.destroy();
});

test("TLS 1.2 is refused", async () => {
  await using rig = new Rig();
  const agent = await begin(rig);
  const anchors = agent.plan!.pods[0]!.sidecar!.env["LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS"]!;
  await assert.rejects(
    new Promise((resolve, reject) => {
      const socket = connectTls(
        { host: "127.0.0.1", port: rig.port, servername: CONTROL_NAME, ca: anchors, maxVersion: "TLSv1.2" },
        () => resolve(socket),
      );
      socket.once("error", reject);
    }),
  );
});
