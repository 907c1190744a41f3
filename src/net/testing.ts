import { createPublicKey, generateKeyPairSync, sign, X509Certificate, type KeyObject } from "node:crypto";
import { Der, tagged } from "#/wire/der.ts";

/** What a certificate for a test says, right or wrong. Times are offsets from `nowMs`. */
export interface TestCertificate {
  readonly commonName?: string;
  /** In this order, byte for byte. */
  readonly names?: readonly { readonly kind: "dns" | "uri"; readonly value: string }[];
  readonly nowMs?: number;
  readonly beginsInMs?: number;
  readonly endsInMs?: number;
  readonly isAuthority?: boolean;
  /** Bits of RFC 5280 §4.2.1.3 by number (0 = digitalSignature); null: no such extension. */
  readonly keyUsage?: readonly number[] | null;
  readonly isKeyUsageCritical?: boolean;
  readonly pathLength?: number;
  readonly extendedKeyUsage?: readonly string[];
  /** Instead of a new key. */
  readonly sameKeyAs?: TestIssued;
  /** Somebody else's: `key` of what is made does not belong to it then. */
  readonly publicKey?: KeyObject;
}

export interface TestIssued {
  readonly certificate: X509Certificate;
  readonly key: KeyObject;
  readonly pem: string;
  readonly keyPem: string;
}

const HOUR_MS = 3_600_000;
let serial = 1;

/** Makes a P-256 certificate for tests: self-signed without an issuer. What it says is not looked at. */
export function testCertificate(says: TestCertificate, issuer: TestIssued | null = null): TestIssued {
  const privateKey = says.sameKeyAs?.key ?? generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  const publicKey = says.publicKey ?? createPublicKey(privateKey);
  const nowMs = says.nowMs ?? Date.now();
  const subject = nameOf(says.commonName ?? "");
  const issuerName = issuer === null ? subject : rawSubject(issuer.certificate);
  const ecdsaWithSha256 = tagged(0x30, Der.oid("1.2.840.10045.4.3.2"));
  const tbs = tagged(
    0x30,
    tagged(0xa0, tagged(0x02, Uint8Array.of(2))),
    tagged(0x02, Uint8Array.of(1 + (serial >> 8), serial++ & 0xff)),
    ecdsaWithSha256,
    issuerName,
    tagged(0x30, time(nowMs + (says.beginsInMs ?? -HOUR_MS)), time(nowMs + (says.endsInMs ?? HOUR_MS))),
    subject,
    publicKey.export({ type: "spki", format: "der" }),
    tagged(0xa3, tagged(0x30, ...extensions(says))),
  );
  const signature = sign("sha256", tbs, issuer?.key ?? privateKey);
  const raw = tagged(0x30, tbs, ecdsaWithSha256, tagged(0x03, Uint8Array.of(0), signature));
  const certificate = new X509Certificate(raw);
  return {
    certificate,
    key: privateKey,
    pem: certificate.toString(),
    keyPem: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
  };
}

/** A root of a trust domain as the control plane makes it. */
export function testRoot(trustDomain: string, says: TestCertificate = {}): TestIssued {
  return testCertificate({
    commonName: `root of ${trustDomain}`,
    names: [{ kind: "uri", value: `spiffe://${trustDomain}` }],
    isAuthority: true,
    keyUsage: [5, 6],
    ...says,
  });
}

/** A leaf as the control plane makes it, except for what is given. */
export function testLeaf(
  issuer: TestIssued,
  { trustDomain = "cluster.local", namespace = "shop", account = "web" } = {},
  says: TestCertificate = {},
): TestIssued {
  return testCertificate(
    {
      names: [
        {
          kind: "dns",
          value: `${account}.${namespace}.serviceaccount.identity.pillion.${trustDomain}`,
        },
        { kind: "uri", value: `spiffe://${trustDomain}/ns/${namespace}/sa/${account}` },
      ],
      keyUsage: [0],
      extendedKeyUsage: ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"],
      ...says,
    },
    issuer,
  );
}

function extensions(says: TestCertificate): Uint8Array[] {
  const all: Uint8Array[] = [];
  const add = (id: string, isCritical: boolean, value: Uint8Array): void => {
    all.push(
      tagged(
        0x30,
        Der.oid(id),
        ...(isCritical ? [tagged(0x01, Uint8Array.of(0xff))] : []),
        tagged(0x04, value),
      ),
    );
  };
  const constraints = [
    ...(says.isAuthority === true ? [tagged(0x01, Uint8Array.of(0xff))] : []),
    ...(says.pathLength === undefined ? [] : [tagged(0x02, Uint8Array.of(says.pathLength))]),
  ];
  add("2.5.29.19", true, tagged(0x30, ...constraints));
  const usage = says.keyUsage ?? null;
  if (usage !== null) {
    const bits = usage.reduce((sum, bit) => sum | (0x80 >> bit), 0);
    add("2.5.29.15", says.isKeyUsageCritical ?? true, tagged(0x03, Uint8Array.of(0, bits)));
  }
  if (says.extendedKeyUsage !== undefined)
    add("2.5.29.37", false, tagged(0x30, ...says.extendedKeyUsage.map((id) => Der.oid(id))));
  const names = says.names ?? [];
  if (names.length > 0)
    add(
      "2.5.29.17",
      says.commonName === undefined,
      tagged(
        0x30,
        ...names.map(({ kind, value }) => tagged(kind === "dns" ? 0x82 : 0x86, Buffer.from(value, "latin1"))),
      ),
    );
  return all;
}

function nameOf(commonName: string): Uint8Array {
  if (commonName === "") return tagged(0x30);
  return tagged(0x30, tagged(0x31, tagged(0x30, Der.oid("2.5.4.3"), tagged(0x0c, Buffer.from(commonName)))));
}

/** Our own certificates have nothing but a common name. */
function rawSubject(certificate: X509Certificate): Uint8Array {
  return nameOf(/^CN=(.*)$/m.exec(certificate.subject ?? "")?.[1] ?? "");
}

function time(ms: number): Uint8Array {
  const text = new Date(ms).toISOString().replaceAll(/[-:T]|\.\d+/g, "");
  return tagged(0x18, Buffer.from(text));
}
