import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseAllDocuments, stringify } from "yaml";
import { Mesh } from "../../e2e/mesh/mesh.ts";
import { corpusFolder } from "../corpora.ts";
import type { Case, Test } from "./cases.ts";
import type { Ask, Heard } from "./client.ts";

const PROGRAMS = "/.pillion/mesh/test/conformance/gateway/programs";
const NAMESPACE = "gateway-conformance-mesh";
/** How long the suite gives an implementation to follow an object, and how often a case must then succeed in a row. */
const CONSISTENT_WITHIN_MS = 30_000;
const SUCCESSES = 3;
const REQUESTS = 500;
/** The suite's own tolerance for shares: of a half, 500 draws are outside of it once in 40 times. */
const TOLERANCE = 0.05;
/** So often is asked at least, however long it takes: all of them are wrong by chance once in two million times. */
const ATTEMPTS_MIN = 4;

export interface Result {
  readonly test: Test;
  /** "" when it passed. */
  readonly failure: string;
}

type Pod = Awaited<ReturnType<Mesh["status"]>>["pods"][number];

/** The suite's world in local pods: its own objects as they are, with a program of ours in place of its image. */
export class GatewaySuite {
  readonly mesh: Mesh = new Mesh("gateway");
  /** No test makes or ends any. */
  #pods: readonly Pod[] = [];

  async up(): Promise<void> {
    this.mesh.write(
      "manifests.yaml",
      withPrograms(readFileSync(`${corpusFolder("gateway-api")}mesh/manifests.yaml`, "utf8")),
    );
    await this.mesh.up("--timeout", "120");
    this.#pods = (await this.mesh.status()).pods;
  }

  async close(): Promise<void> {
    await this.mesh.close();
  }

  /** Writes the test's objects, asks until all is as expected or the time is over, and removes the objects. */
  async run(test: Test): Promise<Result> {
    if (test.objects !== "") this.mesh.write("test.yaml", readFileSync(objectsFile(test.objects), "utf8"));
    try {
      return { test, failure: await this.#outcome(test) };
    } finally {
      if (test.objects !== "") this.mesh.remove("test.yaml");
    }
  }

  async #outcome(test: Test): Promise<string> {
    const end = Date.now() + CONSISTENT_WITHIN_MS;
    for (let attempts = 1; ; attempts++) {
      const failure = await this.#attempt(test);
      if (failure === "" || (attempts >= ATTEMPTS_MIN && Date.now() > end)) return failure;
    }
  }

  /** All cases in a row, and again: one round that fails begins them anew. Then what takes many requests. */
  async #attempt(test: Test): Promise<string> {
    const failures = new Set<string>();
    const cases = Array.from({ length: SUCCESSES }, () => test.cases ?? []).flat();
    const heard = await this.#ask(
      test,
      cases.map((one) => one.ask),
    );
    cases.forEach((one, i) => {
      const failure = judge(one, heard[i]!);
      if (failure !== "") failures.add(`${JSON.stringify(one.ask)}: ${failure}`);
    });
    if (failures.size > 0) return [...failures].join("\n");
    return (await this.#shares(test)) || (await this.#mirrors(test));
  }

  async #shares(test: Test): Promise<string> {
    if (test.shares === undefined) return "";
    const { ask, expected } = test.shares;
    const counts: Record<string, number> = {};
    for (const heard of await this.#ask(
      test,
      Array.from({ length: REQUESTS }, () => ask),
    )) {
      const who = heard.seen === null ? String(heard.status) : deploymentOf(heard.seen.pod);
      counts[who] = (counts[who] ?? 0) + 1;
    }
    for (const who of new Set([...Object.keys(expected), ...Object.keys(counts)])) {
      const share = (counts[who] ?? 0) / REQUESTS;
      if (Math.abs(share - (expected[who] ?? 0)) > TOLERANCE)
        return `${who} got ${share} of requests, not ${expected[who] ?? 0}`;
    }
    return "";
  }

  async #mirrors(test: Test): Promise<string> {
    for (const { ask, backend, expected } of test.mirrors ?? []) {
      const id = Math.random().toString(36).slice(2);
      const count = Object.values(expected).every(Number.isInteger) ? 20 : REQUESTS;
      const heard = await this.#ask(
        test,
        Array.from({ length: count }, () => ({ ...ask, path: `${ask.path}?id=${id}` })),
      );
      const wrong = heard.find((one) => one.status !== 200 || deploymentOf(one.seen?.pod ?? "") !== backend);
      if (wrong !== undefined) return `${ask.path}: answered by ${JSON.stringify(wrong)}, not by ${backend}`;
      for (const [who, share] of Object.entries(expected)) {
        // Copies are sent without waiting for them: the last ones may still be on their way.
        const end = Date.now() + 2_000;
        let got: number;
        do {
          const [seen] = await this.#ask(test, [{ to: `${who}:8080`, path: `/seen/${id}` }]);
          got = Number(seen!.body) / count;
        } while (Math.abs(got - share) > TOLERANCE && Date.now() < end);
        if (Math.abs(got - share) > TOLERANCE)
          return `${ask.path}: ${who} got ${got} requests for each, not ${share}`;
      }
    }
    return "";
  }

  /** From an echo-v1 pod of the test's namespace, in several rounds where one command line would be too long. */
  async #ask(test: Test, asks: readonly Ask[]): Promise<readonly Heard[]> {
    const namespace = test.from ?? NAMESPACE;
    const podOf = (deployment: string, of: string): Pod =>
      this.#pods.find((pod) => pod.namespace === of && deploymentOf(pod.name) === deployment)!;
    const heard: Heard[] = [];
    for (let i = 0; i < asks.length; i += REQUESTS) {
      const some = asks.slice(i, i + REQUESTS).map((ask, n) => ({
        ...ask,
        to: ask.to.replace(/^POD\((.+)\)/, (_, deployment: string) => podOf(deployment, NAMESPACE).ip),
        path: ask.path?.replace("id=ID", `id=${Date.now()}-${n}`),
      }));
      const asker = podOf("echo-v1", namespace);
      const { code, stdout, stderr } = await this.mesh.pillion(
        "exec",
        "-n",
        namespace,
        asker.name,
        "--",
        "node",
        `${PROGRAMS}/client.ts`,
        JSON.stringify(some),
      );
      if (code !== 0) throw new Error(`the client in ${asker.name}: ${stderr}`);
      heard.push(...(JSON.parse(stdout) as Heard[]));
    }
    return heard;
  }
}

