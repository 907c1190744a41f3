import { sign, type KeyObject } from "node:crypto";
import { Der } from "#/wire/der.ts";

/**
 * A PKCS#10 request (RFC 2986) for one DNS name, signed with a P-256 key. An empty subject and one subjectAltName: what
 * Linkerd's identity service asks for (facts §3). The name must be shorter than 64 KiB, which DNS sees to.
 */
export function makeCsr(name: string, privateKey: KeyObject, publicKey: KeyObject): Uint8Array {
  const subjectAltName = Der.sequence(Der.implicit(2, name));
  const extension = Der.sequence(Der.oid("2.5.29.17"), Der.octetString(subjectAltName));
  // RFC 2986 §4.1: attributes [0]; RFC 2985 §5.4.2: extensionRequest.
  const attributes = Der.context(
    0,
    Der.sequence(Der.oid("1.2.840.113549.1.9.14"), Der.set(Der.sequence(extension))),
  );
  const publicKeyInfo = publicKey.export({ type: "spki", format: "der" });
  const info = Der.sequence(Der.integer(0), Der.sequence(), publicKeyInfo, attributes);
  const signature = sign("sha256", info, { key: privateKey, dsaEncoding: "der" });
  const ecdsaWithSha256 = Der.sequence(Der.oid("1.2.840.10045.4.3.2"));
  return Der.sequence(info, ecdsaWithSha256, Der.bitString(signature));
}
