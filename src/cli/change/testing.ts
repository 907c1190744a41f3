import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A folder of manifests that goes away with the test. */
export class Scratch {
  readonly path: string = mkdtempSync(join(tmpdir(), "pillion-change-"));

  constructor(files: Readonly<Record<string, string>>) {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(this.path, name), text);
  }

  remove(): void {
    rmSync(this.path, { recursive: true });
  }
}

/** A Deployment of one pod with port 8080, and a Service in front of it. */
export function app(name: string, namespace = "shop"): string {
  return `---
apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: ${namespace}}
spec: {selector: {app: ${name}}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ${name}, namespace: ${namespace}}
spec:
  selector: {matchLabels: {app: ${name}}}
  template:
    metadata: {labels: {app: ${name}}}
    spec: {containers: [{name: app, command: [app], ports: [{containerPort: 8080}]}]}
`;
}

/** An HTTPRoute at Service web with these rules, each a YAML flow map. */
export function route(name: string, ...rules: readonly string[]): string {
  return `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ${name}, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
${rules.map((rule) => `    - ${rule}`).join("\n")}
`;
}
