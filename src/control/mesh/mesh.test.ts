import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { describeProblem } from "#/kube/folder.ts";
import type { NodeInfo } from "#/model/node-protocol.ts";
import type { PodPlan, PodStatus, ServicePlan, VolumePlan } from "#/model/pod-plan.ts";
import { SILENT } from "#/net/log.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import type { MeshView } from "../services/mesh-view.ts";
import { StateFolder } from "../state-folder.ts";
import { Mesh } from "./mesh.ts";

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

/** A mesh in memory whose pods are ready as soon as they are planned. */
class World implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), "pillion-mesh-"));
  readonly clock = new ManualClock();
  mesh!: Mesh;
  pods: readonly PodPlan[] = [];
  services: readonly ServicePlan[] = [];
  view: MeshView | null = null;
  readonly statuses = new Map<string, PodStatus>();
  readonly #unready = new Set<string>();
  #uid = 0;
  #ip = 10;

  constructor() {
    this.restart();
    this.mesh.takePods([]);
  }

  /** A new process over the same state folder. */
  restart(version = "1"): void {
    this.mesh = new Mesh(
      {
        clock: this.clock,
        log: SILENT,
        state: new StateFolder(this.dir),
        trustAnchorsPem: () => "PEM",
        version,
        newUid: () => `uid-${this.#uid++}`,
        seed: "seed",
      },
      {
        view: (view) => {
          this.view = view;
        },
        plan: (pods, services) => {
          this.pods = pods;
          this.services = services;
        },
      },
    );
    this.mesh.takeNode(NODE);
  }

  folder(...texts: string[]): void {
    this.mesh.takeFolder(
      texts.map((text, i) => ({ path: `${i}.yaml`, text })),
      [],
    );
    this.settle();
  }

  hold(name: string): void {
    this.#unready.add(name);
  }

  report(): void {
    this.mesh.takePods([...this.statuses.values()]);
    this.clock.advance(50);
  }

  settle(): void {
    this.clock.advance(50);
    for (let i = 0; i < 100; i++) {
      const before = JSON.stringify([this.pods, [...this.statuses]]);
      for (const uid of this.statuses.keys())
        if (!this.pods.some((pod) => pod.uid === uid)) this.statuses.delete(uid);
      for (const pod of this.pods) {
        if (this.statuses.has(pod.uid)) continue;
        const { uid, name, namespace, templateHash, owner } = pod;
        this.statuses.set(uid, {
          uid,
          name,
          namespace,
          templateHash,
          owner,
          ip: `10.201.0.${this.#ip++}`,
          phase: "Running",
          ready: !this.#unready.has(name),
          terminating: false,
          message: "",
          startedAtMs: 0,
          intercept: "ebpf",
          containers: [],
          sidecar: null,
        });
      }
      this.report();
      if (JSON.stringify([this.pods, [...this.statuses]]) === before) return;
    }
    throw new Error("does not settle");
  }

  get problems(): string[] {
    return this.mesh.problems.map(describeProblem);
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true });
  }
}

const deployment = (
  options: { replicas?: number; pod?: string; container?: string; annotations?: string } = {},
): string => `apiVersion: apps/v1
kind: Deployment
metadata: {name: front}
spec:
  replicas: ${options.replicas ?? 2}
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}, annotations: {${options.annotations ?? ""}}}
    spec:
      containers:
        - name: main
          command: [main]
          ports: [{name: http, containerPort: 8080}]
${options.container ?? ""}${options.pod ?? ""}`;

const config = (value: string): string => `apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {level: "${value}"}
`;

const service = (spec: string): string => `apiVersion: v1
kind: Service
metadata: {name: front}
spec: {selector: {app: front}, ${spec}}
`;

test("a mesh that was closed changes nothing more, whatever it had still to take in", () => {
  using world = new World();
  world.folder(deployment());
  const { view, pods } = world;
  world.mesh.takeNode({ ...NODE, name: "node-2" });
  world.mesh.close();
  world.clock.advance(60_000);
  world.mesh.takePods([]);
  world.clock.advance(60_000);
  assert.equal(world.view, view);
  assert.equal(world.pods, pods);
});

