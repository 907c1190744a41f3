import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom } from "#/base/random.ts";
import type { Backend, TcpRoute } from "#/model/route.ts";
import { chooseTcp } from "./tcp.ts";
import { backendOf, balancerTo, hostOfText, sourceNamed } from "./testing.ts";

function route(to: string | null, names: readonly string[] = [], refusal: string | null = null): TcpRoute {
  return {
    source: sourceNamed(to ?? "none", names.length === 0 ? "TCPRoute" : "TLSRoute"),
    serverNames: names.map(hostOfText),
    refusal,
    choice: "random",
    backends: to === null ? [] : [backendOf(balancerTo(to))],
  };
}

const random = new SeededRandom(1);
const nameOf = (backend: Backend): string =>
  backend.kind === "balancer" ? backend.path.split(".")[0]! : backend.kind;

function choose(routes: readonly TcpRoute[], serverName: string | null): string {
  const choice = chooseTcp(routes, serverName, "db.shop:443", () => true, random);
  return choice.kind === "backend" ? nameOf(choice.backend) : `${choice.reason}: ${choice.message}`;
}

test("a connection goes by its server name: exact, then the longest suffix, then a route without names", () => {
  const routes = [
    route("rest"),
    route("suffix", ["*.example.com"]),
    route("longer", ["*.b.example.com", "other"]),
    route("exact", ["a.b.example.com"]),
    route("late", ["a.b.example.com"]),
  ];
  assert.equal(choose(routes, "a.b.example.com"), "exact");
  assert.equal(choose(routes, "A.B.Example.com"), "exact");
  assert.equal(choose(routes, "x.b.example.com"), "longer");
  assert.equal(choose(routes, "x.example.com"), "suffix");
  assert.equal(choose(routes, "example.com"), "rest");
  assert.equal(choose(routes, null), "rest");
});

test("what no route takes, or one refuses, or leads nowhere, is refused with the reason", () => {
  const named = [route("exact", ["a.example.com"])];
  assert.equal(
    choose(named, "b.example.com"),
    'no_route: db.shop:443 has no route for server name "b.example.com"',
  );
  assert.equal(
    choose(named, null),
    "no_route: db.shop:443 has no route for a connection without a server name",
  );
  assert.equal(choose([], null), "no_route: db.shop:443 has no route");
  assert.equal(choose([route("a", [], "not here")], null), "forbidden: not here (policy TCPRoute/shop/a)");
  assert.equal(
    choose([route(null)], null),
    "no_backend: db.shop:443 has no backend (policy TCPRoute/shop/none)",
  );
});

test("connections are shared out by weight, and an unready backend's share goes to the others", () => {
  const split: TcpRoute = {
    ...route("a"),
    backends: [backendOf(balancerTo("a"), 80), backendOf(balancerTo("b"), 20), backendOf(balancerTo("c"), 0)],
  };
  const counts = (isReady: (name: string) => boolean): Record<string, number> => {
    const all: Record<string, number> = {};
    for (let i = 0; i < 2_000; i++) {
      const choice = chooseTcp([split], null, "db", (backend) => isReady(nameOf(backend)), random);
      assert(choice.kind === "backend");
      const name = nameOf(choice.backend);
      all[name] = (all[name] ?? 0) + 1;
    }
    return all;
  };
  const even = counts(() => true);
  assert.equal(even["c"], undefined);
  assert(Math.abs(even["a"]! - 1_600) < 80, JSON.stringify(even));
  assert.deepEqual(
    counts((name) => name !== "a"),
    { b: 2_000 },
  );
});
