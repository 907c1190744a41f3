import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { IdentityStatus, RotationReport } from "#/model/identity-status.ts";
import { makeIssuer, makeRoot, pemOf, SKEW_MS } from "#/control/identity/certificates.ts";
import { Clocks } from "./fixtures/clocks.ts";
import { isAlive, kill, load, loadPod, noFailures, service, summary, warmed } from "./fixtures/scene.ts";
import { Mesh, NAMESPACE } from "./mesh.ts";
import type { LoadReport } from "./fixtures/load.ts";
import type { PodStatus } from "#/model/pod-plan.ts";

const SERVICES = ["one", "two", "three", "four", "five"];
const PER_SECOND = 500;
/** Of those, with a connection of its own, and so a handshake between two sidecars. */
const DIALLED = 50;
const COUNTED = 1_000;
const TIMEOUT_SECONDS = "240";

async function identityOf(mesh: Mesh): Promise<IdentityStatus> {
  const { stdout, stderr } = await mesh.pillion("identity", "status", "-o", "json");
  assert.notEqual(stdout, "", stderr);
  return JSON.parse(stdout) as IdentityStatus;
}

/** As long as a control plane that has just begun cannot answer: null. */
async function identityIfThere(mesh: Mesh): Promise<IdentityStatus | null> {
  const { stdout } = await mesh.pillion("identity", "status", "-o", "json");
  return stdout === "" ? null : (JSON.parse(stdout) as IdentityStatus);
}

function rate(report: LoadReport): number {
  const answered = Object.values(report.ok).reduce((sum, count) => sum + count, 0);
  return Math.round(answered / report.seconds);
}

function begin(mesh: Mesh): Promise<unknown> {
  mesh.write("namespace.yaml", NAMESPACE);
  for (const [i, name] of SERVICES.entries()) {
    // A call from service to service as well.
    const env = i === 0 ? { NEXT_HTTP: "http://two/" } : {};
    // The echo says nothing that detection could tell from a slow request.
    const annotations = { "config.linkerd.io/opaque-ports": "7000" };
    mesh.write(`${name}.yaml`, service(name, { env, annotations }));
  }
  mesh.write(
    "load.yaml",
    loadPod("load", {
      http: {
        url: SERVICES.map((name) => `http://${name}/`).join(" "),
        connections: 20,
        perSecond: PER_SECOND - DIALLED,
      },
      dial: { hosts: SERVICES, port: 7000, perSecond: DIALLED },
    }),
  );
  return mesh.up();
}

/** Waits for so many answers since the last mark, whatever the machine's speed, or for a failure, and counts anew. */
async function counted(mesh: Mesh, loader: PodStatus): Promise<LoadReport> {
  await mesh.until(
    `${COUNTED} answers`,
    async () => {
      const { ok, failed } = await load(mesh, loader, "report");
      return failed > 0 || ((ok["http"] ?? 0) >= COUNTED && (ok["dial"] ?? 0) > 0);
    },
    120_000,
  );
  return await load(mesh, loader, "mark");
}

test("root and issuer rotate, and clocks jump five minutes either way, under load without a failed request", async (t) => {
  using clocks = await Clocks.make();
  const mesh = new Mesh("rotation", clocks.node);
  try {
    await begin(mesh);
    const loader = await mesh.pod("load");
    await warmed(mesh, loader, ["http", "dial"]);
    const before = await identityOf(mesh);

    const rotated = await mesh.pillion("identity", "rotate", "--root", "--timeout", TIMEOUT_SECONDS);
    assert.equal(rotated.code, 0, rotated.stderr);
    const byRoot = await counted(mesh, loader);
    t.diagnostic(`root rotation: ${rate(byRoot)} requests/s; ${summary(byRoot)}`);
    noFailures(byRoot);
    const after = await identityOf(mesh);
    assert.equal(after.roots.length, 1, "the old root is gone");
    assert.notEqual(after.roots[0]?.serial, before.roots[0]?.serial);
    assert.notEqual(after.issuer.serial, before.issuer.serial);

    clocks.set("control", "+5m");
    clocks.set("sidecar-load", "-5m");
    const apart = await counted(mesh, loader);
    t.diagnostic(
      `control plane 5 min ahead, client 5 min behind: ${rate(apart)} requests/s; ${summary(apart)}`,
    );
    noFailures(apart);

    // By those clocks.
    const reissued = await mesh.pillion("identity", "rotate", "--issuer", "--timeout", TIMEOUT_SECONDS);
    assert.equal(reissued.code, 0, reissued.stderr);
    const byIssuer = await counted(mesh, loader);
    t.diagnostic(`issuer rotation: ${rate(byIssuer)} requests/s; ${summary(byIssuer)}`);
    noFailures(byIssuer);
    const last = await identityOf(mesh);
    assert.equal(last.roots[0]?.serial, after.roots[0]?.serial);
    assert.notEqual(last.issuer.serial, after.issuer.serial);
    assert.ok(
      last.issuer.notBeforeMs + SKEW_MS > Date.now() + 3 * 60_000,
      "the control plane goes by the clock that it was given",
    );

    clocks.set("control", "-5m");
    clocks.set("sidecar", "+5m");
    clocks.set("sidecar-load", "+0");
    const jumped = await counted(mesh, loader);
    t.diagnostic(
      `control plane 10 min back, servers 5 min ahead: ${rate(jumped)} requests/s; ${summary(jumped)}`,
    );
    noFailures(jumped);
    noFailures(await load(mesh, loader, "stop"));
  } finally {
    await mesh.close();
  }
});

