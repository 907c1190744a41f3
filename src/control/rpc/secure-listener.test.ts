import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectHttp2, type ClientHttp2Session } from "node:http2";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { connect, type TLSSocket } from "node:tls";
import { SILENT } from "#/net/log.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { Authority, makeLeafKey } from "../identity/authority.ts";
import { derToPem, LEAF_LIFE_MS } from "../identity/certificates.ts";
import { StateFolder } from "../state-folder.ts";
import { SecureListener } from "./secure-listener.ts";
import { RpcServer } from "./server.ts";

const WEB = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" };
const CONTROL = { trustDomain: "cluster.local", namespace: "pillion", serviceAccount: "control" };

const dir = mkdtempSync(join(tmpdir(), "pillion-secure-"));
after(() => rmSync(dir, { recursive: true }));

/** Certificates are looked at by OpenSSL, too, so that the calendar is the machine's. */
class CalendarClock extends ManualClock {
  readonly #startMs = Date.now() - this.nowMs();
  override wallMs(): number {
    return this.#startMs + this.nowMs();
  }
}

async function world(name: string): Promise<{
  readonly clock: CalendarClock;
  readonly authority: Authority;
  readonly close: () => void;
  readonly dial: (isAnonymous?: boolean) => Promise<ClientHttp2Session>;
}> {
  const clock = new CalendarClock();
  const authority = await Authority.open(new StateFolder(join(dir, name)), "cluster.local", () =>
    clock.wallMs(),
  );
  // Pings are asked for by its clock, which therefore stands.
  const rpc = new RpcServer({ clock: new ManualClock(), log: SILENT, methods: new Map() });
  const listener = new SecureListener({ authority, identity: CONTROL, rpc, clock, log: SILENT });
  const port = await listener.listen("127.0.0.1", 0);
  const dial = async (isAnonymous = false): Promise<ClientHttp2Session> => {
    const key = await makeLeafKey();
    const leaf = await authority.issue(WEB, key.publicKey, "dns+spiffe");
    const cert = [leaf.der, ...leaf.intermediates].map(derToPem).join("");
    const socket = connect({
      host: "127.0.0.1",
      port,
      ca: authority.trustAnchorsPem,
      ALPNProtocols: ["h2"],
      checkServerIdentity: () => undefined,
      ...(isAnonymous ? {} : { key: key.privateKeyPem, cert }),
    });
    const session = connectHttp2("https://control", { createConnection: () => socket });
    session.on("error", () => undefined);
    await once(session, "remoteSettings");
    return session;
  };
  const close = (): void => {
    rpc.close();
    listener.close();
  };
  return { clock, authority, close, dial };
}

test("whoever was proven by a root that is gone has to come again, and nobody else", async () => {
  const { authority, clock, close, dial } = await world("root");
  const [old, anonymous] = [await dial(), await dial(true)];
  await authority.prepare("root");
  authority.signByNext();
  const fresh = await dial();
  const goesAway = once(old, "goaway");
  clock.advance(1_000);
  assert.equal(old.closed, false);
  authority.dropOldRoots();
  clock.advance(60_000);
  await goesAway;
  assert.deepEqual([fresh.closed, anonymous.closed], [false, false]);
  for (const session of [old, fresh, anonymous]) session.destroy();
  close();
});

test("whose certificate has ended has to show another", async () => {
  const { clock, close, dial } = await world("time");
  const session = await dial();
  const goesAway = once(session, "goaway");
  clock.wallMs = () => Date.now() + LEAF_LIFE_MS;
  clock.advance(90_000);
  await goesAway;
  session.destroy();
  close();
});

test("the order of ciphers is the mesh's, whatever the client's is", async () => {
  const { close, dial } = await world("cipher");
  const session = await dial();
  const { standardName } = (session.socket as TLSSocket).getCipher();
  session.destroy();
  close();
  assert.equal(standardName, "TLS_AES_128_GCM_SHA256");
});
