import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import type { PodStatus } from "#/model/pod-plan.ts";
import { SILENT } from "#/net/log.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { StateFolder } from "../state-folder.ts";
import { Authority, makeLeafKey } from "./authority.ts";
import { fingerprint, ISSUER_LIFE_MS, LEAF_LIFE_MS, ROOT_LIFE_MS, SKEW_MS } from "./certificates.ts";
import { Rotator, SETTLE_MS } from "./rotator.ts";
import { Trusting } from "./trusting.ts";

const WEB = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" };
const LOOK_MS = 1_100;

const folders: string[] = [];
function newFolder(): string {
  const dir = mkdtempSync(join(tmpdir(), "pillion-rotation-"));
  folders.push(dir);
  return dir;
}
after(() => {
  for (const dir of folders) rmSync(dir, { recursive: true });
});

/** A control plane's part in a rotation, which may be killed and begun again, and the sidecars that it talks to. */
class World {
  readonly clock: ManualClock = new ManualClock();
  readonly dir: string = newFolder();
  /** By pod: the sequence and the issuer that it goes by. */
  readonly sidecars: Map<string, { sequence: number; issuer: string }> = new Map();
  leapMs = 0;
  authority!: Authority;
  trusting!: Trusting;
  rotator!: Rotator;

  async begin(...pods: string[]): Promise<void> {
    await this.open();
    const { sequence, issuer } = this.authority.bundle;
    for (const pod of pods) this.sidecars.set(pod, { sequence, issuer });
    this.report();
    for (const pod of pods) this.confirm(pod);
  }

  async open(): Promise<void> {
    const { clock } = this;
    const state = new StateFolder(this.dir);
    this.authority = await Authority.open(state, "cluster.local", () => clock.wallMs() + this.leapMs);
    this.trusting = new Trusting(state);
    this.rotator = new Rotator({ clock, log: SILENT, authority: this.authority, trusting: this.trusting });
  }

  /** As after `kill -9`: nothing but the folder is left, and what sidecars and agent say anew. */
  async restart(): Promise<void> {
    this.rotator.close();
    await this.open();
    this.report();
    for (const pod of this.sidecars.keys()) this.say(pod);
  }

  report(): void {
    const pods = [...this.sidecars.keys()].map(
      (name) =>
        ({
          uid: name,
          name,
          namespace: "shop",
          owner: `Deployment/shop/${name}`,
          sidecar: { state: "running" },
        }) as PodStatus,
    );
    this.trusting.observe(pods, () => true);
  }

  /** Takes up what the control plane says, and says so. */
  confirm(pod: string): void {
    const { sequence, issuer } = this.authority.bundle;
    this.sidecars.set(pod, { sequence, issuer });
    this.say(pod);
  }

  say(pod: string): void {
    const { sequence, issuer } = this.sidecars.get(pod)!;
    this.trusting.confirms(pod, sequence, issuer);
  }

  get step(): string {
    return this.authority.rotation?.step ?? "done";
  }

  settle(): void {
    this.clock.advance(SETTLE_MS + LOOK_MS);
  }

  /** Whether a leaf signed now is good for somebody with these roots. */
  async isTakenBy(anchors: readonly { toString(format: "pem"): string }[]): Promise<boolean> {
    const leaf = await this.authority.issue(WEB, (await makeLeafKey()).publicKey, "dns+spiffe");
    const issuer = new X509Certificate(leaf.intermediates[0]!);
    return anchors.some((anchor) => issuer.verify(new X509Certificate(anchor.toString("pem")).publicKey));
  }
}

let world: World;
beforeEach(() => (world = new World()));

