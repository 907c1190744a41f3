import assert from "node:assert/strict";
import { test } from "node:test";
import { declaredProtocol } from "./port-protocol.ts";

test("appProtocol decides before the port's name, and what it does not know is opaque (facts §7)", () => {
  for (const [appProtocol, portName, protocol] of [
    ["http", "tcp-db", "http1"],
    ["HTTP", undefined, "http1"],
    ["kubernetes.io/h2c", "http", "http2"],
    ["kubernetes.io/ws", undefined, "http1"],
    ["grpc", undefined, "http2"],
    ["linkerd.io/opaque", "http2", "opaque"],
    ["linkerd.io/tcp", undefined, "opaque"],
    ["mysql", undefined, "opaque"],
    ["https", undefined, "opaque"],
    ["", "grpc", "http2"],
  ] as const) {
    assert.equal(declaredProtocol(appProtocol, portName), protocol, `${appProtocol} on ${portName}`);
  }
});

test("a port's name decides by its first word, where that leaves no doubt", () => {
  for (const [portName, protocol] of [
    ["grpc", "http2"],
    ["grpc-admin", "http2"],
    ["h2c-web", "http2"],
    ["tcp-redis", "opaque"],
    ["tls", "opaque"],
    ["http", "detect"],
    ["grpcweb", "detect"],
    [undefined, "detect"],
  ] as const) {
    assert.equal(declaredProtocol(undefined, portName), protocol, portName ?? "no name");
  }
});
