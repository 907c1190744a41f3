import type { Speech } from "./namespaces.ts";
import type { TcpLoadSettings } from "./tcp-load.ts";

/** A kind of load. What it counts is `unit`; all costs are per one of these. */
export type Shape = {
  readonly name: string;
  readonly speech: Speech;
  readonly unit: "request" | "message" | "round trip" | "connection" | "MiB";
  /** A sentence on what it is like. */
  readonly about: string;
} & Load;

type Load =
  /** Closed loop of HTTP/1.1 by wrk. */
  | {
      readonly kind: "wrk";
      readonly connections: number;
      readonly path: string;
      /** One request per connection. */
      readonly isConnectionPerRequest: boolean;
    }
  /** Closed loop of HTTP/2 with prior knowledge by h2load. With `messageBytes` each request is a unary call of gRPC. */
  | {
      readonly kind: "h2load";
      readonly connections: number;
      /** At once on each connection. */
      readonly streams: number;
      readonly messageBytes: number | null;
    }
  /** Open loop of HTTP/1.1 by our own generator: requests come at their rate whatever the answers do. */
  | {
      readonly kind: "open";
      readonly connections: number;
      /** A number, or a share of what the reference subject can do. */
      readonly perSecond: number | { readonly ofCapacity: number };
    }
  | {
      readonly kind: "grpc-stream";
      readonly streams: number;
      readonly messageBytes: number;
    }
  /** New connections of mutual TLS to the server's sidecar, dialled by the load itself. */
  | { readonly kind: "handshake"; readonly connections: number }
  | {
      readonly kind: "tcp";
      readonly what: TcpLoadSettings["what"];
      readonly connections: number;
      readonly messageBytes: number;
    };

export type WrkShape = Extract<Shape, { kind: "wrk" }>;

const many = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`;

const http1 = (name: string, connections: number, path = "/", body = "1 KiB"): Shape => ({
  name,
  about: `HTTP/1.1, closed loop over ${many(connections, "connection")}, answers of ${body}.`,
  speech: "http1",
  unit: "request",
  kind: "wrk",
  connections,
  path,
  isConnectionPerRequest: false,
});
const http2 = (name: string, connections: number, streams: number): Shape => ({
  name,
  about: `HTTP/2, closed loop over ${many(connections, "connection")} of ${streams} streams, answers of 1 KiB.`,
  speech: "http2",
  unit: "request",
  kind: "h2load",
  connections,
  streams,
  messageBytes: null,
});
const open = (name: string, connections: number, perSecond: number | { ofCapacity: number }): Shape => ({
  name,
  about: `HTTP/1.1, open loop over ${many(connections, "connection")}: requests come at their rate whatever the answers do.`,
  speech: "http1",
  unit: "request",
  kind: "open",
  connections,
  perSecond,
});
const tcp = (
  name: string,
  about: string,
  unit: Shape["unit"],
  what: TcpLoadSettings["what"],
  connections: number,
  messageBytes = 64,
): Shape => ({ name, about, speech: "tcp", unit, kind: "tcp", what, connections, messageBytes });

/** In the order in which they are printed. */
export const SHAPES: readonly Shape[] = [
  http1("h1-1", 1),
  http1("h1-8", 8),
  http1("h1-64", 64),
  http1("h1-512", 512),
  http1("h1-64-empty", 64, "/0", "0 bytes"),
  http1("h1-64-64KiB", 64, "/64k", "64 KiB"),
  http1("h1-8-10MiB", 8, "/10m", "10 MiB"),
  http2("h2-1x64", 1, 64),
  http2("h2-4x16", 4, 16),
  {
    name: "grpc-unary-4x16",
    about: "Unary calls of gRPC with messages of 128 bytes, closed loop over 4 connections of 16 streams.",
    speech: "grpc",
    unit: "request",
    kind: "h2load",
    connections: 4,
    streams: 16,
    messageBytes: 128,
  },
  {
    name: "grpc-stream-64",
    about: "Messages of 128 bytes there and back on 64 streams of gRPC of one connection.",
    speech: "grpc",
    unit: "message",
    kind: "grpc-stream",
    streams: 64,
    messageBytes: 128,
  },
  open("open-500", 8, 500),
  open("open-1000", 16, 1000),
  open("open-20%", 64, { ofCapacity: 0.2 }),
  open("open-50%", 64, { ofCapacity: 0.5 }),
  open("open-80%", 64, { ofCapacity: 0.8 }),
  {
    name: "new-connections",
    about: "HTTP/1.1, a connection for each request, 8 at a time.",
    speech: "http1",
    unit: "request",
    kind: "wrk",
    connections: 8,
    path: "/",
    isConnectionPerRequest: true,
  },
  {
    name: "tls-handshake",
    about:
      "A connection of mutual TLS 1.3 (P-256, X25519MLKEM768, no resumption) for each request, dialled to the server's sidecar by the load itself, 8 at a time: what a peer costs that keeps no connection. Only the server's CPU is the handshake's.",
    speech: "http2",
    unit: "connection",
    kind: "handshake",
    connections: 8,
  },
  tcp(
    "tcp-ping-1",
    "Opaque bytes: messages of 64 bytes there and back on one connection.",
    "round trip",
    "ping",
    1,
  ),
  tcp("tcp-ping-64", "The same on 64 connections.", "round trip", "ping", 64),
  tcp(
    "tcp-connect",
    "Opaque bytes: a connection for each byte there and back, 8 at a time.",
    "connection",
    "connect",
    8,
  ),
  tcp("tcp-download", "Opaque bytes: one connection, the server sends.", "MiB", "download", 1),
  tcp("tcp-upload", "Opaque bytes: one connection, the client sends.", "MiB", "upload", 1),
];

export const QUICK_SHAPES: readonly string[] = ["h1-8", "h1-64", "open-500"];