test("a rotation whose control plane is killed at each step is finished, and what has expired is named and repaired", async (t) => {
  using clocks = await Clocks.make();
  const mesh = new Mesh("repair", clocks.node);
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write("web.yaml", service("web"));
    mesh.write("client.yaml", service("client"));
    await mesh.up();
    const client = await mesh.pod("client");
    const web = await mesh.pod("web");
    const first = await identityOf(mesh);

    // A sidecar that is stopped can confirm nothing, so each step waits until the control plane was killed in it.
    const webPid = web.sidecar?.pid ?? 0;
    const clientPid = client.sidecar?.pid ?? 0;
    process.kill(webPid, "SIGSTOP");
    const rotating = mesh.pillion("identity", "rotate", "--root", "--timeout", TIMEOUT_SECONDS);
    const killed: string[] = [];
    for (const step of ["distribute", "renew", "drop"]) {
      await mesh.until(
        `${step}, and to wait for web`,
        async () => {
          const rotation = (await identityIfThere(mesh))?.rotation ?? null;
          return isAt(rotation, step) && isAwaited(rotation, web);
        },
        120_000,
      );
      const { controlPid } = await mesh.status();
      kill([controlPid]);
      killed.push(step);
      await mesh.until("its end", async () => await Promise.resolve(!isAlive(controlPid)));
      await mesh.until(
        "the next control plane to wait at the same step",
        async () => {
          const rotation = (await identityIfThere(mesh))?.rotation ?? null;
          return isAt(rotation, step) && isAwaited(rotation, web);
        },
        60_000,
      );
      if (step !== "drop") {
        // Somebody else is waited for while web does its part, so that it can be stopped again before the next step.
        process.kill(clientPid, "SIGSTOP");
        process.kill(webPid, "SIGCONT");
        await mesh.until(
          "web to have done its part",
          async () => {
            const rotation = (await identityIfThere(mesh))?.rotation ?? null;
            return rotation !== null && !isAwaited(rotation, web);
          },
          60_000,
        );
        process.kill(webPid, "SIGSTOP");
      }
      process.kill(step === "drop" ? webPid : clientPid, "SIGCONT");
    }
    const { code, stderr } = await rotating;
    assert.equal(code, 0, stderr);
    t.diagnostic(`killed at ${killed.join(", ")}; finished`);
    const rotated = await identityOf(mesh);
    assert.equal(rotated.rotation, null);
    assert.equal(rotated.roots.length, 1);
    assert.notEqual(rotated.roots[0]?.serial, first.roots[0]?.serial);
    assert.equal((await mesh.pod("web")).sidecar?.pid, webPid, "no sidecar was started again");
    await mesh.until("an answer", async () => (await askWeb()).startsWith("web-"));

    // Two years later.
    clocks.set("control", "+730d");
    clocks.set("sidecar", "+730d");
    const { issuer } = rotated;
    const ended = new Date(issuer.notAfterMs).toISOString();
    const exactly = new RegExp(
      `the issuer's certificate "${issuer.name}" \\(serial ${issuer.serial.slice(0, 8)}…\\) expired at ${ended}.*pillion identity repair`,
    );
    await mesh.until("status to tell", async () => exactly.test((await mesh.pillion("status")).stdout));
    const said = await mesh.pillion("identity", "status");
    assert.equal(said.code, 1);
    assert.match(said.stdout, exactly);
    assert.match(
      (await mesh.pillion("check")).stdout,
      /BAD {2}certificates: the issuer's certificate .*pillion identity repair/,
    );
    await mesh.until(
      "the sidecar to tell",
      async () => exactly.test(unquoted(await mesh.log(web.name, "pillion-sidecar"))),
      60_000,
    );
    const controlLog = join(mesh.dir, "state", mesh.name, "agent", "logs", "control.log");
    await mesh.until(
      "the control plane to tell",
      async () => await Promise.resolve(exactly.test(unquoted(readFileSync(controlLog, "utf8")))),
      60_000,
    );
    await mesh.until("the mesh to stand still", async () => !(await askWeb()).startsWith("web-"));

    const repaired = await mesh.pillion("identity", "repair", "--timeout", TIMEOUT_SECONDS);
    assert.equal(repaired.code, 0, repaired.stderr);
    t.diagnostic(`repair: ${repaired.stderr.trim()}; ${repaired.stdout.trim()}`);
    await mesh.until("an answer after the repair", async () => (await askWeb()).startsWith("web-"), 60_000);
    const after = await mesh.status();
    assert.deepEqual(
      after.pods.map((pod) => pod.uid).toSorted(),
      [client.uid, web.uid].toSorted(),
      "no pod was lost",
    );
    assert.equal((await mesh.pillion("identity", "status")).code, 0);

    // An identity that is taken out of use is refused by a sidecar that it has reached until now, and taken back.
    const revoked = await mesh.pillion("identity", "revoke", "test/client");
    assert.equal(revoked.code, 0, revoked.stderr);
    await mesh.until(
      "it to be refused",
      async () => /is not allowed|denied|refus/i.test(await askWeb()),
      30_000,
    );
    assert.equal((await mesh.pillion("identity", "revoke", "test/client", "--undo")).code, 0);
    await mesh.until("it to be let in", async () => (await askWeb()).startsWith("web-"), 30_000);

    async function askWeb(): Promise<string> {
      return (await mesh.exec(client.name, "curl", "-s", "--max-time", "5", "http://web/")).stdout;
    }
  } finally {
    await mesh.close();
  }
});

