import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { describeProblem, loadFile, loadFolder } from "./folder.ts";

/** The problems of one file, as an operator reads them. */
function problems(text: string): string[] {
  return loadFile({ path: "a.yaml", text }).problems.map(describeProblem);
}

const deployment = (spec: string, container = ""): string => `apiVersion: apps/v1
kind: Deployment
metadata:
  name: front
  namespace: shop
spec:
  selector: {matchLabels: {app: front}}
${spec}  template:
    metadata:
      labels: {app: front}
    spec:
      containers:
        - name: main
          command: [main]
${container}`;

const pod = (spec: string): string => `apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers: [{name: main, command: [main], ports: [{name: http, containerPort: 80}]}]
${spec}`;

const service = (spec: string): string => `apiVersion: v1
kind: Service
metadata: {name: s}
spec:
${spec}`;

/** What is written, and what the operator is told. */
const REFUSED: readonly [name: string, text: string, expected: readonly (string | RegExp)[]][] = [
  ["no YAML", "a: [1\nb: 2", [/^a\.yaml:2: is no valid YAML: /]],
  [
    "a key twice",
    "apiVersion: v1\nkind: Pod\nkind: Pod",
    ["a.yaml:3: is no valid YAML: Map keys must be unique"],
  ],
  ["a tab", "a:\n\tb: 1", [/^a\.yaml:2: is no valid YAML: /]],
  ["no object", "- 1\n- 2", [/^a\.yaml:1: is no Kubernetes object/]],
  ["no kind", "apiVersion: v1\nmetadata: {name: a}", [/^a\.yaml:1: kind is missing/]],
  [
    "an unknown kind",
    "apiVersion: v1\nkind: Widget\nmetadata: {name: a}",
    [/^a\.yaml:2: Widget default\/a: kind Widget is not honoured: unknown kind; honoured are Namespace, /],
  ],
  [
    "a CronJob",
    "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}",
    [/kind CronJob is not honoured: nothing here starts Jobs by the clock/],
  ],
  [
    "an autoscaler",
    "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: a}",
    [/set spec\.replicas and delete this object$/],
  ],
  ["a prototype's name as kind", "apiVersion: v1\nkind: constructor\nmetadata: {name: a}", [/unknown kind/]],
  [
    "an old apiVersion",
    "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: a}",
    ["a.yaml:1: Deployment default/a: apiVersion Deployment has apiVersion apps/v1"],
  ],
  ["no name", "apiVersion: v1\nkind: ConfigMap\nmetadata: {}", ["a.yaml:3: metadata name is missing"]],
  [
    "a name in capitals",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: A}",
    [/^a\.yaml:3: ConfigMap default\/A: metadata\.name must be a DNS name/],
  ],
  [
    "a typing error",
    deployment("  replica: 3\n"),
    ["a.yaml:8: Deployment shop/front: spec.replica unknown field; did you mean replicas?"],
  ],
  [
    "a field of another place",
    deployment("", "      replicas: 3\n"),
    [
      /^a\.yaml:15: Deployment shop\/front: spec\.template\.spec\.replicas unknown field, so it would have no effect/,
    ],
  ],
  [
    "a number in quotes",
    deployment('  replicas: "3"\n'),
    ["a.yaml:8: Deployment shop/front: spec.replicas must be a whole number"],
  ],
  [
    "a negative number",
    deployment("  replicas: -1\n"),
    ["a.yaml:8: Deployment shop/front: spec.replicas must be at least 0"],
  ],
  [
    "nothing can roll",
    deployment("  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}\n"),
    [/^a\.yaml:8: .*strategy\.rollingUpdate maxSurge and maxUnavailable cannot both be 0/],
  ],
  [
    "Recreate with rolling settings",
    deployment("  strategy:\n    type: Recreate\n    rollingUpdate: {maxSurge: 1}\n"),
    [/^a\.yaml:10: .*has no effect with type: Recreate/],
  ],
  [
    "a selector that misses its pods",
    deployment("").replace("matchLabels: {app: front}", "matchLabels: {app: back}"),
    [/^a\.yaml:7: .*spec\.selector does not match/],
  ],
  [
    "a boolean as variable",
    deployment("", "          env: [{name: A, value: yes}]\n"),
    [/^a\.yaml:15: .*env\[0\]\.value must be text: put it in quotes$/],
  ],
  [
    "hostNetwork",
    pod("  hostNetwork: true\n"),
    [/^a\.yaml:6: Pod default\/p: spec\.hostNetwork true is not honoured: .*hostPort$/],
  ],
  [
    "seccomp",
    pod("  securityContext: {seccompProfile: {type: RuntimeDefault}}\n"),
    [/^a\.yaml:6: .*seccompProfile .*is not honoured: no seccomp/],
  ],
  ["sysctls", pod("  securityContext: {sysctls: [{name: a, value: b}]}\n"), [/sysctls .*is not honoured/]],
  [
    "a volume by a driver",
    pod("  volumes:\n    - name: v\n      nfs: {server: a, path: /}\n"),
    [/^a\.yaml:8: .*volumes\[0\]\.nfs is not honoured: .*use hostPath/],
  ],
  [
    "a mount without a volume",
    deployment("", "          volumeMounts: [{name: data, mountPath: /data}]\n"),
    [/^a\.yaml:15: .*the pod has no volume data; add it to volumes$/],
  ],
  [
    "privileged",
    deployment("", "          securityContext:\n            privileged: true\n"),
    [/^a\.yaml:16: .*privileged true is not honoured/],
  ],
  [
    "a strong capability",
    deployment(
      "",
      "          securityContext:\n            capabilities:\n              add: [NET_BIND_SERVICE, SYS_ADMIN]\n",
    ),
    [/^a\.yaml:17: .*capabilities\.add\[1\] SYS_ADMIN would let the container out/],
  ],
  [
    "runAsNonRoot without a user",
    deployment("", "          securityContext: {runAsNonRoot: true}\n"),
    [/runAsNonRoot asks for another user/],
  ],
  [
    "a probe of two kinds",
    deployment("", "          livenessProbe: {exec: {command: [a]}, tcpSocket: {port: 1}}\n"),
    [/livenessProbe must have exactly one of/],
  ],
  [
    "a probe on a port of no name",
    deployment("", "          livenessProbe:\n            httpGet: {port: web}\n"),
    [/^a\.yaml:16: .*livenessProbe\.httpGet\.port no container port is called web$/],
  ],
  [
    "disk limits",
    deployment("", "          resources: {limits: {ephemeral-storage: 1Gi}}\n"),
    [/limits\.ephemeral-storage is not honoured/],
  ],
  [
    "a quantity that is none",
    deployment("", "          resources: {limits: {cpu: lots}}\n"),
    [/limits\.cpu must be a quantity/],
  ],
  [
    "two variables' sources",
    deployment(
      "",
      "          env: [{name: A, value: b, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n",
    ),
    [/has both value and valueFrom/],
  ],
  [
    "an unknown downward field",
    deployment("", "          env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.nope}}}]\n"),
    [/spec\.nope is not known/],
  ],
  [
    "the mesh's own container name",
    pod("").replace("name: main,", "name: pillion-sidecar,"),
    [/is the name of the mesh's own container/],
  ],
  [
    "a Job that goes on for ever",
    "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  template:\n    spec:\n      containers: [{name: a, command: [a]}]\n",
    [/^a\.yaml:6: Job default\/j: spec\.template\.spec restartPolicy must be OnFailure or Never/],
  ],
  [
    "indexed Jobs",
    "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  completionMode: Indexed\n  template: {spec: {restartPolicy: Never, containers: [{name: a, command: [a]}]}}\n",
    [/^a\.yaml:5: .*"Indexed" is not honoured/],
  ],
  [
    "NodePort",
    service("  type: NodePort\n  selector: {a: b}\n  ports: [{port: 80}]\n"),
    [
      /^a\.yaml:5: Service default\/s: spec\.type "NodePort" is not honoured: nothing would listen on the machine/,
    ],
  ],
  [
    "LoadBalancer",
    service("  type: LoadBalancer\n  selector: {a: b}\n  ports: [{port: 80}]\n"),
    [/"LoadBalancer" is not honoured/],
  ],
  [
    "session affinity",
    service("  sessionAffinity: ClientIP\n  selector: {a: b}\n  ports: [{port: 80}]\n"),
    [/"ClientIP" is not honoured: sidecars balance/],
  ],
  [
    "two unnamed ports",
    service("  selector: {a: b}\n  ports:\n    - port: 80\n    - {name: b, port: 81}\n"),
    [/^a\.yaml:7: .*ports\[0\] name is missing/],
  ],
  [
    "the same port twice",
    service("  selector: {a: b}\n  ports: [{name: a, port: 80}, {name: b, port: 80}]\n"),
    [/TCP 80 is listed twice/],
  ],
  ["no ports", service("  selector: {a: b}\n"), [/ports is missing/]],
  ["an ExternalName without a name", service("  type: ExternalName\n"), [/externalName is missing/]],
  [
    "a slice without its Service",
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e}\naddressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]\n",
    [/label kubernetes\.io\/service-name is missing/],
  ],
  [
    "a Secret that is no base64",
    "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  a: hello!\n",
    ["a.yaml:5: Secret default/s: data.a must be base64"],
  ],
  [
    "an annotation of the mesh that is not honoured",
    pod("").replace("{name: p}", "\n  name: p\n  annotations:\n    config.linkerd.io/proxy-await: enabled"),
    [
      /^a\.yaml:6: Pod default\/p: metadata\.annotations\["config\.linkerd\.io\/proxy-await"\] is not honoured: it would have no effect; remove it/,
    ],
  ],
  [
    "an annotation at the wrong place",
    deployment("").replace(
      "  namespace: shop",
      "  namespace: shop\n  annotations: {linkerd.io/inject: disabled}",
    ),
    [/is read from the pod template and the namespace; move it/],
  ],
  [
    "ports that are none",
    pod("").replace("{name: p}", "{name: p, annotations: {config.linkerd.io/skip-inbound-ports: http}}"),
    [/skip-inbound-ports"\] must be ports or ranges/],
  ],
  [
    "the same object twice",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
    ["a.yaml:7: ConfigMap default/a: metadata.name is also defined in a.yaml:1; remove one of the two"],
  ],
];