/** Why an answer is not as the case says; "" when it is. */
function judge(one: Case, heard: Heard): string {
  const expected = [one.status ?? 200].flat();
  if (!expected.includes(heard.status))
    return `status ${heard.status}, not ${expected.join(" or ")} ${heard.error} ${heard.body}`;
  if (one.backend !== undefined && deploymentOf(heard.seen?.pod ?? "") !== one.backend)
    return `answered by ${heard.seen?.pod ?? "nobody"}, not by ${one.backend}`;
  if (one.seenPath !== undefined && heard.seen?.path !== one.seenPath)
    return `path ${heard.seen?.path}, not ${one.seenPath}`;
  if (one.seenHost !== undefined && heard.seen?.host !== one.seenHost)
    return `host ${heard.seen?.host}, not ${one.seenHost}`;
  for (const [name, value] of Object.entries(one.seen ?? {})) {
    const got = heard.seen?.headers[name]?.flatMap((line) => line.split(/, */)).join(",") ?? null;
    if (got !== value) return `the application saw ${name}: ${got}, not ${value}`;
  }
  for (const [name, value] of Object.entries(one.answer ?? {})) {
    const got = heard.headers[name] ?? null;
    if (got?.replaceAll(/, */g, ",") !== value?.replaceAll(/, */g, ","))
      return `the answer has ${name}: ${got}, not ${value}`;
  }
  return one.location === undefined ? "" : judgeLocation(one, heard.headers["location"] ?? "");
}

function judgeLocation({ ask, location }: Case, got: string): string {
  // Relative to the request: what Location leaves out is as it was.
  const before = new URL(ask.path ?? "/", `http://${ask.to}`);
  if (got === "") return "no Location";
  const after = new URL(got, before);
  const { scheme = "http", host = before.hostname, path = before.pathname } = location!;
  // A port that belongs to the scheme is the same as none.
  const port = location!.port ?? (scheme === "https" ? "" : before.port);
  const same =
    after.protocol === `${scheme}:` &&
    after.hostname === host &&
    after.pathname === path &&
    after.port === port;
  return same ? "" : `Location ${got}, not ${scheme}://${host}${port === "" ? "" : `:${port}`}${path}`;
}

/** "echo-v1-6f…-x2x4" is of the Deployment echo-v1. */
function deploymentOf(pod: string): string {
  return /^(.+)-[^-]+-[^-]+$/.exec(pod)?.[1] ?? "";
}

function objectsFile(path: string): string {
  return path.startsWith("mesh/")
    ? `${corpusFolder("gateway-api")}${path}`
    : fileURLToPath(new URL(path, import.meta.url));
}

/** The suite's Deployments name an image; here the same ports are served by `programs/echo.ts`. All else stays. */
function withPrograms(text: string): string {
  const documents = parseAllDocuments(text).map((document) => document.toJS() as unknown);
  for (const object of documents as DeploymentLike[]) {
    if (object.kind !== "Deployment") continue;
    for (const container of object.spec.template.spec.containers) {
      container["command"] = ["node", `${PROGRAMS}/echo.ts`];
      container["readinessProbe"] = { tcpSocket: { port: 7070 }, periodSeconds: 1 };
    }
  }
  return documents.map((object) => stringify(object)).join("---\n");
}

interface DeploymentLike {
  readonly kind: string;
  readonly spec: { readonly template: { readonly spec: { readonly containers: Record<string, unknown>[] } } };
}
