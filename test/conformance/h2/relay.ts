/**
 * Lets a program that speaks plain HTTP/2 meet a sidecar where only sidecars are let in: takes plaintext connections on a
 * port of loopback and gives each one what a far sidecar would put around it, a certificate of the mesh, ALPN and the
 * transport header. Ends and resets pass in both directions.
 *
 *     relay.ts LISTEN-PORT SIDECAR-IP SIDECAR-NAME APPLICATION-PORT FOLDER-OF-CERTIFICATES
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { connect } from "node:tls";
import { encodeTransportHeader, TRANSPORT_ALPN } from "#/wire/transport-header.ts";

const [listenPort = "0", ip = "", name = "", port = "0", folder = "."] = process.argv.slice(2);
const read = (file: string): Buffer => readFileSync(join(folder, file));
const identity = { key: read("relay.key"), cert: read("relay.pem"), ca: read("root.pem") };
const header = encodeTransportHeader({ port: Number(port), name: null, protocol: "http2" });

const server = createServer({ noDelay: true }, (plain) => {
  const secure = connect({
    ...identity,
    host: ip,
    port: 4143,
    servername: name,
    ALPNProtocols: [TRANSPORT_ALPN],
    minVersion: "TLSv1.3",
  });
  secure.setNoDelay(true);
  secure.write(header);
  plain.pipe(secure).pipe(plain);
  plain.on("error", () => secure.destroy()).on("close", () => secure.destroy());
  secure.on("error", () => plain.resetAndDestroy()).on("close", () => plain.destroySoon());
});
server.listen(Number(listenPort), "127.0.0.1", () => process.stdout.write("listening\n"));