for (const [name, text, expected] of REFUSED) {
  test(`refuses ${name}, and says where and why`, () => {
    const found = problems(text);
    assert.equal(found.length, expected.length, found.join("\n"));
    for (const [i, one] of expected.entries()) {
      if (typeof one === "string") assert.equal(found[i], one);
      else assert.match(found[i]!, one);
    }
  });
}

test("tells everything that is wrong at once", () => {
  assert.equal(
    problems(deployment("  replica: 1\n  paus: true\n", "          livenessProb: {}\n")).length,
    3,
  );
});

test("takes what changes nothing here", () => {
  const text = deployment(
    "  revisionHistoryLimit: 3\n",
    "          image: nginx:1.25\n          imagePullPolicy: Always\n      tolerations: [{key: a}]\n      nodeSelector: {kubernetes.io/os: linux}\n      imagePullSecrets: [{name: a}]\n",
  );
  assert.deepEqual(problems(text), []);
});

test("reads YAML as Kubernetes does: octal modes, lists, null for absent, several documents, anchors", () => {
  const text = `
kind: List
apiVersion: v1
items:
  - &a
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: a, labels: null}
    data: {time: "12:30", date: 2020-01-01, n: "0644"}
  - <<: *a
    metadata: {name: b}
---
# nothing
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  volumes: [{name: v, configMap: {name: a, defaultMode: 0640}}]
  containers: [{name: c, command: [c], volumeMounts: [{name: v, mountPath: /v}]}]
`;
  const { objects, problems: found } = loadFile({ path: "a.yaml", text });
  assert.deepEqual(found, []);
  assert.deepEqual(
    objects.map((one) => one.object.metadata.name),
    ["a", "b", "p"],
  );
  const [first, , last] = objects.map((one) => one.object);
  assert.deepEqual(first?.kind === "ConfigMap" && first.data, {
    time: "12:30",
    date: "2020-01-01",
    n: "0644",
  });
  assert.equal(last?.kind === "Pod" && last.spec.volumes?.[0]?.configMap?.defaultMode, 0o640);
  assert.equal(first !== undefined && "labels" in first.metadata, false);
});