test("a pod is planned with everything resolved", () => {
  using world = new World();
  world.folder(
    config("high"),
    "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\ndata: {a: aGVsbG8=}\nstringData: {b: plain}\n",
    deployment({
      replicas: 1,
      container: `          args: ["--ip=$(POD_IP)", "--level=$(LEVEL)", "$$(LEVEL)", "$(NOBODY)"]
          envFrom: [{prefix: K_, secretRef: {name: keys}}]
          env:
            - {name: LEVEL, valueFrom: {configMapKeyRef: {name: settings, key: level}}}
            - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
            - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: APP, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
            - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
            - {name: BOTH, value: "$(LEVEL)/$(K_b)"}
          resources: {limits: {cpu: 500m, memory: 64Mi}, requests: {cpu: 100m}}
          readinessProbe: {httpGet: {path: /r, port: http}, periodSeconds: 1}
          volumeMounts: [{name: v, mountPath: /v, readOnly: true}]
`,
      pod: `      volumes:
        - name: v
          projected:
            defaultMode: 0400
            sources:
              - configMap: {name: settings}
              - secret: {name: keys, items: [{key: b, path: x/b, mode: 0600}]}
              - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
`,
    }),
  );
  assert.deepEqual(world.problems, []);
  const [pod] = world.pods;
  const [main] = pod!.containers;
  assert.deepEqual(main!.argv, ["main", "--ip=$(POD_IP)", "--level=high", "$(LEVEL)", "$(NOBODY)"]);
  assert.deepEqual(main!.env, [
    { name: "K_a", value: "hello" },
    { name: "K_b", value: "plain" },
    { name: "LEVEL", value: "high" },
    { name: "POD_IP", field: "status.podIP" },
    { name: "NAME", value: pod!.name },
    { name: "APP", value: "front" },
    { name: "MEMORY", value: "64" },
    { name: "BOTH", value: "high/plain" },
  ]);
  assert.deepEqual(
    [main!.cpuLimitMillis, main!.cpuRequestMillis, main!.memoryLimitBytes, main!.memoryRequestBytes],
    [500, 100, 2 ** 26, 2 ** 26],
  );
  assert.deepEqual(main!.readinessProbe?.action, {
    kind: "http",
    path: "/r",
    port: 8080,
    scheme: "HTTP",
    host: null,
    headers: [],
  });
  assert.equal(main!.readinessProbe?.failureThreshold, 3);
  const [volume] = pod!.volumes as [Extract<VolumePlan, { kind: "files" }>];
  assert.equal(volume.secret, true);
  assert.deepEqual(
    volume.files.map((file) => [
      file.path,
      file.mode,
      Buffer.from(file.base64, "base64").toString().split("\n")[0],
    ]),
    [
      ["level", 0o400, "high"],
      ["x/b", 0o600, "plain"],
      ["labels", 0o400, 'app="front"'],
    ],
  );
  assert.match(pod!.name, /^front-[a-z0-9]{8}-[a-z0-9]{5}$/);
  assert.deepEqual(pod!.dnsSearch, ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
  assert.equal(
    pod!.sidecar?.env["LINKERD2_PROXY_IDENTITY_LOCAL_NAME"],
    "default.default.serviceaccount.identity.pillion.cluster.local",
  );
  assert.equal(pod!.sidecar?.env["LINKERD2_PROXY_INBOUND_PORTS"], "8080");
});

test("a change of a ConfigMap reaches volumes of running pods, and new pods' environments", () => {
  using world = new World();
  const text = deployment({
    container:
      "          env: [{name: LEVEL, valueFrom: {configMapKeyRef: {name: settings, key: level}}}]\n          volumeMounts: [{name: v, mountPath: /v}]\n",
    pod: "      volumes: [{name: v, configMap: {name: settings}}]\n",
  });
  world.folder(text, config("one"));
  const before = world.pods;
  world.folder(text, config("two"));
  assert.deepEqual(
    world.pods.map((pod) => pod.uid),
    before.map((pod) => pod.uid),
  );
  const content = (pod: PodPlan): string =>
    pod.volumes[0]?.kind === "files" ? Buffer.from(pod.volumes[0].files[0]!.base64, "base64").toString() : "";
  assert.deepEqual(world.pods.map(content), ["two", "two"]);
  assert.deepEqual(world.pods[0]!.containers[0]!.env, [{ name: "LEVEL", value: "one" }]);
});

test("what a template lacks is told with its line, new pods wait, running ones stay and are scaled", () => {
  using world = new World();
  world.folder(deployment());
  const before = world.pods.map((pod) => pod.uid);
  const lacking = (replicas: number): string =>
    deployment({ replicas, container: "          envFrom: [{configMapRef: {name: settings}}]\n" });
  world.folder(lacking(2));
  assert.deepEqual(
    world.pods.map((pod) => pod.uid),
    before,
  );
  assert.deepEqual(world.problems, [
    "0.yaml:14: Deployment default/front: spec.template.spec.containers[0].envFrom[0] ConfigMap default/settings does not exist; add it, or set optional: true",
  ]);
  assert.match(world.mesh.objects[0]!.summary, /no new pods/);
  world.folder(lacking(3));
  assert.deepEqual(world.pods.map((pod) => pod.uid).slice(0, 2), before);
  assert.equal(world.pods.length, 3);
  world.folder(lacking(3), config("x"));
  assert.deepEqual(world.problems, []);
  assert.ok(world.pods.every((pod) => !before.includes(pod.uid)));
});

test("a container that only names an image waits for a command, and the rest of its file is taken", () => {
  using world = new World();
  world.folder(
    `${deployment().replace("          command: [main]\n", "          image: nginx\n")}---\n${service("ports: [{port: 80}]")}`,
  );
  assert.equal(world.pods.length, 0);
  assert.deepEqual(world.problems, [
    "0.yaml:11: Deployment default/front: spec.template.spec.containers[0] command is missing; there is no image that could say which program to run",
  ]);
  assert.ok(world.view?.servicesByName.has("default/front"));
});

test("a service account must exist: it is an identity", () => {
  using world = new World();
  world.folder(deployment({ pod: "      serviceAccountName: web\n" }));
  assert.equal(world.pods.length, 0);
  assert.match(
    world.problems[0]!,
    /^0\.yaml:14: .*serviceAccountName ServiceAccount default\/web does not exist/,
  );
  world.folder(
    deployment({ pod: "      serviceAccountName: web\n" }),
    "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web}\n",
  );
  assert.equal(world.pods.length, 2);
});

test("settings of the sidecar come from mesh, namespace and pod, the narrower wins, and a change of them rolls the pods", () => {
  using world = new World();
  const meshConfig = (level: string): string =>
    `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mesh-config, namespace: pillion}\ndata: {config.linkerd.io/proxy-log-level: ${level}}\n`;
  const namespace = (annotations: string): string =>
    `apiVersion: v1\nkind: Namespace\nmetadata: {name: default, annotations: {${annotations}}}\n`;
  const text = deployment({
    annotations:
      'config.linkerd.io/skip-outbound-ports: "25,100-102", pillion.dev/let-through: "192.0.2.0/24:443"',
  });
  world.folder(text, meshConfig("warn"), namespace("config.linkerd.io/proxy-memory-limit: 64Mi"));
  const { sidecar } = world.pods[0]!;
  assert.equal(sidecar?.env["PILLION_LOG"], "warn");
  assert.equal(sidecar?.memoryLimitBytes, 2 ** 26);
  assert.equal(sidecar?.env["PILLION_MEMORY_LIMIT_BYTES"], String(2 ** 26), "for its guard");
  assert.deepEqual(sidecar?.skipOutboundPorts, [25, 100, 101, 102]);
  assert.deepEqual(sidecar?.letThroughCidrs, ["192.0.2.0/24:443"]);
  const before = new Set(world.pods.map((pod) => pod.uid));
  // An annotation that concerns nobody rolls nothing.
  world.folder(text, meshConfig("warn"), namespace("config.linkerd.io/proxy-memory-limit: 64Mi, team: a"));
  assert.ok(world.pods.every((pod) => before.has(pod.uid)));
  world.folder(text, meshConfig("debug"), namespace("config.linkerd.io/proxy-memory-limit: 64Mi, team: a"));
  assert.ok(world.pods.every((pod) => !before.has(pod.uid)));
  assert.equal(world.pods[0]!.sidecar?.env["PILLION_LOG"], "debug");
  world.folder(text, namespace("linkerd.io/inject: disabled"));
  assert.ok(world.pods.every((pod) => pod.sidecar === null));
});

test("a new version of Pillion rolls meshed pods and leaves unmeshed ones", () => {
  using world = new World();
  const unmeshed =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: plain, annotations: {linkerd.io/inject: disabled}}\nspec: {containers: [{name: c, command: [c]}]}\n";
  world.folder(deployment(), unmeshed);
  const before = new Map(world.pods.map((pod) => [pod.name, pod.uid]));
  world.restart("2");
  world.mesh.takePods([...world.statuses.values()]);
  world.folder(deployment(), unmeshed);
  for (const pod of world.pods)
    assert.equal(before.get(pod.name) === pod.uid, pod.name === "plain", pod.name);
});

