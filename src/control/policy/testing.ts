import assert from "node:assert/strict";
import { describeProblem, loadFolder, problemOf } from "#/kube/folder.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import { namespaceOf } from "#/kube/objects.ts";
import type { NodeInfo } from "#/model/node-protocol.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import { targetOfService } from "../answers/target.ts";
import { compileServices } from "../services/compile.ts";
import type { KnownPod } from "../services/compile.ts";
import type { MeshView } from "../services/mesh-view.ts";
import { compilePolicy } from "./compile.ts";
import { describeFaults } from "./conditions.ts";
import { outboundPolicyFor } from "./policy.ts";

const NODE: NodeInfo = {
  name: "node-1",
  instance: "test",
  gatewayIp: "10.201.0.1",
  podCidr: "10.201.0.0/16",
  serviceCidr: "10.202.0.0/24",
  controlPort: 8086,
  intercept: "ebpf",
  clusterDomain: "cluster.local",
  trustDomain: "cluster.local",
};

/** A mesh of one file, compiled: what tests of policy ask. */
export class PolicyWorld {
  readonly view: MeshView;
  readonly objects: ReadonlyMap<string, LoadedObject>;
  /** `FILE:LINE: OBJECT: FIELD REASON`, of the objects together. */
  readonly problems: readonly string[];

  /** Asserts that the file is taken: what is wrong inside of an object refuses it. */
  constructor(text: string, pods: readonly KnownPod[] = []) {
    const folder = loadFolder([{ path: "f.yaml", text }], new Map());
    assert.deepEqual(folder.problems.map(describeProblem), []);
    this.objects = folder.objects;
    const annotationsOf = (namespace: string): Readonly<Record<string, string>> =>
      folder.objects.get(`Namespace//${namespace}`)?.object.metadata.annotations ?? {};
    const { view } = compileServices({
      node: NODE,
      objects: folder.objects,
      pods,
      clusterIps: new Map(),
      namespaceAnnotations: annotationsOf,
      meshAnnotations: {},
    });
    const policy = compilePolicy({ objects: folder.objects, view });
    this.view = { ...view, policy };
    this.problems = [...policy.findings].flatMap(([key, findings]) =>
      findings.map(({ path, message }) =>
        describeProblem(problemOf(folder.objects.get(key)!, path, message)),
      ),
    );
  }

  /** What a client of a namespace (of the Service's own, if not said) is told of `namespace/name`. */
  ask(service: string, port = 80, client: string | null = null, serviceAccount = "default"): OutboundPolicy {
    const found = this.view.servicesByName.get(service);
    assert.ok(found, service);
    const namespace = client ?? found.namespace;
    return outboundPolicyFor(this.view, targetOfService(found, port), { namespace, serviceAccount });
  }

  /** Names of the routes that count, in order. */
  routes(service: string, port = 80, client: string | null = null): readonly string[] {
    const { http, tcp, protocol } = this.ask(service, port, client);
    const isRequests = protocol !== "tls" && protocol !== "opaque";
    return (isRequests ? http : tcp).map(({ source }) => `${source.kind}/${source.namespace}/${source.name}`);
  }

  /** `Type=Status (Reason)` at each parent, and "" for what is fine. */
  conditions(kind: string, name: string): readonly string[] {
    for (const [key, parents] of this.view.policy.statuses) {
      const { object } = this.objects.get(key)!;
      if (object.kind === kind && `${namespaceOf(object)}/${object.metadata.name}` === name)
        return parents.map((each) => describeFaults([each]));
    }
    throw new Error(`no status of ${kind} ${name}`);
  }
}

export function service(
  name: string,
  namespace = "shop",
  ports = "{name: http, port: 80}",
  annotations = "",
): string {
  return `---
apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: ${namespace}, annotations: {${annotations}}}
spec: {selector: {app: ${name}}, ports: [${ports}]}
`;
}

/** A route or policy of the Gateway API: `spec` in flow style. */
export function gatewayObject(
  kind: string,
  name: string,
  spec: string,
  namespace = "shop",
  more = "",
): string {
  return `---
apiVersion: gateway.networking.k8s.io/v1
kind: ${kind}
metadata: {name: ${name}, namespace: ${namespace}${more}}
spec: ${spec}
`;
}

/** A parent reference to a Service. */
export function parent(name: string, more = ""): string {
  return `{group: "", kind: Service, name: ${name}${more}}`;
}