test("a problem inside a List has the item's line", () => {
  assert.match(
    problems(
      "apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: ConfigMap\n    metadata: {name: a}\n    dta: {}\n",
    )[0]!,
    /^a\.yaml:7: .*did you mean data\?/,
  );
});

test("keeps the last good state of a bad file, and only of that one", () => {
  const config = (name: string, value: string): string =>
    `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}}\ndata: {v: "${value}"}\n`;
  const first = loadFolder(
    [
      { path: "a.yaml", text: config("a", "1") },
      { path: "b.yaml", text: config("b", "1") },
      { path: "notes.txt", text: ":" },
    ],
    new Map(),
  );
  assert.equal(first.problems.length, 0);
  const second = loadFolder(
    [
      { path: "a.yaml", text: config("a", "2").replace("\ndata", "\ndta") },
      { path: "b.yaml", text: config("b", "2") },
    ],
    first.good,
  );
  assert.equal(second.problems.length, 1);
  const data = (folder: typeof first, name: string): unknown => {
    const object = folder.objects.get(`ConfigMap/default/${name}`)?.object;
    return object?.kind === "ConfigMap" ? object.data?.["v"] : undefined;
  };
  assert.equal(data(second, "a"), "1");
  assert.equal(data(second, "b"), "2");
  // Gone is gone, unless it could not be read.
  assert.equal(data(loadFolder([], second.good), "a"), undefined);
  assert.equal(data(loadFolder([], second.good, new Set(["a.yaml"])), "a"), "1");
});

test("an object in two files is taken from the first, and the second file is refused", () => {
  const text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
  const folder = loadFolder(
    [
      { path: "b.yaml", text },
      { path: "a.yaml", text },
    ],
    new Map(),
  );
  assert.deepEqual(folder.problems.map(describeProblem), [
    "b.yaml:3: ConfigMap default/a: metadata.name is also defined in a.yaml:1; remove one of the two",
  ]);
  assert.equal(folder.objects.get("ConfigMap/default/a")?.file, "a.yaml");
});

test("no text throws, and an alias bomb is refused", () => {
  const bomb = `a: &a [x, x, x, x, x, x, x, x, x]\n${["b", "c", "d", "e", "f", "g", "h"].map((name, i) => `${name}: &${name} [${Array(9).fill(`*${"abcdefg"[i]}`).join(", ")}]`).join("\n")}\n`;
  assert.ok(problems(bomb).length > 0);
  fc.assert(
    fc.property(fc.string(), (text) => {
      loadFile({ path: "a.yaml", text });
    }),
  );
  fc.assert(
    fc.property(fc.json(), (json) => {
      loadFile({ path: "a.yaml", text: `apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: ${json}` });
    }),
  );
});
