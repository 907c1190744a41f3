import { constants, X509Certificate } from "node:crypto";
import { createServer } from "node:tls";
import type { Server, TLSSocket } from "node:tls";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Identity } from "#/model/identity.ts";
import type { Log } from "#/net/log.ts";
import { provePeer } from "#/net/peer-identity.ts";
import { derToPem, makeLeafKey } from "../identity/authority.ts";
import type { Authority } from "../identity/authority.ts";
import type { Caller } from "../identity/certify.ts";
import type { RpcServer } from "./server.ts";

const HANDSHAKE_MS = 5_000;
const RETRY_MS = 60_000;

/**
 * The port that sidecars dial: mesh mTLS as between sidecars, with the control plane's own identity. A client without a
 * certificate is let in, because it comes to fetch its first; one with a certificate that does not prove who it is, is not.
 */
export class SecureListener {
  readonly #parts: {
    readonly authority: Authority;
    readonly identity: Identity;
    readonly rpc: RpcServer;
    readonly clock: Clock;
    readonly log: Log;
  };
  #server: Server | null = null;
  #renewal: Timer | null = null;

  constructor(parts: { authority: Authority; identity: Identity; rpc: RpcServer; clock: Clock; log: Log }) {
    this.#parts = parts;
  }

  async listen(host: string, port: number): Promise<number> {
    const { authority } = this.#parts;
    const { options, renewAfterMs } = await this.#credentials();
    const trust = new Map([[authority.trustDomain, [new X509Certificate(authority.trustAnchorsPem)]]]);
    const server = createServer({
      ...options,
      minVersion: "TLSv1.3",
      requestCert: true,
      rejectUnauthorized: false,
      // A client that offers no ALPN (linkerd2-proxy) is taken at its word that it speaks HTTP/2.
      ALPNProtocols: ["h2"],
      ecdhCurve: "X25519MLKEM768:X25519:prime256v1",
      secureOptions: constants.SSL_OP_NO_TICKET,
      handshakeTimeout: HANDSHAKE_MS,
    });
    server.on("secureConnection", (socket) => this.#accept(socket, trust));
    server.on("tlsClientError", (error, socket) =>
      this.#parts.log.debug("a handshake failed", { peer: socket.remoteAddress, error }),
    );
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host, port }, resolve);
    });
    this.#server = server;
    this.#renewLater(renewAfterMs);
    return (server.address() as { port: number }).port;
  }

  close(): void {
    this.#renewal?.cancel();
    this.#server?.close();
  }

  #accept(socket: TLSSocket, trust: Parameters<typeof provePeer>[1]): void {
    const { log, rpc } = this.#parts;
    const peer = `${socket.remoteAddress ?? "?"}:${socket.remotePort ?? 0}`;
    socket.setNoDelay(true);
    let caller: Caller | null = null;
    // A resumed session shows no certificate and would pass for a client that comes for its first.
    if (socket.isSessionReused() || socket.getPeerX509Certificate() !== undefined) {
      const proof = provePeer(socket, trust);
      if (proof.kind === "refused") {
        log.warn("a client's certificate was refused", { peer, reason: proof.refusal, detail: proof.detail });
        socket.destroy();
        return;
      }
      caller = {
        identity: proof.peer.identity,
        form: proof.names.some((name) => name.startsWith("spiffe://")) ? "dns+spiffe" : "dns",
      };
    }
    rpc.serve(socket, { caller, isTrusted: false, peer });
  }

  async #credentials(): Promise<{
    options: { key: string; cert: string; ca: string };
    renewAfterMs: number;
  }> {
    const { authority, identity, clock } = this.#parts;
    const key = await makeLeafKey();
    const leaf = await authority.issue(identity, key.publicKey, "dns+spiffe");
    const cert = [leaf.der, ...leaf.intermediates].map(derToPem).join("");
    return {
      options: { key: key.privateKeyPem, cert, ca: authority.trustAnchorsPem },
      renewAfterMs: 0.7 * (leaf.notAfterMs - clock.wallMs()),
    };
  }

  /** A new key and certificate at 70 % of the old one's life, for connections from then on. The issuer is looked at too. */
  #renewLater(afterMs: number): void {
    this.#renewal = this.#parts.clock.after(afterMs, () => {
      this.#renew().then(
        (nextMs) => this.#renewLater(nextMs),
        (error: unknown) => {
          this.#parts.log.error(
            "the control plane's own certificate could not be renewed; it is tried again",
            { error },
          );
          this.#renewLater(RETRY_MS);
        },
      );
    });
  }

  async #renew(): Promise<number> {
    if (await this.#parts.authority.renewIssuer())
      this.#parts.log.info("the issuer's certificate was renewed");
    const { options, renewAfterMs } = await this.#credentials();
    this.#server?.setSecureContext({
      ...options,
      minVersion: "TLSv1.3",
      ecdhCurve: "X25519MLKEM768:X25519:prime256v1",
      secureOptions: constants.SSL_OP_NO_TICKET,
    });
    return renewAfterMs;
  }
}
