import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { SILENT } from "#/net/log.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { StateFolder } from "../state-folder.ts";
import { Authority, makeLeafKey } from "./authority.ts";
import { fingerprint, makeIssuer, makeRoot, pemOf, type KeyedCertificate } from "./certificates.ts";
import { IssuerFeed } from "./issuer-feed.ts";
import { IssuerFolder } from "./issuer-folder.ts";

const NOW_MS = new ManualClock().wallMs();
const WEB = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" };
const base = mkdtempSync(join(tmpdir(), "pillion-issuer-"));
after(() => rmSync(base, { recursive: true }));

let count = 0;
let dir = "";
let folder: IssuerFolder;
let clock: ManualClock;

beforeEach(() => {
  dir = join(base, String(count++));
  mkdirSync(dir);
  clock = new ManualClock();
  folder = new IssuerFolder("DIR", dir, "cluster.local", clock);
});

interface Made {
  readonly root: KeyedCertificate;
  readonly issuer: KeyedCertificate;
}

async function make(trustDomain = "cluster.local"): Promise<Made> {
  const root = await makeRoot(trustDomain, NOW_MS);
  return { root, issuer: await makeIssuer(root, trustDomain, NOW_MS) };
}

function put({ root, issuer }: Made, into = dir, tail = ""): void {
  writeFileSync(join(into, "ca.crt"), pemOf([root.certificate]) + tail);
  writeFileSync(join(into, "tls.crt"), pemOf([issuer.certificate]) + tail);
  writeFileSync(join(into, "tls.key"), issuer.keyPem + tail);
}

async function complaint(): Promise<string> {
  return await folder.read().then(
    () => "",
    (error: Error) => error.message,
  );
}

test("three PEM files are read, whatever white space and text is around them", async () => {
  const made = await make();
  put(made, dir, "\n\n");
  writeFileSync(join(dir, "ca.crt"), `subject=our root\n${pemOf([made.root.certificate]).trimEnd()}`);
  const { anchors, issuer } = await folder.read();
  assert.deepEqual(anchors.map(fingerprint), [fingerprint(made.root.certificate)]);
  assert.equal(fingerprint(issuer.certificate), fingerprint(made.issuer.certificate));
});

test("an issuer by openssl, with an RSA key and an intermediate above it, signs leaves that verify", async () => {
  const at = (name: string): string => join(dir, name);
  const openssl = (...args: string[]): void => void execFileSync("openssl", args, { stdio: "pipe" });
  const usage = "keyUsage=critical,keyCertSign";
  const ca = "basicConstraints=critical,CA:true";
  const key = ["-newkey", "rsa:2048", "-nodes", "-days", "9000", "-addext", usage, "-addext", ca];
  openssl("req", "-x509", ...key, "-keyout", at("root.key"), "-out", at("ca.crt"), "-subj", "/CN=our root");
  const below = (name: string, above: string, aboveCert: string): void =>
    openssl(
      "req",
      "-x509",
      ...key,
      "-keyout",
      at(`${name}.key`),
      "-out",
      at(`${name}.crt`),
      "-subj",
      `/CN=${name}`,
      "-CA",
      at(aboveCert),
      "-CAkey",
      at(`${above}.key`),
    );
  below("middle", "root", "ca.crt");
  below("tls", "middle", "middle.crt");
  const chain = ["tls.crt", "middle.crt"].map((name) => execFileSync("cat", [at(name)]).toString()).join("");
  writeFileSync(at("tls.crt"), chain);
  const state = new StateFolder(join(dir, "state"));
  const authority = await Authority.open(state, "cluster.local", () => Date.now(), folder);
  const leaf = await authority.issue(WEB, (await makeLeafKey()).publicKey, "dns+spiffe");
  const files = [leaf.der, ...leaf.intermediates].map((der, i) => {
    writeFileSync(at(`${i}.pem`), new X509Certificate(der).toString());
    return at(`${i}.pem`);
  });
  assert.equal(files.length, 3);
  const [first = "", ...others] = files;
  const said = execFileSync("openssl", [
    "verify",
    "-CAfile",
    at("ca.crt"),
    ...others.flatMap((file) => ["-untrusted", file]),
    first,
  ]);
  assert.match(said.toString(), /: OK/);
  assert.deepEqual(authority.problems(), []);
});

test("what is missing, no authority, another key, another domain or another root is said with its file", async () => {
  const made = await make();
  assert.equal(await complaint(), "DIR/ca.crt: it is not there");
  put(made);
  writeFileSync(join(dir, "tls.key"), (await make()).issuer.keyPem);
  assert.equal(await complaint(), "DIR/tls.crt: the key is not the certificate's");
  put(made);
  writeFileSync(join(dir, "ca.crt"), pemOf([(await make()).root.certificate]));
  assert.equal(await complaint(), "DIR/tls.crt: it was signed by none of the roots in ca.crt");
  put(await make("elsewhere.example"));
  assert.match(await complaint(), /^DIR\/tls\.crt: it is for spiffe:\/\/elsewhere\.example, and this/);
  const state = new StateFolder(join(dir, "state"));
  const authority = await Authority.open(state, "cluster.local", () => NOW_MS);
  const leafKey = await makeLeafKey();
  const leaf = await authority.issue(WEB, leafKey.publicKey, "dns");
  put(made);
  writeFileSync(join(dir, "tls.crt"), new X509Certificate(leaf.der).toString());
  writeFileSync(join(dir, "tls.key"), leafKey.privateKeyPem);
  assert.match(await complaint(), /^DIR\/tls\.crt: .* may not sign \(basicConstraints\)/);
  writeFileSync(join(dir, "ca.crt"), "nothing");
  assert.equal(await complaint(), "DIR/ca.crt: it holds no certificate");
});

