import assert from "node:assert/strict";
import { test } from "node:test";
import { parse } from "yaml";
import type { ObjectStatus, ParentStatus } from "#/model/node-protocol.ts";
import { objectsText } from "./get.ts";

const PARENT: ParentStatus = {
  parent: { group: "", kind: "Service", namespace: "shop", name: "web", section: null, port: 80 },
  conditions: [
    { type: "Accepted", status: "True", reason: "Accepted", message: "" },
    {
      type: "ResolvedRefs",
      status: "False",
      reason: "BackendNotFound",
      message: "Service shop/gone does not exist",
    },
  ],
};

function shown(status: Partial<ObjectStatus>): { manifest: unknown; status: ObjectStatus } {
  const { kind = "HTTPRoute", name = "r" } = status;
  return {
    manifest: { kind, metadata: { name }, spec: { a: 1 } },
    status: {
      kind,
      namespace: "shop",
      name,
      file: "r.yaml",
      summary: "fine",
      ok: true,
      parents: [],
      findings: [],
      ...status,
    },
  };
}

const route = shown({
  parents: [PARENT],
  findings: [{ file: "r.yaml", line: 7, object: "HTTPRoute shop/r", field: "spec", reason: "leads nowhere" }],
});

test("a route is shown with each parent, and what of it does not count with its line", () => {
  const [head, row, finding] = objectsText([route], "HTTPRoute", false, "text").split("\n");
  assert.match(head!, /^NAMESPACE +NAME +FOR +ACCEPTED +RESOLVED$/);
  assert.match(row!, /^shop +r +Service shop\/web port 80 +yes +no: BackendNotFound$/);
  assert.equal(finding, "! r.yaml:7: HTTPRoute shop/r: spec: leads nowhere");
  assert.match(objectsText([route], "HTTPRoute", false, "wide"), /FILE\n.*r\.yaml/);
});

test("in yaml and json an object has its status as a cluster would hold it", () => {
  const object = parse(objectsText([route], "HTTPRoute", true, "yaml")) as Record<string, unknown>;
  assert.deepEqual(object["spec"], { a: 1 });
  assert.deepEqual(object["status"], {
    parents: [
      {
        parentRef: { group: "", kind: "Service", namespace: "shop", name: "web", port: 80 },
        controllerName: "pillion.dev/control-plane",
        conditions: PARENT.conditions,
      },
    ],
  });
  const policy = shown({ kind: "TrafficPolicy", parents: [PARENT] });
  const list = JSON.parse(objectsText([policy, policy], "TrafficPolicy", false, "json")) as {
    kind: string;
    items: { status: { ancestors: { ancestorRef: { name: string } }[] } }[];
  };
  assert.equal(list.kind, "List");
  assert.deepEqual(
    list.items.map((item) => item.status.ancestors[0]!.ancestorRef.name),
    ["web", "web"],
  );
});

test("other kinds are shown with their state; none says so", () => {
  assert.match(
    objectsText([shown({ kind: "Service" })], "Service", false, "text"),
    /^NAMESPACE +NAME +STATE\nshop +r +fine$/,
  );
  assert.equal(objectsText([], "Service", false, "text"), "no Service is in the folder");
});