test("a mesh that begins on a machine without its pods makes them anew", () => {
  using world = new World();
  world.folder(deployment());
  const before = new Set(world.pods.map((pod) => pod.uid));
  world.restart();
  world.statuses.clear();
  world.mesh.takePods([]);
  world.folder(deployment());
  assert.equal(world.pods.length, 2);
  assert.ok(world.pods.every((pod) => !before.has(pod.uid)));
});

test("the same folder gives the same names", () => {
  using a = new World();
  using b = new World();
  a.folder(deployment());
  b.folder(deployment());
  assert.deepEqual(
    a.pods.map((pod) => pod.name),
    b.pods.map((pod) => pod.name),
  );
  assert.equal(new Set(a.pods.map((pod) => pod.name)).size, 2);
});

test("a removed workload's pods leave discovery at once and are still known by their address until they are gone", () => {
  using world = new World();
  world.folder(deployment({ replicas: 1 }), service("ports: [{port: 80, targetPort: http}]"));
  const [pod] = world.pods;
  const ip = world.statuses.get(pod!.uid)!.ip;
  assert.equal(world.view?.servicesByName.get("default/front")?.ports[0]?.endpoints.length, 1);
  world.mesh.takeFolder([{ path: "1.yaml", text: service("ports: [{port: 80, targetPort: http}]") }], []);
  world.clock.advance(50);
  assert.deepEqual(world.pods, []);
  assert.equal(world.view?.servicesByName.get("default/front")?.ports[0]?.endpoints.length, 0);
  assert.equal(world.view?.podsByIp.get(ip)?.isLeaving, true);
  assert.equal(
    world.mesh.isInUse({ trustDomain: "cluster.local", namespace: "default", serviceAccount: "default" }),
    true,
  );
  world.settle();
  assert.equal(world.view?.podsByIp.get(ip), undefined);
  assert.equal(
    world.mesh.isInUse({ trustDomain: "cluster.local", namespace: "default", serviceAccount: "default" }),
    false,
  );
});