test("nothing is signed by a new root's issuer before every running sidecar trusts it, nor an old root taken before every leaf is new", async () => {
  await world.begin("a", "b");
  const [old] = world.authority.anchors;
  await world.rotator.start("root", false);
  assert.equal(world.step, "distribute");
  assert.equal(world.authority.anchors.length, 2);
  world.confirm("a");
  world.settle();
  assert.equal(world.step, "distribute");
  assert.deepEqual(
    world.rotator.report?.waitingFor.map(({ name }) => name),
    ["b"],
  );
  assert.equal(await world.isTakenBy([old!]), true);
  world.confirm("b");
  world.settle();
  assert.equal(world.step, "renew");
  assert.equal(await world.isTakenBy([old!]), false);
  assert.equal(await world.isTakenBy(world.authority.anchors), true);
  assert.equal(world.authority.anchors.length, 2, "leaves below the old root are good still");
  world.confirm("a");
  world.settle();
  assert.equal(world.step, "renew");
  world.confirm("b");
  world.settle();
  assert.equal(world.step, "drop");
  assert.equal(world.authority.anchors.length, 1);
  assert.notEqual(fingerprint(world.authority.anchors[0]!), fingerprint(old!));
  world.confirm("a");
  world.confirm("b");
  world.clock.advance(LOOK_MS);
  assert.equal(world.step, "done");
});

test("a step waits until handshakes that began before it have ended, and from the start when somebody comes in between", async () => {
  await world.begin("a");
  await world.rotator.start("root", false);
  world.confirm("a");
  world.clock.advance(SETTLE_MS - 1_000);
  assert.equal(world.step, "distribute");
  world.sidecars.set("late", { sequence: 1, issuer: "" });
  world.report();
  world.settle();
  assert.equal(world.step, "distribute");
  world.confirm("late");
  world.clock.advance(SETTLE_MS - 1_000);
  assert.equal(world.step, "distribute");
  world.clock.advance(2_000 + LOOK_MS);
  assert.equal(world.step, "renew");
});

test("killed and begun again at each step, a rotation is finished with the same root", async () => {
  await world.begin("a");
  await world.rotator.start("root", false);
  const next = fingerprint(world.authority.nextRoot!);
  const steps: string[] = [];
  for (let i = 0; i < 20 && world.step !== "done"; i++) {
    await world.restart();
    if (steps.at(-1) !== world.step) steps.push(world.step);
    world.confirm("a");
    await world.restart();
    world.settle();
  }
  assert.deepEqual(steps, ["distribute", "renew", "drop"]);
  assert.equal(world.step, "done");
  assert.deepEqual(world.authority.anchors.map(fingerprint), [next]);
  assert.equal(await world.isTakenBy(world.authority.anchors), true);
});

test("before the agent has said which pods run, nobody counts as absent", async () => {
  await world.begin("a");
  await world.rotator.start("root", false);
  world.rotator.close();
  await world.open();
  world.clock.advance(10 * SETTLE_MS);
  assert.equal(world.step, "distribute");
});

test("a new issuer below the same root signs at once, and the rotation is over when all leaves are new", async () => {
  await world.begin("a");
  const { issuer, anchors } = world.authority;
  await world.rotator.start("issuer", false);
  assert.equal(world.step, "renew");
  assert.notEqual(world.authority.issuer, issuer);
  assert.deepEqual(world.authority.anchors.map(fingerprint), anchors.map(fingerprint));
  world.clock.advance(LOOK_MS);
  assert.equal(world.step, "renew");
  world.confirm("a");
  world.clock.advance(2 * LOOK_MS);
  assert.equal(world.step, "done");
});

test("a proxy that confirms nothing is named with what helps, passed by force, and trusts the new root when it was started again", async () => {
  await world.begin("a");
  const { sequence, issuer } = world.authority.bundle;
  world.trusting.starts("foreign", sequence, issuer);
  world.sidecars.set("foreign", { sequence, issuer });
  world.report();
  assert.match(
    world.rotator.plan("root").waitingFor.find(({ name }) => name === "foreign")!.why,
    /does not take new roots while it runs; pillion rollout restart deployment\/foreign -n shop/,
  );
  await world.rotator.start("root", false);
  world.confirm("a");
  world.settle();
  assert.match(world.rotator.report!.waitingFor[0]!.why, /pillion rollout restart deployment\/foreign/);
  const forced = await world.rotator.start("root", true);
  assert.match(forced.message, /without waiting for shop\/foreign/);
  world.settle();
  assert.equal(world.step, "renew");

  const other = new World();
  await other.begin("a");
  other.trusting.starts("foreign", 1, "");
  await other.rotator.start("root", false);
  other.confirm("a");
  other.settle();
  assert.equal(other.step, "distribute");
  other.trusting.starts("foreign", other.authority.bundle.sequence, other.authority.bundle.issuer);
  other.settle();
  assert.equal(other.step, "renew");
  other.confirm("a");
  other.settle();
  assert.equal(other.step, "renew", "its leaf may be one of the old issuer");
  other.clock.stall(LEAF_LIFE_MS + SKEW_MS);
  other.settle();
  assert.equal(other.step, "drop");
});

