import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { HttpRouteObject, MirrorFilter } from "#/kube/policy-objects.ts";
import type { Attachment } from "./attach.ts";
import { mirrorCycle, mirrorGraph } from "./mirror-cycles.ts";

const mirror = (name: number): MirrorFilter => ({
  backendRef: { group: "", kind: "Service", name: String(name), port: 80 },
});

const ROUTE = { kind: "HTTPRoute", metadata: { name: "r", namespace: "n" }, spec: {} } as HttpRouteObject;

/** One route for each edge. */
function graphOf(edges: readonly (readonly [number, number])[]): ReturnType<typeof mirrorGraph> {
  return mirrorGraph(
    edges.map(([from, to]) => ({
      route: {
        ...ROUTE,
        spec: { rules: [{ filters: [{ type: "RequestMirror", requestMirror: mirror(to) }] }] },
      } as HttpRouteObject,
      service: { namespace: "n", name: String(from) },
      refusal: null,
    })) as unknown as Attachment[],
  );
}

/** The plain way: everything that can be reached. */
function reaches(edges: readonly (readonly [number, number])[], from: number, to: number): boolean {
  const seen = new Set([from]);
  for (const at of seen) for (const [a, b] of edges) if (a === at) seen.add(b);
  return seen.has(to);
}

test("a mirror is on a circle exactly if its Service leads back, and the way that is told is one", () => {
  const node = fc.nat(6);
  fc.assert(
    fc.property(fc.array(fc.tuple(node, node), { maxLength: 14 }), (edges) => {
      const graph = graphOf(edges);
      for (const [from, to] of edges) {
        const way = mirrorCycle(graph, `n/${from}`, ROUTE, mirror(to));
        assert.equal(way !== null, reaches(edges, to, from), `${from} to ${to}`);
        if (way === null) continue;
        const names = way.map((each) => Number(each.slice(2)));
        assert.deepEqual([names[0], names[1], names.at(-1)], [from, to, from]);
        for (let i = 1; i < names.length; i++)
          assert.ok(
            edges.some(([a, b]) => a === names[i - 1] && b === names[i]),
            way.join(),
          );
      }
    }),
  );
});

test("a long way is told in part", () => {
  const count = 500;
  const graph = graphOf(Array.from({ length: count }, (_, i) => [i, (i + 1) % count] as const));
  assert.deepEqual(mirrorCycle(graph, "n/3", ROUTE, mirror(4)), ["n/3", "n/4", "…", "n/3"]);
});
