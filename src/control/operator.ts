import { kindNamed } from "#/kube/kind-names.ts";
import type { ControlAnswer, ControlQuestion, ObjectStatus } from "#/model/node-protocol.ts";
import type { StandardLosses } from "./answers/standard-losses.ts";
import type { IdentityDesk } from "./identity/identity-desk.ts";
import { accessMatrix } from "./explain/access-matrix.ts";
import { explainAccess } from "./explain/explain-access.ts";
import { explainRequest } from "./explain/explain-request.ts";
import type { Mesh } from "./mesh/mesh.ts";

const ROLLABLE = new Set(["Deployment", "StatefulSet", "DaemonSet", "Pod"]);

/** Answers what the operator's command asks. */
export function answerQuestion(
  question: ControlQuestion,
  mesh: Mesh,
  identity: IdentityDesk,
  losses: StandardLosses,
): ControlAnswer | Promise<ControlAnswer> {
  mesh.catchUp();
  switch (question.kind) {
    case "status":
      return {
        kind: "status",
        objects: mesh.objects.map((status) => withLosses(status, losses)),
        problems: mesh.problems,
        certificates: identity.certificates,
        identity: identity.status,
      };
    case "get": {
      const found = mesh.manifests.filter(
        ({ status }) =>
          status.kind === kindNamed(question.of) &&
          (question.namespace === null || status.namespace === question.namespace) &&
          (question.name === "" || status.name === question.name),
      );
      return {
        kind: "objects",
        objects: found.map(({ manifest, status }) => ({ manifest, status: withLosses(status, losses) })),
      };
    }
    case "accepted":
      return { kind: "files", files: mesh.acceptedFiles };
    case "explain": {
      if (mesh.view === null)
        return { kind: "error", message: "the control plane has not taken in the folder yet; try again" };
      return explainRequest(mesh.view, question.question);
    }
    case "identity-status":
    case "identity-rotate":
    case "identity-repair":
    case "identity-revoke":
      return identity.answer(question, mesh);
    case "explain-access":
    case "access-matrix": {
      if (mesh.view === null)
        return { kind: "error", message: "the control plane has not taken in the folder yet; try again" };
      return question.kind === "explain-access"
        ? explainAccess(mesh.view, question.question)
        : { kind: "access-matrix", matrix: accessMatrix(mesh.view, question.namespace) };
    }
    case "rollout-restart": {
      const found = select(question.namespace, question.target, mesh);
      if (typeof found === "string") return { kind: "error", message: found };
      mesh.restart(
        question.target === ""
          ? [""]
          : found.map((object) => `${object.kind}/${object.namespace}/${object.name}`),
      );
      return { kind: "ok", done: false, message: `restarting ${found.map(nameOf).join(", ")}` };
    }
    case "rollout-status": {
      const found = select(question.namespace, question.target, mesh);
      if (typeof found === "string") return { kind: "error", message: found };
      return {
        kind: "ok",
        done: found.every((object) => object.ok),
        message: found.map((object) => `${nameOf(object)}: ${object.summary}`).join("\n"),
      };
    }
  }
}

/** Also what is lost of the object to proxies that do not know our extension, where one has asked. */
function withLosses(status: ObjectStatus, losses: StandardLosses): ObjectStatus {
  const lost = losses.describe(status);
  return lost === ""
    ? status
    : { ...status, summary: status.summary === "" ? lost : `${status.summary}; ${lost}` };
}

/** The workloads that a target names, or why there are none. "" names all of all namespaces. */
function select(namespace: string, target: string, mesh: Mesh): readonly ObjectStatus[] | string {
  const all = mesh.objects.filter((object) => ROLLABLE.has(object.kind));
  if (target === "") return all.length > 0 ? all : "there is no workload that could be rolled";
  const match = /^([a-z]+)\/([a-z0-9.-]+)$/i.exec(target);
  const kind = kindNamed(match?.[1] ?? "");
  if (match === null || kind === null || !ROLLABLE.has(kind))
    return `${target} is no workload; write it as deployment/NAME, statefulset/NAME, daemonset/NAME or pod/NAME`;
  const found = all.filter(
    (object) => object.kind === kind && object.namespace === namespace && object.name === match[2],
  );
  return found.length > 0
    ? found
    : `${kind} ${namespace}/${match[2]} is not in the folder; check the name and the namespace`;
}

function nameOf(object: ObjectStatus): string {
  return `${object.kind.toLowerCase()}/${object.namespace}/${object.name}`;
}