test("Services: ports by name, headless, not-ready addresses, hostnames, external names and addresses", () => {
  using world = new World();
  world.hold("db-0");
  world.folder(
    `apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  podManagementPolicy: Parallel
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers: [{name: c, command: [c], ports: [{name: sql, containerPort: 5432}], volumeMounts: [{name: data, mountPath: /data}]}]
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce]}}]
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, publishNotReadyAddresses: true, ports: [{port: 1, targetPort: sql}]}
---
apiVersion: v1
kind: Service
metadata: {name: ready}
spec: {selector: {app: db}, ports: [{name: a, port: 1, targetPort: sql}, {name: b, port: 2, targetPort: nobody}]}
---
apiVersion: v1
kind: Service
metadata: {name: out}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {ports: [{port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: outside-1, labels: {kubernetes.io/service-name: outside}}
addressType: IPv4
ports: [{port: 8443}]
endpoints: [{addresses: [192.0.2.1]}, {addresses: [192.0.2.2], conditions: {ready: false}}]
`,
  );
  assert.deepEqual(world.problems, []);
  const plan = new Map(world.services.map((one) => [one.name, one]));
  assert.deepEqual(
    plan.get("db")!.endpoints.map(({ hostname, ready, targetPorts }) => ({ hostname, ready, targetPorts })),
    [
      { hostname: "db-0", ready: true, targetPorts: [5432] },
      { hostname: "db-1", ready: true, targetPorts: [5432] },
    ],
  );
  assert.equal(plan.get("db")!.clusterIp, null);
  assert.deepEqual(
    plan
      .get("ready")!
      .endpoints.map(({ hostname, ready, targetPorts }) => ({ hostname, ready, targetPorts })),
    [
      { hostname: null, ready: false, targetPorts: [5432, 0] },
      { hostname: null, ready: true, targetPorts: [5432, 0] },
    ],
  );
  assert.equal(plan.get("out")!.externalName, "example.com");
  assert.deepEqual(
    plan.get("outside")!.endpoints.map(({ ip, ready, targetPorts }) => ({ ip, ready, targetPorts })),
    [
      { ip: "192.0.2.1", ready: true, targetPorts: [8443] },
      { ip: "192.0.2.2", ready: false, targetPorts: [8443] },
    ],
  );
  assert.deepEqual(
    world.pods.map((pod) => [pod.hostname, pod.subdomain, pod.volumes]),
    [0, 1].map((i) => [
      `db-${i}`,
      "db",
      [{ name: "data", kind: "claim", claim: `data-db-${i}`, readOnly: false }],
    ]),
  );
  assert.deepEqual(
    world.view?.servicesByName.get("default/ready")?.ports.map((port) => port.endpoints.length),
    [1, 0],
  );
});

