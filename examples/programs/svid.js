/**
 * A program with an identity of its own, by the SPIFFE Workload API. SPIFFE_ENDPOINT_SOCKET says where that is.
 *
 *     svid.js show                         who we are, and until when
 *     svid.js serve PORT                   mutual TLS: each connection is greeted by its client's identity, and ended
 *     svid.js call HOST:PORT SPIFFE-ID     the same from the other side: prints the greeting of the server of that identity
 *     svid.js token AUDIENCE               a token for that audience
 *     svid.js verify AUDIENCE TOKEN        whose token it is, or why it is not good
 */
import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import { connect, createServer } from "node:tls";
import { credentials, loadPackageDefinition, Metadata } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const say = (text) => process.stdout.write(`${text}\n`);
const [what, ...args] = process.argv.slice(2);
const { SPIFFE_ENDPOINT_SOCKET } = process.env;
if (SPIFFE_ENDPOINT_SOCKET === undefined) {
  say("this pod has no Workload API");
  process.exit(1);
}
const proto = loadSync(join(import.meta.dirname, "workload.proto"), { keepCase: true });
const { SpiffeWorkloadAPI } = loadPackageDefinition(proto);
const api = new SpiffeWorkloadAPI(SPIFFE_ENDPOINT_SOCKET, credentials.createInsecure());
const header = new Metadata();
header.set("workload.spiffe.io", "true");

if (what === "show") {
  const { id, chain, roots } = await identity();
  say(`${id}, certificates: ${chain.length}, roots: ${roots.length}, until ${chain[0].validTo}`);
} else if (what === "serve") {
  const server = createServer({ requestCert: true, minVersion: "TLSv1.3" }, (socket) => {
    socket.on("error", () => undefined);
    socket.end(`hello ${spiffeId(socket.getPeerX509Certificate())}\n`);
  });
  await identity((current) => server.setSecureContext(secure(current)));
  server.listen(Number(args[0]), () => say(`serving on ${args[0]}`));
} else if (what === "call") {
  const [host, port] = args[0].split(":");
  // A peer is known by its SPIFFE ID, not by its host's name.
  const checkServerIdentity = (_host, { raw }) =>
    spiffeId(new X509Certificate(raw)) === args[1] ? undefined : new Error(`the server is not ${args[1]}`);
  const socket = connect({ host, port, ...secure(await identity()), checkServerIdentity });
  socket.on("error", (error) => say(error.message));
  socket.pipe(process.stdout);
} else if (what === "token") {
  say((await ask("FetchJWTSVID", { audience: [args[0]] })).svids[0].svid);
} else if (what === "verify") {
  const shown = { audience: args[0], svid: args[1] };
  await ask("ValidateJWTSVID", shown).then(
    (valid) => say(valid.spiffe_id),
    (error) => say(error.details),
  );
}
if (what !== "serve") api.close();

/** The first state of our identity; `changed` gets that one and each that follows. */
function identity(changed) {
  return new Promise((resolve, reject) => {
    const stream = api.FetchX509SVID({}, header);
    stream.on("error", reject);
    stream.on("data", ({ svids: [svid] }) => {
      const current = {
        id: svid.spiffe_id,
        chain: certificates(svid.x509_svid),
        roots: certificates(svid.bundle),
        key: svid.x509_svid_key,
      };
      changed?.(current);
      if (changed === undefined) stream.cancel();
      resolve(current);
    });
  });
}

function ask(method, request) {
  return new Promise((resolve, reject) =>
    api[method](request, header, (error, answer) => (error === null ? resolve(answer) : reject(error))),
  );
}

/** As Node's TLS takes it. */
function secure({ chain, key, roots }) {
  const base64 = key.toString("base64").replace(/(.{64})/g, "$1\n");
  return {
    cert: chain.join(""),
    key: `-----BEGIN PRIVATE KEY-----\n${base64}\n-----END PRIVATE KEY-----\n`,
    ca: roots.map(String),
  };
}

/** DER certificates that lie one behind the other; each says how long it is (X.690 §8.1.3). */
function certificates(bytes) {
  const found = [];
  for (let at = 0; at < bytes.length; at += found.at(-1).raw.length) {
    const length = 4 + bytes.readUInt16BE(at + 2);
    found.push(new X509Certificate(bytes.subarray(at, at + length)));
  }
  return found;
}

function spiffeId(certificate) {
  return /URI:(spiffe:[^,]+)/.exec(certificate?.subjectAltName ?? "")?.[1];
}