test("a rotation of another kind is refused while one is under way, and the same one goes on", async () => {
  await world.begin("a");
  await world.rotator.start("root", false);
  const root = world.authority.nextRoot;
  assert.equal((await world.rotator.start("issuer", false)).isRefused, true);
  assert.equal((await world.rotator.start("root", false)).isRefused, false);
  assert.equal(world.authority.nextRoot, root);
});

test("the sequence grows with each change of roots or issuer, over restarts too, and with nothing else", async () => {
  await world.begin("a");
  const seen = [world.authority.bundle.sequence];
  const note = (): void => void seen.push(world.authority.bundle.sequence);
  await world.restart();
  note();
  await world.rotator.start("issuer", false);
  note();
  await world.restart();
  note();
  world.authority.force();
  note();
  assert.deepEqual(seen, [1, 1, 2, 2, 2]);
});

test("what has expired is said exactly, is not made anew by itself, and is by repair: the issuer, or root and issuer", async () => {
  await world.begin("a");
  assert.deepEqual(world.authority.problems(), []);
  assert.equal(await world.authority.repair(), null);
  const { issuer } = world.authority;
  const [root] = world.authority.anchors;
  world.leapMs = 2 * ISSUER_LIFE_MS;
  assert.equal(await world.authority.renewIssuer(), false, "the clock may be wrong");
  const [problem, ...more] = world.authority.problems();
  assert.deepEqual(more, []);
  assert.match(
    problem!,
    new RegExp(
      `^the issuer's certificate "identity\\.pillion\\.cluster\\.local" \\(serial ${issuer.serialNumber.slice(0, 8)}…\\) expired at ${issuer.notAfter.toISOString()}, 365 days ago: .*; check this machine's clock; if it is right: pillion identity repair$`,
    ),
  );
  assert.equal(await world.authority.repair(), "issuer");
  assert.deepEqual(world.authority.problems(), []);
  assert.deepEqual(world.authority.anchors.map(fingerprint), [fingerprint(root!)]);

  world.leapMs = ROOT_LIFE_MS;
  await world.restart();
  assert.equal(world.authority.problems().length, 2);
  assert.match(world.authority.problems()[0]!, /^the root's certificate .* expired at /);
  assert.equal(await world.authority.repair(), "root");
  assert.deepEqual(world.authority.problems(), []);
  assert.notEqual(fingerprint(world.authority.anchors[0]!), fingerprint(root!));
  assert.equal(await world.isTakenBy(world.authority.anchors), true);
});

test("made by a clock that was ahead, certificates that do not hold yet are repaired too", async () => {
  await world.begin("a");
  world.leapMs = -30 * 24 * 3_600_000;
  assert.match(world.authority.problems()[0]!, /^the root's certificate .* begins only at .*, in 29 days: /);
  assert.equal(await world.authority.repair(), "root");
  assert.deepEqual(world.authority.problems(), []);
});

test("a step that cannot be written down is tried again, and does not end the control plane", async () => {
  await world.begin("a");
  await world.rotator.start("root", false);
  world.confirm("a");
  const { authority } = world;
  const signByNext = authority.signByNext.bind(authority);
  authority.signByNext = () => assert.fail("no space left on device");
  world.settle();
  assert.equal(world.step, "distribute");
  authority.signByNext = signByNext;
  world.settle();
  assert.equal(world.step, "renew");
});
