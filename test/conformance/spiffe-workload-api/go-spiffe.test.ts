/** The clients' usual library, go-spiffe, against our Workload API: what it does not accept ends its program with an error. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";
import { RpcError } from "#/control/rpc/status.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { goTool } from "../../tools/go-tool.ts";
import { goSpiffe, workloadRig, type Program, type WorkloadRig } from "./rig.ts";

const WEB = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" };
const DB = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "db" };
const WEB_ID = "spiffe://cluster.local/ns/shop/sa/web";
const DB_ID = "spiffe://cluster.local/ns/shop/sa/db";

describe("go-spiffe against the Workload API", () => {
  let program = "";
  let rig: WorkloadRig;
  const children = new Set<Program["process"]>();
  before(async () => {
    program = await goTool("go-spiffe");
    rig = await workloadRig(WEB);
  });
  after(() => {
    for (const child of children) child.kill("SIGKILL");
    rig.close();
  });

  const start = (...args: string[]): Program => {
    const started = goSpiffe(program, rig.socket, args);
    children.add(started.process);
    return started;
  };

  test("takes an X.509-SVID, which chains to the bundle of its trust domain", async () => {
    const { code, lines, stderr } = await start("x509", "1").ended;
    assert.equal(code, 0, stderr);
    assert.equal(lines[0]?.["id"], WEB_ID);
    assert.equal(lines[0]["svids"], 1);
    assert.equal(lines[0]["chain"], 2);
    assert.equal(lines[0]["bundles"], 1);
  });

  test("every program of the workload gets the same certificate until it is renewed", async () => {
    const both = await Promise.all([start("x509", "1").ended, start("x509", "1").ended]);
    assert.equal(both[0].lines[0]?.["serial"], both[1].lines[0]?.["serial"]);
  });

  test("sees a renewal on its open stream: another certificate, with another key", async () => {
    const watching = start("x509", "2");
    const first = await watching.next();
    rig.keeper.renew();
    const second = await watching.next();
    assert.notEqual(second["serial"], first["serial"]);
    assert.notEqual(second["key"], first["key"]);
    assert.equal((await watching.ended).code, 0);
  });

  test("sees roots come and go on its open stream, each trust domain's apart", async () => {
    const before = rig.bundles;
    const watching = start("x509", "2");
    assert.equal((await watching.next())["bundles"], 1);
    const roots = before.get("cluster.local")!;
    rig.setBundles(new Map([...before, ["other.example", roots]]));
    assert.equal((await watching.next())["bundles"], 2);
    const { lines, stderr } = await start("bundles").ended;
    assert.deepEqual(
      lines.map((line) => line["trustDomain"]).toSorted(),
      ["cluster.local", "other.example"],
      stderr,
    );
    rig.setBundles(before);
  });

  test("takes a JWT-SVID, and finds it valid itself as the server does", async () => {
    const { code, lines, stderr } = await start("jwt", "spiffe://cluster.local/ns/shop/sa/db").ended;
    assert.equal(code, 0, stderr);
    assert.equal(lines[0]?.["id"], WEB_ID);
    assert.equal(lines[0]["validated"], WEB_ID);
    assert.deepEqual(lines[0]["audience"], ["spiffe://cluster.local/ns/shop/sa/db"]);
    assert.ok((lines[0]["seconds"] as number) <= 300 && (lines[0]["seconds"] as number) > 200);
  });

  test("is told that a token is for somebody else", async () => {
    const { lines } = await start("jwt", "db").ended;
    const { code, stderr } = await start("validate", "cache", String(lines[0]?.["token"])).ended;
    assert.equal(code, 1);
    assert.match(stderr, /InvalidArgument.*not for the audience \\?"cache/);
  });

  test("is told that a token is forged: by another mesh's key of the same trust domain's name", async () => {
    const other = await workloadRig(WEB);
    try {
      const token = String((await goSpiffe(program, other.socket, ["jwt", "db"]).ended).lines[0]?.["token"]);
      const { code, stderr } = await start("validate", "db", token).ended;
      assert.equal(code, 1);
      assert.match(stderr, /InvalidArgument.*no key of its trust domain/);
    } finally {
      other.close();
    }
  });

  test("takes the JWT bundles", async () => {
    const { code, lines, stderr } = await start("jwt-bundles", "1").ended;
    assert.equal(code, 0, stderr);
    assert.deepEqual(lines, [{ trustDomain: "cluster.local", keys: 1 }]);
  });

  test("speaks mutual TLS with another program, each proven to the other, and to no other (spiffetls)", async () => {
    // Of another mesh, whose trust domain has the same name and another root.
    const db = await workloadRig(DB);
    try {
      const server = start("serve", "127.0.0.1:0");
      const address = String((await server.next())["listening"]);
      const wrong = await start("dial", address, DB_ID).ended;
      assert.equal(wrong.code, 1, "a server that is somebody else was taken");
      assert.match(wrong.stderr, /unexpected ID/);
      const foreign = await goSpiffe(program, db.socket, ["dial", address, WEB_ID]).ended;
      assert.equal(foreign.code, 1, "a client of another root was taken");
      const { lines, stderr } = await start("dial", address, WEB_ID).ended;
      assert.equal(lines[0]?.["answer"], `hello from ${WEB_ID}`, stderr);
      server.process.kill();
    } finally {
      db.close();
    }
  });

  test("without the header that every call must have: InvalidArgument (Workload Endpoint §6)", async () => {
    for (const pairs of [[], ["workload.spiffe.io=false"]]) {
      const { lines } = await start("raw", "FetchX509SVID", ...pairs).ended;
      assert.equal(lines[0]?.["status"], "InvalidArgument");
      assert.match(String(lines[0]["reason"]), /workload\.spiffe\.io: true is missing/);
    }
  });

  test("what is not served is Unimplemented: WIT-SVIDs, and what nobody has heard of", async () => {
    for (const method of ["FetchWITSVID", "FetchWITBundles", "Invented"]) {
      const { lines } = await start("raw", method, "workload.spiffe.io=true").ended;
      assert.equal(lines[0]?.["status"], "Unimplemented");
    }
  });

  test("a control plane that is away is Unavailable with a reason, and the next try finds it again", async () => {
    const away = await workloadRig(WEB);
    try {
      away.control = new RpcError(GrpcStatus.UNAVAILABLE, "away");
      const watching = goSpiffe(program, away.socket, ["x509", "2"]);
      const first = await watching.next();
      assert.equal(first["error"], "Unavailable");
      assert.match(String(first["reason"]), /control plane did not answer/);
      away.control = null;
      assert.equal((await watching.next())["id"], WEB_ID);
      watching.process.kill();
    } finally {
      away.close();
    }
  });

  test("an identity that no pod has any more is PermissionDenied", async () => {
    const gone = await workloadRig(WEB);
    try {
      gone.isInUse = false;
      const watching = goSpiffe(program, gone.socket, ["x509", "1"]);
      const { lines } = await watching.ended;
      assert.equal(lines[0]?.["error"], "PermissionDenied");
      assert.match(String(lines[0]["reason"]), /no pod runs as this identity/);
    } finally {
      gone.close();
    }
  });

  test("a user that no container runs as is PermissionDenied, and is told which may", async () => {
    const strict = await workloadRig(WEB, { uids: [4711] });
    try {
      const refused = goSpiffe(program, strict.socket, ["x509", "1"]);
      const { lines } = await refused.ended;
      assert.equal(lines[0]?.["error"], "PermissionDenied");
      assert.match(String(lines[0]["reason"]), /none that a container of this pod runs as \(4711\)/);
    } finally {
      strict.close();
    }
  });

  test("other bytes than HTTP/2 end their connection, and nobody else's", async () => {
    const watching = start("x509", "2");
    await watching.next();
    const path = rig.socket.slice("unix://".length);
    for (const bytes of ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", randomUUID().repeat(100), "\0".repeat(4096)]) {
      await new Promise<void>((resolve) => {
        const socket = connect(path, () => socket.write(bytes));
        socket.on("error", () => undefined);
        socket.on("data", () => undefined);
        socket.on("close", () => resolve());
      });
    }
    rig.keeper.renew();
    await watching.next();
    assert.equal((await watching.ended).code, 0);
  });
});
