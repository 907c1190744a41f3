/**
 * Load of new connections of mutual TLS, for a process of its own (`bench/load.ts handshake …`): a peer that dials a server's sidecar by
 * itself, anew for each request, as one does that keeps no connections or speaks to many endpoints once. TLS 1.3 with a P-256 certificate on
 * both sides, X25519MLKEM768 first, no resumption.
 */
import { connect, createSecureContext } from "node:tls";
import { Histogram } from "#/base/histogram.ts";

export interface DialledPeer {
  host: string;
  port: number;
  serverName: string;
  alpn: readonly string[];
  certificatesPem: string;
  keyPem: string;
  trustAnchorsPem: string;
}

export interface HandshakeLoadSettings {
  peer: DialledPeer;
  connections: number;
  seconds: number;
}

export interface HandshakeLoadResult {
  done: number;
  failed: number;
  seconds: number;
  p50Us: number;
  p99Us: number;
  p999Us: number;
}

/** An answer's body is this long. */
const BODY_BYTES = 1024;
const ANSWERED_WITHIN_MS = 5_000;

/** The preface, empty SETTINGS, and a GET of "/" as stream 1 (RFC 9113 §3.4; fields from HPACK's static table, RFC 7541 §A). */
const REQUEST = Buffer.concat([
  Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
  // :method GET, :scheme http, :path /, :authority "bench" as a literal; END_STREAM and END_HEADERS.
  Buffer.from([0, 0, 10, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x01, 5]),
  Buffer.from("bench"),
]);

export async function handshakeLoad(settings: HandshakeLoadSettings): Promise<HandshakeLoadResult> {
  const { peer } = settings;
  const context = createSecureContext({
    cert: peer.certificatesPem,
    key: peer.keyPem,
    ca: peer.trustAnchorsPem,
    minVersion: "TLSv1.3",
    ecdhCurve: "X25519MLKEM768:X25519",
  });
  const latency = new Histogram();
  const startMs = performance.now();
  const untilMs = startMs + settings.seconds * 1000;
  let done = 0;
  let failed = 0;
  const once = (): Promise<void> =>
    new Promise((resolve) => {
      const dialledMs = performance.now();
      const socket = connect({
        host: peer.host,
        port: peer.port,
        servername: peer.serverName,
        secureContext: context,
        ALPNProtocols: [...peer.alpn],
      });
      socket.setTimeout(ANSWERED_WITHIN_MS, () => socket.destroy());
      let bytes = 0;
      let isAnswered = false;
      socket.write(REQUEST);
      socket.on("data", (data: Buffer) => {
        bytes += data.length;
        if (isAnswered || bytes < BODY_BYTES) return;
        isAnswered = true;
        latency.record((performance.now() - dialledMs) * 1000);
        done++;
        socket.end();
        // The far side keeps a connection of HTTP/2 open for what may come.
        socket.destroySoon();
      });
      socket.on("error", () => undefined); // told by close
      socket.on("close", () => {
        if (!isAnswered) failed++;
        resolve();
      });
    });
  await Promise.all(
    Array.from({ length: settings.connections }, async () => {
      while (performance.now() < untilMs) await once();
    }),
  );
  return {
    done,
    failed,
    seconds: (performance.now() - startMs) / 1000,
    p50Us: latency.quantileUs(0.5),
    p99Us: latency.quantileUs(0.99),
    p999Us: latency.quantileUs(0.999),
  };
}
