/**
 * Each folder of `examples/` that has a README runs as it is, and each command of its README does what the README says. All of them
 * share one mesh: each has a namespace of its name. The commands are read from the README, so that it and this test cannot part.
 */
import assert from "node:assert/strict";
import { cpSync, globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Mesh, type Run } from "./mesh.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const EXAMPLES = join(ROOT, "examples");
const names = globSync("*/README.md", { cwd: EXAMPLES }).map((path) => dirname(path));
const mesh = new Mesh("examples");
const shown = new Set<string>();

before(async () => {
  for (const name of names) {
    cpSync(join(EXAMPLES, name), join(mesh.folder, name), { recursive: true });
  }
  const { problems } = await mesh.up("--timeout", "240");
  assert.deepEqual(problems, []);
});

after(async () => await mesh.close());

/** One example's README, whose commands are run one by one. */
class Readme {
  readonly name: string;
  readonly #commands: string[];

  constructor(name: string) {
    this.name = name;
    shown.add(name);
    const text = readFileSync(join(EXAMPLES, name, "README.md"), "utf8");
    this.#commands = [...text.matchAll(/^ {4}((?:\.\/pillion|sed) .*)$/gm)].map((match) => match[1]!);
    // How it begins and ends is the same for all, and done here once for all.
    assert.equal(this.#commands.shift(), `./pillion up -f examples/${name} --detach`);
    assert.equal(this.#commands.pop(), "./pillion down");
  }

  /** Runs the README's next command in this example's namespace, and gives its output. */
  async next(): Promise<Run> {
    const command = this.#commands.shift();
    assert.ok(command !== undefined, `examples/${this.name}/README.md has no further command`);
    const node = `${process.execPath} --disable-warning=ExperimentalWarning ${ROOT}/src/main.ts`;
    const here = command
      .replaceAll(
        /\.\/pillion (exec|logs|explain|get|authz flows)/g,
        `${node} $1 --instance ${mesh.name} -n ${this.name}`,
      )
      // Not the path by which a pod sees the checkout.
      .replaceAll(` examples/${this.name}/`, ` ${mesh.folder}/${this.name}/`);
    return await mesh.run("sh", "-c", here);
  }

  /** As `next`, for output of `uniq -c`: how often there was each line. */
  async count(): Promise<Map<string, number>> {
    const { stdout, stderr } = await this.next();
    const rows = [...stdout.matchAll(/^ *(\d+) (.*)$/gm)];
    assert.ok(rows.length > 0, `examples/${this.name}: ${stdout}${stderr}`);
    return new Map(rows.map(([, count, line]) => [line!, Number(count)]));
  }

  /** As `next`, for a command that prints a number. */
  async number(): Promise<number> {
    const { stdout, stderr } = await this.next();
    assert.match(stdout, /^\d+\n$/, stderr);
    return Number(stdout);
  }

  /** Every command was run. */
  [Symbol.dispose](): void {
    assert.deepEqual(this.#commands, [], `examples/${this.name}/README.md`);
  }
}

const counted = (entries: Record<string, number>): Map<string, number> => new Map(Object.entries(entries));

/** Of lines `NAME POD`, how many had that name. */
function answeredBy(lines: Map<string, number>, name: string): number {
  let sum = 0;
  for (const [line, count] of lines) if (line.startsWith(`${name} `)) sum += count;
  return sum;
}

function isBetween(value: number, least: number, most: number): void {
  assert.ok(value >= least && value <= most, `${value} is not between ${least} and ${most}`);
}

test("routing", async () => {
  using readme = new Readme("routing");
  const by = async (): Promise<string | undefined> => (await readme.next()).stdout.split(" ")[0];
  assert.equal(await by(), "web-v1");
  for (const match of ["path", "header", "method", "query"]) assert.equal(await by(), "web-v2", match);
  assert.equal(await by(), "web-v1", "Get");
  assert.equal(await by(), "web-v2", "List");
  assert.match((await readme.next()).stdout, /^UNIMPLEMENTED .*client's sidecar.*\(NO_ROUTE\)/);
  const preflight = (await readme.next()).stdout;
  assert.match(preflight, /^HTTP\/1\.1 204 /);
  assert.match(preflight, /^access-control-allow-origin: https:\/\/shop\.example\r$/m);
  assert.match(preflight, /^access-control-allow-methods: GET, PUT\r$/m);
  assert.match((await readme.next()).stdout, /HTTPRoute\/routing\/web, rule 2 .*route\.yaml:\d+\]/);
});

test("rewriting", async () => {
  using readme = new Readme("rewriting");
  const request = (await readme.next()).stdout;
  assert.match(request, /^GET \/headers\n/);
  assert.deepEqual(request.match(/^x-.*$/gm), ["x-edition: second", "x-seen-by: nobody", "x-seen-by: mesh"]);
  const answer = (await readme.next()).stdout;
  assert.match(answer, /^HTTP\/1\.1 200 /);
  assert.match(answer, /^x-edition: second\r$/m);
  assert.doesNotMatch(answer, /^x-served-by/m);
  const redirect = (await readme.next()).stdout;
  assert.match(redirect, /^HTTP\/1\.1 301 /);
  assert.match(redirect, /^location: http:\/\/web\/new\/page\?n=1\r$/m);
  assert.match((await readme.next()).stdout, /^GET \/headers\?n=1\nHost: internal\.example\n/);
  const { stdout } = await mesh.pillion("logs", "web", "-n", "rewriting");
  assert.match(stdout, /^GET \/headers\n/);
  assert.doesNotMatch(stdout, /old|new/, "no application was asked");
});

test("splitting", async () => {
  using readme = new Readme("splitting");
  const split = await readme.count();
  assert.equal(answeredBy(split, "web-v1") + answeredBy(split, "web-v2"), 200);
  // A tenth of 200: beyond these bounds once in ten million runs.
  isBetween(answeredBy(split, "web-v2"), 3, 48);
  await readme.next();
  await mesh.until("the new weights", async () => {
    const ask = ["exec", "-n", "splitting", "client", "--", "curl", "-s", "http://web/?n=[1-30]"] as const;
    return !(await mesh.pillion(...ask)).stdout.includes("web-v1");
  });
  assert.equal(answeredBy(await readme.count(), "web-v2"), 200);
  assert.equal(answeredBy(await readme.count(), "web-v1"), 20);
  assert.equal(await readme.number(), 20);
  await readme.next();
  assert.match(readFileSync(join(mesh.folder, "splitting/route.yaml"), "utf8"), /weight: 90 /);
});

test("timeouts", async () => {
  using readme = new Readme("timeouts");
  assert.match((await readme.next()).stdout, /^HTTP\/1\.1 200 /);
  const late = (await readme.next()).stdout;
  assert.match(late, /^HTTP\/1\.1 504 /);
  assert.match(late, /within 500 ms \[HTTPRoute\/timeouts\/web, rule 1: timeouts\.request\].*\(TIMEOUT\)/);
  assert.match((await readme.next()).stdout, /^HTTP\/1\.1 200 /);
  assert.match((await readme.next()).stdout, /^HTTP\/1\.1 200 /);
  assert.match((await readme.next()).stdout, /^HTTP\/1\.1 504 [^]*within 200 ms \[l5d-request-timeout\]/);
});

test("retries", async () => {
  using readme = new Readme("retries");
  assert.deepEqual(await readme.count(), counted({ 200: 95, 503: 5 }));
  assert.deepEqual(await readme.count(), counted({ 200: 100 }));
  assert.equal(await readme.number(), 105);
  const beganMs = Date.now();
  const withheld = await readme.number();
  const seconds = (Date.now() - beganMs) / 1_000;
  const arrived = await readme.number();
  // A fifth of the 200 requests under this budget, and ten for each second begun.
  isBetween(arrived - 100, 10, 40 + 10 * (seconds + 1));
  // Each of the others was sent again twice.
  isBetween(withheld, 100 - (arrived - 100) / 2, 100);
});

test("balancing", async () => {
  using readme = new Readme("balancing");
  assert.ok((await readme.count()).size > 1);
  for (const user of ["ann", "bob"]) assert.equal((await readme.count()).size, 1, user);
  assert.equal((await readme.count()).size, 1, "with cookies");
  assert.ok((await readme.count()).size > 1, "without");
});

test("circuit-breaking", async () => {
  using readme = new Readme("circuit-breaking");
  assert.deepEqual(await readme.count(), counted({ 200: 97, 503: 3 }));
  assert.deepEqual(await readme.count(), counted({ 200: 20 }));
  assert.equal(await readme.number(), 3);
});

test("jwt", async () => {
  using readme = new Readme("jwt");
  const missing = (await readme.next()).stdout;
  assert.match(
    missing,
    /^HTTP\/1\.1 401 [^]*\r\nwww-authenticate: Bearer realm="mesh"\r\n[^]*\(TOKEN_MISSING\)/i,
  );
  const passed = (await readme.next()).stdout;
  assert.match(passed, /^x-user: bob$/m);
  assert.doesNotMatch(passed, /ann|authorization/i);
  assert.match((await readme.next()).stdout, /\[AuthorizationPolicy\/jwt\/web[^]*\(NOT_AUTHORIZED\)/);
  assert.match((await readme.next()).stdout, /^web web-/);
  assert.match((await readme.next()).stdout, /^HTTP\/1\.1 401 [^]*\(TOKEN_INVALID\)/);
});

test("rate-limits", async () => {
  using readme = new Readme("rate-limits");
  /** `most` come through, and what is earned meanwhile: one in twelve seconds for each bucket. */
  const admits = async (most: number, buckets: number): Promise<void> => {
    const beganMs = Date.now();
    const codes = await readme.count();
    const earned = buckets * Math.ceil((Date.now() - beganMs) / 12_000);
    assert.equal((codes.get("200") ?? 0) + (codes.get("429") ?? 0), 40);
    isBetween(codes.get("200") ?? 0, most, most + earned);
  };
  await admits(10, 2);
  await admits(5, 1);
  await admits(5, 1);
  assert.match(
    (await readme.next()).stdout,
    /^HTTP\/1\.1 429 [^]*\r\nretry-after: \d+\r\n[^]*in all pods together \[RateLimitPolicy\/rate-limits\/web\]/,
  );
});

test("authorization", async () => {
  using readme = new Readme("authorization");
  const out = async (): Promise<string> => (await readme.next()).stdout;
  assert.equal(await out(), "200\n");
  assert.match(
    await out(),
    /^HTTP\/1\.1 403 [^]*AuthorizationPolicy\/authorization\/web[^]*\(NOT_AUTHORIZED\)/,
  );
  assert.equal(await out(), "403\n");
  assert.match(await out(), /^HTTP\/1\.1 403 [^]*AuthorizationPolicy\/authorization\/no-exports/);
  const policies = await out();
  assert.match(policies, /no-exports +Namespace authorization +yes/);
  assert.match(policies, /web +Service authorization\/web +yes/);
  await readme.next();
  await mesh.until("the stranger to be let in", async () => {
    const ask = "curl -s -o /dev/null -w %{http_code} http://web/orders/7".split(" ");
    return (await mesh.pillion("exec", "-n", "authorization", "stranger", "--", ...ask)).stdout === "200";
  });
  assert.equal(await out(), "200\n");
  assert.equal(await out(), "403\n");
  assert.equal(
    (await mesh.status()).pods.find(({ owner }) => owner === "Deployment/authorization/web")?.ready,
    true,
  );
});

test("authorization-audit", async () => {
  using readme = new Readme("authorization-audit");
  const out = async (): Promise<string> => (await readme.next()).stdout;
  assert.equal(await out(), "200\n");
  assert.equal(await out(), "200\n");
  assert.match(await out(), /web +Service authorization-audit\/web +yes, audited, not enforced/);
  const flows = await out();
  assert.match(flows, /8080 +stranger +GET .*allowed, would_deny/);
  assert.doesNotMatch(flows, /8080 +client /);
  await readme.next();
  await mesh.until("the stranger to be refused", async () => {
    const ask = "curl -s -o /dev/null -w %{http_code} http://web/orders/7".split(" ");
    return (
      (await mesh.pillion("exec", "-n", "authorization-audit", "stranger", "--", ...ask)).stdout === "403"
    );
  });
  assert.equal(await out(), "403\n");
  assert.equal(await out(), "200\n");
});

test("overload", async () => {
  using readme = new Readme("overload");
  assert.deepEqual(await readme.count(), counted({ 200: 2, 503: 8 }));
  assert.deepEqual(await readme.count(), counted({ 200: 1, 503: 9 }));
  assert.equal(await readme.number(), 3);
});

test("faults", async () => {
  using readme = new Readme("faults");
  assert.match((await readme.next()).stdout, /^HTTP\/1\.1 200 /);
  const [, code, seconds] = /^(\d+) after ([\d.]+) s$/m.exec((await readme.next()).stdout) ?? [];
  assert.equal(code, "200");
  assert.ok(Number(seconds) >= 1, String(seconds));
  assert.match((await readme.next()).stdout, /^HTTP\/1\.1 503 [^]*a drill \[FaultPolicy\/faults\/drill\]/);
  const cut = await readme.next();
  assert.ok([52, 56].includes(cut.code), `${cut.code} ${cut.stdout}`);
  const half = await readme.count();
  assert.equal((half.get("200") ?? 0) + (half.get("418") ?? 0), 100);
  isBetween(half.get("418") ?? 0, 23, 77);
});

test("tls-and-tcp", async () => {
  using readme = new Readme("tls-and-tcp");
  assert.match((await readme.next()).stdout, /^web-v1 /);
  assert.match((await readme.next()).stdout, /^web-v2 /);
  assert.equal((await readme.next()).code, 35);
  const words = await readme.count();
  assert.equal(answeredBy(words, "web-v1") + answeredBy(words, "web-v2"), 40);
  // Half of 40: beyond these bounds once in ten million runs.
  isBetween(answeredBy(words, "web-v1"), 4, 36);
});

test("egress", async () => {
  using readme = new Readme("egress");
  const out = async (): Promise<string> => (await readme.next()).stdout;
  assert.match(await out(), /^HTTP\/1\.1 403 [^]*\[EgressPolicy\/egress\/out\].*\(FORBIDDEN_TARGET\)/);
  assert.equal((await readme.next()).code, 35);
  assert.match(await out(), /198\.51\.100\.1:443 is denied.*EgressPolicy\/egress\/out.*bad\.example/);
  // Dialled, in vain: what is said depends on the network that the test runs in.
  const isDialled = /^HTTP\/1\.1 50[24] (?![^]*FORBIDDEN_TARGET)/;
  assert.match(await out(), isDialled, "by address");
  assert.match(await out(), isDialled, "by host");
  await readme.next();
  await mesh.until("the audit", async () => {
    const ask = ["exec", "-n", "egress", "client", "--", "curl", "-si", "http://198.51.100.1/"] as const;
    return isDialled.test((await mesh.pillion(...ask)).stdout);
  });
  assert.match(await out(), isDialled);
  assert.match(await out(), /"EgressPolicy\/egress\/out","target":"198\.51\.100\.1:80"/);
  await readme.next();
});

test("workload-api", async () => {
  using readme = new Readme("workload-api");
  const said = async (): Promise<string> => (await readme.next()).stdout;
  const id = "spiffe://cluster.local/ns/workload-api/sa";
  assert.match(await said(), new RegExp(`^${id}/client, certificates: 2, roots: 1, until `));
  assert.equal(await said(), "this pod has no Workload API\n");
  assert.equal(await said(), `hello ${id}/client\n`);
  assert.equal(await said(), `the server is not ${id}/other\n`);
  assert.equal(await said(), `${id}/client\n`);
  assert.equal(await said(), 'the token is not for the audience "other"\n');
});

test("every example with a README was shown", () => {
  assert.deepEqual(
    names.filter((name) => !shown.has(name)),
    [],
  );
});