test("an issuer from outside is taken up when its files change; files that do not fit are said and change nothing", async (t) => {
  const mesh = new Mesh("outside");
  const folder = join(mesh.dir, "issuer");
  const root = await makeRoot("cluster.local", Date.now());
  const put = async (): Promise<string> => {
    const issuer = await makeIssuer(root, "cluster.local", Date.now());
    writeFileSync(join(folder, "ca.crt"), pemOf([root.certificate]));
    writeFileSync(join(folder, "tls.crt"), pemOf([issuer.certificate]));
    writeFileSync(join(folder, "tls.key"), `${issuer.keyPem}\n`);
    return issuer.certificate.serialNumber;
  };
  try {
    mkdirSync(folder, { mode: 0o755 });
    const first = await put();
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write("web.yaml", service("web"));
    await mesh.up("--issuer-folder", folder);
    const web = await mesh.pod("web");
    const before = await identityOf(mesh);
    assert.equal(before.source, folder);
    assert.equal(before.issuer.serial, first);

    writeFileSync(join(folder, "tls.key"), "no key");
    await mesh.until("the complaint", async () => /tls\.crt: /.test((await mesh.pillion("status")).stdout));
    const refused = await mesh.pillion("identity", "rotate", "--root");
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /put new ones there/);

    const second = await put();
    const after = await mesh.until(
      "the rotation to be over",
      async () => {
        const identity = await identityOf(mesh);
        return identity.rotation === null && identity.issuer.serial === second && identity;
      },
      60_000,
    );
    assert.deepEqual(after.problems, []);
    assert.equal((await mesh.pod("web")).sidecar?.pid, web.sidecar?.pid, "without a restart");
    t.diagnostic(`roots as of change ${before.sequence} and ${after.sequence}`);
  } finally {
    await mesh.close();
  }
});

function isAt(rotation: RotationReport | null, step: string): boolean {
  return rotation?.steps.some((each) => each.step === step && each.state === "now") ?? false;
}

function isAwaited(rotation: RotationReport | null, pod: PodStatus): boolean {
  return rotation?.waitingFor.some(({ name }) => name === pod.name) ?? false;
}

/** As a JSON log has it. */
function unquoted(log: string): string {
  return log.replaceAll('\\"', '"');
}
