import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** The ALPN name that sidecars speak among themselves. */
export const MESH_ALPN = "transport.l5d.io/v1";
export const SERVER_NAME = "server.default.serviceaccount.identity.linkerd.cluster.local";
export const CLIENT_NAME = "client.default.serviceaccount.identity.linkerd.cluster.local";

/**
 * Makes every certificate the runtime comparison needs in `folder`, by the system's `openssl`, so that neither
 * candidate judges its own work: `root`, `other-root`, and the leaves `server`, `server2` (for rotation), `client`,
 * `expired`, `other` (signed by other-root) and `self` (signed by nobody). Each is `NAME.pem` and `NAME.key`.
 */
export function makeCertificates(folder: string): void {
  mkdirSync(folder, { recursive: true });
  const openssl = (...args: string[]): void => {
    execFileSync("openssl", args, { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
  };
  const key = (name: string): void =>
    openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", `${name}.key`);
  const selfSigned = (name: string, extension: string): void => {
    key(name);
    const subject = ["-subj", `/CN=${name}`, "-days", "1", "-addext", extension];
    openssl("req", "-x509", "-new", "-key", `${name}.key`, "-out", `${name}.pem`, ...subject);
  };
  const leaf = (name: string, dns: string, root: string, days: string): void => {
    key(name);
    openssl("req", "-new", "-key", `${name}.key`, "-subj", "/", "-out", `${name}.csr`);
    writeFileSync(
      join(folder, `${name}.ext`),
      `subjectAltName=critical,DNS:${dns}\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n`,
    );
    const signed = ["-CA", `${root}.pem`, "-CAkey", `${root}.key`, "-CAcreateserial", "-days", days];
    openssl(
      "x509",
      "-req",
      "-in",
      `${name}.csr`,
      ...signed,
      "-extfile",
      `${name}.ext`,
      "-out",
      `${name}.pem`,
    );
  };
  selfSigned("root", "keyUsage=critical,keyCertSign");
  selfSigned("other-root", "keyUsage=critical,keyCertSign");
  selfSigned("self", `subjectAltName=DNS:${CLIENT_NAME}`);
  leaf("server", SERVER_NAME, "root", "1");
  leaf("server2", SERVER_NAME, "root", "1");
  leaf("client", CLIENT_NAME, "root", "1");
  leaf("other", CLIENT_NAME, "other-root", "1");
  // Valid until the second it was made in: expired once the caller has waited that second out.
  leaf("expired", CLIENT_NAME, "root", "0");
}