test("virtual IPs stay over restarts, follow the name, and a wanted one that cannot be given is told", () => {
  using world = new World();
  const named = (name: string, spec = ""): string =>
    `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}}\nspec: {${spec}selector: {a: b}, ports: [{port: 80}]}\n`;
  world.folder(named("one"), named("two"));
  const before = new Map(world.services.map((one) => [one.name, one.clusterIp]));
  world.folder(
    named("one"),
    named("three"),
    named("two"),
    named("four", "clusterIP: 10.9.9.9, "),
    named("five", "clusterIP: 10.202.0.77, "),
  );
  for (const [name, ip] of before)
    assert.equal(world.services.find((one) => one.name === name)?.clusterIp, ip);
  assert.equal(world.services.find((one) => one.name === "five")?.clusterIp, "10.202.0.77");
  assert.match(
    world.problems.join("\n"),
    /^3\.yaml:4: Service default\/four: spec\.clusterIP 10\.9\.9\.9 is not in the service network 10\.202\.0\.0\/24/,
  );
  world.restart();
  world.mesh.takePods([]);
  world.folder(named("two"));
  assert.equal(world.services[0]!.clusterIp, before.get("two"));
  assert.equal(new Set(world.services.map((one) => one.clusterIp)).size, world.services.length);
});

test("a service network that is full says so", () => {
  using world = new World();
  const many = Array.from(
    { length: 255 },
    (_, i) =>
      `apiVersion: v1\nkind: Service\nmetadata: {name: s${i}}\nspec: {selector: {a: b}, ports: [{port: 80}]}\n`,
  ).join("---\n");
  world.folder(many);
  assert.equal(world.services.filter((one) => one.clusterIp !== null).length, 254);
  assert.equal(new Set(world.services.map((one) => one.clusterIp)).size, 255);
  assert.match(world.problems[0]!, /has no free address/);
});

