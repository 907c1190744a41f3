import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { VirtualClock } from "#/base/virtual-clock.ts";
import { SILENT } from "#/net/log.ts";
import { readKeySet } from "./key-set.ts";
import { KeySets } from "./key-sets.ts";

const URL_A = "https://login.test/keys";
const KEY = { kty: "EC", crv: "P-256", x: "AA", y: "AA" };

function setOf(...kids: readonly string[]): string {
  return JSON.stringify({ keys: kids.map((kid) => ({ ...KEY, kid })) });
}

class World {
  readonly clock = new VirtualClock();
  body: string | Error = setOf("one");
  status = 200;
  cacheControl = "";
  asked = 0;
  changes = 0;
  kept: Readonly<Record<string, string>> = {};
  sets = this.make();

  make(): KeySets {
    return new KeySets({
      clock: this.clock,
      log: SILENT,
      get: async () => {
        this.asked++;
        await turn();
        if (this.body instanceof Error) throw this.body;
        return { status: this.status, body: this.body, cacheControl: this.cacheControl };
      },
      changed: () => void this.changes++,
      kept: { read: () => this.kept, write: (sets) => void (this.kept = sets) },
    });
  }

  async after(ms: number): Promise<void> {
    this.clock.run(ms);
    for (let i = 0; i < 6; i++) await turn();
  }

  get kids(): readonly (string | undefined)[] {
    const { jwks } = this.sets.sets.get(URL_A) ?? { jwks: "" };
    return jwks === "" ? [] : (JSON.parse(jwks) as { keys: { kid?: string }[] }).keys.map(({ kid }) => kid);
  }

  want(): void {
    this.sets.want([{ url: URL_A, at: null }]);
  }
}

test("a key set is asked for again when its Cache-Control is over, within bounds (RFC 9111 §5.2.2)", async () => {
  for (const [cacheControl, freshMs] of [
    ["", 300_000],
    ["public, max-age=120", 120_000],
    ["max-age=1", 30_000],
    ["max-age=99999999", 3_600_000],
    ["no-store, max-age=600", 30_000],
    ["s-maxage=1", 300_000],
  ] as const) {
    const world = new World();
    world.cacheControl = cacheControl;
    world.want();
    await world.after(0);
    assert.deepEqual([world.kids, world.asked, world.changes], [["one"], 1, 1], cacheControl);
    world.body = setOf("one", "two");
    await world.after(freshMs - 1);
    assert.equal(world.asked, 1, cacheControl);
    await world.after(1);
    assert.deepEqual([world.kids, world.asked, world.changes], [["one", "two"], 2, 2], cacheControl);
    world.sets.close();
    assert.equal(world.clock.timers, 0);
  }
});

test("what was good last stays through every failure, says so, and is asked for again soon", async () => {
  const world = new World();
  world.want();
  await world.after(0);
  for (const [status, body, problem] of [
    [200, new Error("connect ECONNREFUSED"), /ECONNREFUSED/],
    [404, setOf("evil"), /404/],
    [302, setOf("evil"), /302/],
    [200, "<html>", /no JSON/],
    [200, '{"keys":{}}', /no JWKS/],
    [200, '{"keys":[]}', /no public key/],
    [200, JSON.stringify({ keys: [{ kty: "oct", k: "c2VjcmV0" }] }), /symmetric/],
  ] as const) {
    world.status = status;
    world.body = body;
    await world.after(300_000);
    assert.deepEqual(world.kids, ["one"]);
    assert.match(world.sets.sets.get(URL_A)?.problem ?? "", problem);
  }
  const asked = world.asked;
  await world.after(30_000);
  assert.ok(world.asked > asked && world.asked <= asked + 2, "every 30 seconds");
  world.status = 200;
  world.body = setOf("two");
  await world.after(30_000);
  assert.deepEqual([world.kids, world.sets.sets.get(URL_A)?.problem], [["two"], ""]);
});

test("an unknown key has the set asked for at once, but at most once in 30 seconds", async () => {
  const world = new World();
  world.want();
  await world.after(0);
  world.body = setOf("one", "two");
  assert.match((await world.sets.refresh(URL_A)) ?? "", /^(?!.*two)/, "it was asked for a moment ago");
  assert.equal(world.asked, 1);
  await world.after(30_000);
  const answers = await Promise.all(Array.from({ length: 50 }, () => world.sets.refresh(URL_A)));
  assert.ok(answers.every((jwks) => jwks?.includes("two") === true));
  assert.equal(world.asked, 2, "all wait for one request");
  await world.sets.refresh(URL_A);
  assert.equal(world.asked, 2);
  assert.equal(await world.sets.refresh("https://other.test/"), null);
});

test("a restarted control plane begins with the keys that were good last", async () => {
  const world = new World();
  world.want();
  await world.after(0);
  world.sets.close();
  world.sets = world.make();
  world.body = new Error("down");
  world.want();
  await world.after(0);
  assert.deepEqual(world.kids, ["one"]);
});

test("a Service that gets its first pod is asked without waiting for the next try", async () => {
  const world = new World();
  world.body = new Error("no pod");
  world.want();
  await world.after(0);
  await world.after(200_000);
  world.body = setOf("one");
  const { asked } = world;
  world.sets.want([{ url: URL_A, at: { host: "10.1.0.2", port: 8080 } }]);
  await world.after(0);
  assert.deepEqual([world.asked, world.kids], [asked + 1, ["one"]]);
});

test("more key sets than the bound are not fetched, which is their problem until there is room", async () => {
  const world = new World();
  const sources = Array.from({ length: 300 }, (_, i) => ({ url: `https://${i}.test/`, at: null }));
  world.sets.want(sources);
  await world.after(0);
  const problems = (): number => [...world.sets.sets.values()].filter(({ problem }) => problem !== "").length;
  assert.deepEqual([world.asked, problems()], [256, 44]);
  assert.match(world.sets.sets.get("https://299.test/")?.problem ?? "", /more than 256 are wanted/);
  world.sets.want(sources.slice(44));
  await world.after(0);
  assert.deepEqual([world.asked, problems()], [300, 0]);
});

test("a key set is handed on without secrets, without keys for something else, and within bounds", () => {
  const read = readKeySet(
    JSON.stringify({
      keys: [
        { ...KEY, kid: "a", d: "c2VjcmV0", use: "sig", alg: "ES256", x5u: "http://evil.test" },
        { ...KEY, kid: "enc", use: "enc" },
        { ...KEY, kid: "sign-only", key_ops: ["sign"] },
        { kty: "oct", k: "c2VjcmV0" },
        { kty: "RSA", n: "AA" },
        { kty: "__proto__" },
        7,
        null,
      ],
    }),
  );
  assert.deepEqual(read, { jwks: JSON.stringify({ keys: [{ ...KEY, kid: "a", alg: "ES256" }] }) });
  assert.match(JSON.stringify(readKeySet(" ".repeat(70_000))), /65536 bytes/);
  assert.match(JSON.stringify(readKeySet(setOf(...Array.from({ length: 65 }, String)))), /64 keys/);
});
