import { X509Certificate } from "node:crypto";
import { createServer } from "node:tls";
import type { SecureContextOptions, Server, TLSSocket } from "node:tls";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Identity } from "#/model/identity.ts";
import type { Log } from "#/net/log.ts";
import { MESH_TLS } from "#/net/mesh-tls.ts";
import { provePeer } from "#/net/peer-identity.ts";
import type { TrustBundles } from "#/net/peer-identity.ts";
import { makeLeafKey } from "../identity/authority.ts";
import type { Authority, TrustBundle } from "../identity/authority.ts";
import { derToPem, SKEW_MS } from "../identity/certificates.ts";
import type { Caller } from "../identity/certify.ts";
import type { RpcServer } from "./server.ts";

const HANDSHAKE_MS = 5_000;
/** By the wall clock, which may be set and which goes on while a machine sleeps; so it is looked at often instead of once at the end. */
const LOOK_EVERY_MS = 30_000;
/** When a root goes, all who were proven by it come anew: one after another over so long. */
const RETURN_SPREAD_MS = 60_000;

/**
 * The port that sidecars dial: mesh mTLS as between sidecars, with the control plane's own identity. A client without a
 * certificate is let in, because it comes to fetch its first; one with a certificate that does not prove who it is, is not. Whose proof has
 * ended, by time or because its root is trusted no more, is sent away and has to prove itself anew.
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
  #timer: Timer | null = null;
  #unlisten: () => void = () => undefined;
  #renewing: Promise<void> = Promise.resolve();
  /** When its own certificate was made, and when it is to be renewed. */
  #madeAtMs = 0;
  #renewAtMs = 0;
  /** Connections of proven clients. The server bounds how many there are. */
  readonly #proven = new Map<
    TLSSocket,
    { readonly endsAtMs: number; readonly root: string; readonly end: () => void }
  >();
  #trust: { readonly of: TrustBundle; readonly bundles: TrustBundles } | null = null;

  constructor(parts: { authority: Authority; identity: Identity; rpc: RpcServer; clock: Clock; log: Log }) {
    this.#parts = parts;
  }

  async listen(host: string, port: number): Promise<number> {
    const server = createServer({
      ...(await this.#credentials()),
      requestCert: true,
      rejectUnauthorized: false,
      // A client that offers no ALPN (linkerd2-proxy) is taken at its word that it speaks HTTP/2.
      ALPNProtocols: ["h2"],
      handshakeTimeout: HANDSHAKE_MS,
    });
    server.on("secureConnection", (socket) => this.#accept(socket));
    server.on("tlsClientError", (error, socket) =>
      this.#parts.log.debug("a handshake failed", { peer: socket.remoteAddress, error }),
    );
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host, port }, resolve);
    });
    this.#server = server;
    let { sequence } = this.#parts.authority.bundle;
    this.#unlisten = this.#parts.authority.listen(() => {
      if (this.#parts.authority.bundle.sequence === sequence) return;
      sequence = this.#parts.authority.bundle.sequence;
      this.#renew();
      this.#sendAway();
    });
    this.#lookLater();
    return (server.address() as { port: number }).port;
  }

  close(): void {
    this.#timer?.cancel();
    this.#unlisten();
    this.#server?.close();
  }

  #accept(socket: TLSSocket): void {
    const { log, rpc } = this.#parts;
    const peer = `${socket.remoteAddress ?? "?"}:${socket.remotePort ?? 0}`;
    socket.setNoDelay(true);
    let caller: Caller | null = null;
    let proven: { readonly endsAtMs: number; readonly root: string } | null = null;
    // A resumed session shows no certificate and would pass for a client that comes for its first.
    if (socket.isSessionReused() || socket.getPeerX509Certificate() !== undefined) {
      const proof = provePeer(socket, this.#bundles(), this.#parts.clock.wallMs());
      if (proof.kind === "refused") {
        log.warn("a client's certificate was refused", { peer, reason: proof.refusal, detail: proof.detail });
        socket.destroy();
        return;
      }
      proven = proof;
      caller = {
        identity: proof.peer.identity,
        form: proof.names.some((name) => name.startsWith("spiffe://")) ? "dns+spiffe" : "dns",
      };
    }
    const end = rpc.serve(socket, { caller, isTrusted: false, peer });
    if (proven === null) return;
    this.#proven.set(socket, { ...proven, end });
    socket.once("close", () => this.#proven.delete(socket));
  }

  #sendAway(): void {
    const { authority, clock, log } = this.#parts;
    const roots = new Set(
      this.#bundles()
        .get(authority.trustDomain)
        ?.map((root) => root.fingerprint256),
    );
    const nowMs = clock.wallMs();
    let count = 0;
    for (const [socket, { end, endsAtMs, root }] of this.#proven) {
      if (nowMs < endsAtMs && roots.has(root)) continue;
      this.#proven.delete(socket);
      clock.after(RETURN_SPREAD_MS * Math.random(), end);
      count++;
    }
    if (count > 0) log.info("clients have to prove themselves anew", { connections: count });
  }

  #bundles(): TrustBundles {
    const { bundle } = this.#parts.authority;
    if (this.#trust?.of !== bundle) {
      const roots = bundle.authorities.map((der) => new X509Certificate(der));
      this.#trust = { of: bundle, bundles: new Map([[bundle.trustDomain, roots]]) };
    }
    return this.#trust.bundles;
  }

  /** A new key and a certificate for it, below the present issuer. */
  async #credentials(): Promise<SecureContextOptions> {
    const { authority, identity, clock } = this.#parts;
    const key = await makeLeafKey();
    const leaf = await authority.issue(identity, key.publicKey, "dns+spiffe");
    this.#madeAtMs = clock.wallMs();
    this.#renewAtMs = this.#madeAtMs + 0.7 * Math.max(0, leaf.notAfterMs - this.#madeAtMs);
    const cert = [leaf.der, ...leaf.intermediates].map(derToPem).join("");
    return {
      ...MESH_TLS,
      key: key.privateKeyPem,
      cert,
      ca: authority.anchors.map((anchor) => anchor.toString("pem")),
    };
  }

  #lookLater(): void {
    this.#timer = this.#parts.clock.after(LOOK_EVERY_MS, () => {
      this.#look();
      this.#lookLater();
    });
  }

  /** At 70 % of the certificate's life, and when the clock was set back to before it was made. The issuer is looked at too. */
  #look(): void {
    const { authority, clock, log } = this.#parts;
    authority.renewIssuer().then(
      (isRenewed) => {
        if (isRenewed) log.info("the issuer's certificate was renewed");
      },
      (error: unknown) => log.error("the issuer could not be renewed; it is tried again", { error }),
    );
    const nowMs = clock.wallMs();
    this.#sendAway();
    if (nowMs >= this.#renewAtMs || nowMs < this.#madeAtMs - SKEW_MS / 2) this.#renew();
  }

  /** One after another: what was asked for last is in force last. Connections that are up keep what they have. */
  #renew(): void {
    this.#renewing = this.#renewing.then(async () => {
      try {
        const options = await this.#credentials();
        this.#server?.setSecureContext(options);
      } catch (error) {
        this.#renewAtMs = 0;
        this.#parts.log.error("the control plane's own certificate could not be renewed; it is tried again", {
          error,
        });
      }
    });
  }
}