test("minReadySeconds is waited for without anybody reporting anything", () => {
  using world = new World();
  world.folder(
    deployment({ replicas: 1 }).replace(
      "  replicas: 1\n",
      "  replicas: 1\n  minReadySeconds: 10\n  strategy: {rollingUpdate: {maxUnavailable: 0}}\n",
    ),
  );
  world.clock.advance(11_000);
  assert.equal(world.mesh.objects[0]!.summary, "1/1 ready");
  world.mesh.restart(["Deployment/default/front"]);
  world.settle();
  assert.equal(world.pods.length, 2);
  world.clock.advance(11_000);
  assert.equal(world.pods.length, 1);
});

test("unready endpoints are out, a status of a pod that nobody planned is of no consequence", () => {
  using world = new World();
  world.folder(deployment({ replicas: 1 }), service("ports: [{port: 80, targetPort: http}]"));
  const [status] = [...world.statuses.values()];
  world.statuses.set("stranger", { ...status!, uid: "stranger", ip: "10.201.0.200" });
  world.statuses.set(status!.uid, { ...status!, ready: false });
  world.report();
  assert.deepEqual(
    world.services[0]!.endpoints.map((endpoint) => [endpoint.ip, endpoint.ready]),
    [[status!.ip, false]],
  );
});

const route = (backend: string, weight = 1): string => `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: "", kind: Service, name: front}]
  rules: [{backendRefs: [{name: ${backend}, port: 80, weight: ${weight}}]}]
`;

test("routes reach the view with their conditions in the status; what they lack is no problem of the folder", () => {
  using world = new World();
  world.folder(service("ports: [{port: 80}]"), route("front"));
  assert.deepEqual(world.problems, []);
  assert.equal(
    world.mesh.objects.find((each) => each.kind === "HTTPRoute")?.summary,
    "accepted by Service default/front",
  );
  assert.equal(world.view?.policy.services.get("default/front")?.producer.get(80)?.http.length, 1);
  world.folder(service("ports: [{port: 80}]"), route("gone"));
  assert.deepEqual(world.problems, []);
  const status = world.mesh.objects.find((each) => each.kind === "HTTPRoute");
  assert.deepEqual([status?.ok, status?.summary], [false, "ResolvedRefs=False (BackendNotFound)"]);
  assert.deepEqual(status?.findings.map(describeProblem), [
    "1.yaml:6: HTTPRoute default/r: spec.rules[0].backendRefs[0].name Service default/gone does not exist; check the name and the namespace",
  ]);
  world.folder(
    service("ports: [{port: 80}]"),
    service("ports: [{port: 80}]").replace("front", "gone"),
    route("gone"),
  );
  assert.equal(world.mesh.objects.find((each) => each.kind === "HTTPRoute")?.ok, true);
});

test("a bad route changes nothing that runs: its file's last good state counts", () => {
  using world = new World();
  world.folder(service("ports: [{port: 80}]"), route("front"));
  const before = world.view?.policy.services.get("default/front")?.producer.get(80)?.http;
  world.folder(service("ports: [{port: 80}]"), route("front", 1_000_001));
  assert.deepEqual(world.problems, [
    "1.yaml:6: HTTPRoute default/r: spec.rules[0].backendRefs[0].weight must be at most 1000000",
  ]);
  assert.deepEqual(world.view?.policy.services.get("default/front")?.producer.get(80)?.http, before);
});

test("policy is compiled anew when the folder changes, and only then", () => {
  using world = new World();
  world.folder(deployment(), service("ports: [{port: 80, targetPort: http}]"), route("front"));
  const before = world.view?.policy;
  world.report();
  assert.equal(world.view?.policy, before);
  world.folder(deployment(), service("ports: [{port: 80, targetPort: http}]"), route("front", 2));
  assert.notEqual(world.view?.policy, before);
});