function kindOf({ rotation }: Authority): string | null {
  return rotation?.kind ?? null;
}

/** Until all that promises and files still have to say is said. */
async function turns(until: () => boolean): Promise<void> {
  for (const end = Date.now() + 30_000; !until() && Date.now() < end;) {
    clock.advance(500);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  assert.ok(until());
}

test("a swap of Kubernetes' symbolic links is taken up as a rotation; a bad one is said, and the last good stays", async () => {
  const swap = (made: Made, name: string, spoil = false): void => {
    const into = join(dir, `..${name}`);
    mkdirSync(into);
    put(made, into);
    if (spoil) writeFileSync(join(into, "tls.key"), "no key");
    symlinkSync(`..${name}`, join(dir, "..new"));
    renameSync(join(dir, "..new"), join(dir, "..data"));
  };
  const [first, second] = [await make(), await make()];
  swap(first, "1");
  const state = new StateFolder(join(dir, "state"));
  const authority = await Authority.open(state, "cluster.local", () => clock.wallMs(), folder);
  const feed = new IssuerFeed(folder, authority, SILENT);
  try {
    assert.equal(fingerprint(authority.issuer), fingerprint(first.issuer.certificate));
    swap(second, "bad", true);
    await turns(() => feed.problem !== "");
    assert.match(feed.problem, /what was in force stays: DIR\/tls\.crt: /);
    assert.equal(fingerprint(authority.issuer), fingerprint(first.issuer.certificate));
    assert.equal(kindOf(authority), null);
    swap(second, "2");
    await turns(() => authority.rotation !== null);
    assert.equal(feed.problem, "");
    assert.equal(kindOf(authority), "root");
    assert.equal(
      fingerprint(authority.issuer),
      fingerprint(first.issuer.certificate),
      "not before all trust it",
    );
    assert.equal(authority.anchors.length, 2);
    authority.signByNext();
    // As after a restart in the middle of it.
    const again = await Authority.open(state, "cluster.local", () => clock.wallMs(), folder);
    assert.equal(fingerprint(again.issuer), fingerprint(second.issuer.certificate));
    again.dropOldRoots();
    again.finishRotation();
    assert.deepEqual(again.anchors.map(fingerprint), [fingerprint(second.root.certificate)]);
  } finally {
    feed.close();
  }
});

test("what comes during a rotation waits for its end, and what comes when all has expired is taken at once", async () => {
  const [first, second] = [await make(), await make()];
  put(first);
  const state = new StateFolder(join(dir, "state"));
  let leapMs = 0;
  const authority = await Authority.open(state, "cluster.local", () => NOW_MS + leapMs, folder);
  const material = { anchors: [second.root.certificate], issuer: second.issuer };
  assert.equal(authority.adopt({ anchors: [first.root.certificate], issuer: first.issuer }), "nothing new");
  assert.equal(authority.adopt(material), "taken");
  assert.equal(authority.adopt({ anchors: [first.root.certificate], issuer: first.issuer }), "later");
  authority.signByNext();
  authority.dropOldRoots();
  authority.finishRotation();
  leapMs = 11 * 365 * 24 * 3_600_000;
  const root = await makeRoot("cluster.local", NOW_MS + leapMs);
  const issuer = await makeIssuer(root, "cluster.local", NOW_MS + leapMs);
  assert.equal(authority.adopt({ anchors: [root.certificate], issuer }), "taken");
  assert.equal(authority.rotation, null);
  assert.deepEqual(authority.problems(), []);
});

test("what comes when all has expired is taken also in the middle of a rotation, which would wait for ever", async () => {
  const [first, second] = [await make(), await make()];
  put(first);
  const state = new StateFolder(join(dir, "state"));
  let leapMs = 0;
  const authority = await Authority.open(state, "cluster.local", () => NOW_MS + leapMs, folder);
  assert.equal(authority.adopt({ anchors: [second.root.certificate], issuer: second.issuer }), "taken");
  assert.equal(kindOf(authority), "root");
  leapMs = 11 * 365 * 24 * 3_600_000;
  const root = await makeRoot("cluster.local", NOW_MS + leapMs);
  const issuer = await makeIssuer(root, "cluster.local", NOW_MS + leapMs);
  assert.equal(authority.adopt({ anchors: [root.certificate], issuer }), "taken");
  assert.equal(kindOf(authority), null);
  assert.equal(authority.canSign, true);
});

test("a root in the bundle that has ended takes nothing from the others: leaves are signed, and a new issuer comes step by step", async () => {
  const [made, next] = [await make(), await make()];
  const ended = await makeRoot("cluster.local", NOW_MS - 11 * 365 * 24 * 3_600_000);
  put(made);
  const anchors = [ended.certificate, made.root.certificate];
  writeFileSync(join(dir, "ca.crt"), anchors.map((anchor) => anchor.toString("pem")).join("\n"));
  const state = new StateFolder(join(dir, "state"));
  const authority = await Authority.open(state, "cluster.local", () => NOW_MS, folder);
  assert.equal(authority.unusable().length, 1);
  assert.equal(authority.canSign, true);
  assert.equal(authority.adopt({ anchors: [next.root.certificate], issuer: next.issuer }), "taken");
  assert.equal(kindOf(authority), "root");
});
