/** Audit before enforce: what is learned of the demo's traffic lets all of it through, and nobody else. */
import assert from "node:assert/strict";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { AccessExplanation, AccessMatrix } from "#/model/access-explanation.ts";
import type { Flow } from "#/model/flow.ts";
import { Mesh, workload } from "./mesh.ts";

const SHOP = fileURLToPath(new URL("../../../demo/shop", import.meta.url));

/** Server, protocol, method and path with what differs from customer to customer taken out, of all that the demo does. */
const DEMO: readonly string[] = [
  "front http GET /readyz by load",
  "front http GET / by load",
  "front http POST /cart/ by load",
  "front http POST /buy/ by load",
  "catalogue http GET /readyz by front",
  "catalogue http GET /products by front",
  "cart http GET /readyz by front",
  "cart http GET /cart/ by front",
  "cart http POST /cart/ by front",
  "orders http GET /readyz by front",
  "orders http POST /orders by front",
  "pricing grpc POST /shop.v1.Pricing/Quote by front",
  "redis opaque   by cart",
  "postgres opaque   by orders",
];

interface SeenFlow extends Flow {
  readonly server: string;
}

interface Replayed {
  readonly changes: readonly { readonly becomes: string; readonly workload: string; readonly flow: Flow }[];
}

test("what is suggested from the demo's traffic denies nothing of it, and denies a new caller with a reason", async (t) => {
  const mesh = new Mesh("authz");
  try {
    cpSync(SHOP, mesh.folder, { recursive: true });
    const stranger = { name: "stranger", namespace: "shop", command: ["sleep", "infinity"] };
    mesh.write("stranger.yaml", workload(stranger));
    await mesh.up("--timeout", "180");

    const authz = async (...args: string[]): Promise<string> => {
      const { code, stdout, stderr } = await mesh.pillion("authz", ...args);
      assert.equal(code, 0, stderr);
      return stdout;
    };
    const flows = async (...args: string[]): Promise<SeenFlow[]> => {
      const file = JSON.parse(await authz("flows", "-o", "json", ...args)) as {
        servers: { workload: string; flows: Flow[] }[];
      };
      return file.servers.flatMap(({ workload: name, flows: seen }) =>
        seen.map((flow) => ({ ...flow, server: name.slice(name.indexOf("/") + 1) })),
      );
    };
    const signature = ({ server, protocol, method, path, client }: SeenFlow): string =>
      `${server} ${protocol} ${method} ${path} by ${client.identity.split(".")[0]}`;
    const isOf = (known: string, flow: SeenFlow): boolean => {
      const [what = "", who = ""] = known.split(/(?= by )/);
      return signature(flow).startsWith(what.trimEnd()) && signature(flow).endsWith(who);
    };
    const calls = {
      front: ["curl", "-s", "-w", " %{http_code}", "--max-time", "10", "http://front/"],
      cart: ["curl", "-s", "-w", " %{http_code}", "--max-time", "10", "http://cart/cart/customer1"],
      redis: ["timeout", "10", "redis-cli", "-h", "redis", "ping"],
    };

    // Watch: everything that the demo does has been seen, with more than one customer.
    await mesh.until(
      "all of the demo's traffic",
      async () => {
        const seen = (await flows()).filter(({ rule }) => rule !== "default/probe");
        const customers = (at: string, method: string): number =>
          seen.filter(
            ({ server, method: used, path }) => server === at && used === method && path.includes("customer"),
          ).length;
        return (
          DEMO.every((known) => seen.some((flow) => isOf(known, flow))) &&
          [customers("cart", "GET"), customers("cart", "POST"), customers("front", "POST")].every(
            (count) => count > 6,
          )
        );
      },
      120_000,
    );
    const file = join(mesh.dir, "flows.json");
    writeFileSync(file, await authz("flows", "-o", "json"));

    // Suggest: the same flows give the same text, at both levels; what it allows is what was seen.
    const suggested = async (level: string, mode: string): Promise<string> => {
      const options = ["suggest", "--from", file, "--level", level, "--mode", mode];
      const text = await authz(...options);
      assert.equal(await authz(...options), text);
      return text;
    };
    const audit = await suggested("requests", "Audit");
    t.diagnostic(audit);
    assert.doesNotMatch(audit, /WARNING/);
    const proposals = {
      network: await suggested("network", "Enforce"),
      requests: await suggested("requests", "Enforce"),
    };
    const proposed = (level: keyof typeof proposals): string => join(mesh.dir, `proposed-${level}`);
    for (const level of ["network", "requests"] as const) {
      cpSync(mesh.folder, proposed(level), { recursive: true });
      writeFileSync(join(proposed(level), "authz.yaml"), proposals[level]);
      const tried = await mesh.pillion("authz", "test", "-f", proposed(level), "--flows", file);
      assert.deepEqual([tried.code, tried.stderr], [0, ""], tried.stdout);
      assert.match(tried.stdout, /nothing would change/);
    }

    // Somebody new, who may today: `test` says beforehand what will become of it, and that nothing else changes.
    for (const call of Object.values(calls)) assert.equal((await mesh.exec("stranger", ...call)).code, 0);
    const tried = await mesh.pillion("authz", "test", "-f", proposed("requests"), "-o", "json");
    assert.equal(tried.code, 1, tried.stderr);
    const { now } = JSON.parse(tried.stdout) as { now: Replayed };
    const predicted = now.changes.map(({ becomes, workload: at, flow }) =>
      [becomes, at.replace(/^.*\//, ""), flow.protocol, flow.method, flow.path, flow.client.identity].join(
        " ",
      ),
    );
    const strangerId = "stranger.shop.serviceaccount.identity.pillion.cluster.local";
    assert.deepEqual(predicted.toSorted(), [
      `denied cart http GET /cart/customer1 ${strangerId}`,
      `denied front http GET / ${strangerId}`,
      `denied redis opaque   ${strangerId}`,
    ]);

    // Audit: nothing changes for anybody, and what would be refused is counted with its rule.
    mesh.write("authz.yaml", audit);
    const wouldBe = await mesh.until("what would be refused of the stranger", async () => {
      for (const call of Object.values(calls)) {
        const { code, stdout } = await mesh.exec("stranger", ...call);
        assert.equal(code, 0);
        assert.match(stdout, / 200$|^PONG$/m);
      }
      const refused = (await flows("--refused")).filter(({ would }) => would !== null);
      return refused.length >= 3 ? refused : null;
    });
    assert.deepEqual(
      wouldBe.map((flow) => `${signature(flow)} ${flow.verdict} ${flow.would!.verdict} ${flow.would!.rule}`),
      [
        "cart http GET /cart/customer1 by stranger allowed would_deny AuthorizationPolicy/shop/cart",
        "front http GET / by stranger allowed would_deny AuthorizationPolicy/shop/front",
        "redis opaque   by stranger allowed would_deny AuthorizationPolicy/shop/redis",
      ],
    );
    const front = await mesh.pod("front");
    const wouldDeny = { verdict: "would_deny", client_id: strangerId };
    assert.ok((await mesh.metric(front, "pillion_inbound_authz_would_total", wouldDeny)) > 0);
    assert.equal(await mesh.metric(front, "inbound_http_authz_deny_total"), 0);

    // Enforce: the stranger is refused as was foretold, with a reason; the shop goes on.
    mesh.write("authz.yaml", proposals.requests);
    const answer = await mesh.until("a refusal", async () => {
      const { stdout } = await mesh.exec("stranger", "curl", "-s", "-i", "--max-time", "10", "http://front/");
      return stdout.startsWith("HTTP/1.1 403 ") ? stdout : null;
    });
    assert.match(answer, /NOT_AUTHORIZED/);
    assert.match(answer, /stranger\.shop\..*was refused.*AuthorizationPolicy\/shop\/front/s);
    assert.notEqual((await mesh.exec("stranger", ...calls.redis)).stdout, "PONG\n");
    await mesh.exec("stranger", ...calls.cart);
    const before = await answered(mesh);
    await mesh.until(
      "400 requests of the shop's customers",
      async () => (await answered(mesh)) > before + 400,
      60_000,
    );
    const denied = (await flows("--refused")).filter(({ verdict }) => verdict !== "allowed");
    assert.deepEqual(
      denied.map(signature),
      [
        "cart http GET /cart/customer1 by stranger",
        "front http GET / by stranger",
        "redis opaque   by stranger",
      ],
      "nobody but the stranger was refused, and it as was foretold",
    );
    assert.ok(
      denied.every(({ samples, rule }) => samples.length > 0 && rule.startsWith("AuthorizationPolicy/shop/")),
    );
    assert.doesNotMatch(await mesh.log("load"), /NOT_AUTHORIZED/);

    // Both say by the enforcing code who may, and where it stands.
    const explained = JSON.parse(
      await authz("explain", "stranger", "front.shop", "--path", "/", "-o", "json"),
    ) as AccessExplanation;
    const { decision } = explained.servers[0]!;
    assert.deepEqual([decision!.verdict, decision!.from.file], ["denied", "authz.yaml"]);
    assert.match(
      readFileSync(join(mesh.folder, "authz.yaml"), "utf8").split("\n")[decision!.from.line - 1]!,
      /^apiVersion|^#/,
    );
    const matrix = JSON.parse(await authz("matrix", "-o", "json")) as AccessMatrix & { seen: number[][] };
    const cellOf = (client: string, server: string): unknown[] => {
      const row = matrix.clients.findIndex(({ name }) => name === `shop/${client}`);
      const column = matrix.servers.findIndex(({ workload: name }) => name === `deployment/${server}`);
      return [matrix.cells[row]![column]!.reach, matrix.seen[row]![column]! > 0];
    };
    assert.deepEqual(cellOf("load", "front"), ["partly", true]);
    assert.deepEqual(cellOf("cart", "redis"), ["allowed", true]);
    assert.deepEqual(cellOf("load", "redis"), ["denied", false]);
    assert.match(await authz("flows", "--refused"), /denied: GET \/ from [0-9.]+ to shop\/deployment\/front/);
  } finally {
    await mesh.close();
  }
});

/** Requests of the shop's customers that were answered well so far, by their last report. */
async function answered(mesh: Mesh): Promise<number> {
  const counts = [...(await mesh.log("load")).matchAll(/"log":"load".*?"ok":(\d+)/g)];
  return Number(counts.at(-1)?.[1] ?? 0);
}
