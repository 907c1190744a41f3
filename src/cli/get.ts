import { stringify } from "yaml";
import { kindNamed } from "#/kube/kind-names.ts";
import { KINDS } from "#/kube/schema/kinds.ts";
import { AUDITED, describeParent } from "#/model/node-protocol.ts";
import type { Condition, ObjectStatus, ParentStatus } from "#/model/node-protocol.ts";
import { CommandError } from "./exit.ts";
import type { InstancePaths } from "./instance-paths.ts";
import { ask } from "./operator.ts";
import { podTable } from "./status.ts";
import { table } from "./table.ts";
import { describeProblem } from "./up.ts";

export interface GetOptions {
  /** "httproute", "httproute/front" */
  readonly target: string;
  readonly name: string;
  readonly namespace: string | null;
  readonly output: "text" | "wide" | "yaml" | "json";
}

interface Shown {
  readonly manifest: unknown;
  readonly status: ObjectStatus;
}

/** Objects of the folder, with what became of them, as kubectl shows objects of a cluster. */
export async function get(
  paths: InstancePaths,
  options: GetOptions,
  print: (text: string) => void,
): Promise<void> {
  const { kind, name } = wanted(options);
  if (kind === "Pod") {
    await getPods(paths, name, options, print);
    return;
  }
  const question = { kind: "get", of: kind, namespace: options.namespace, name } as const;
  const { answer } = await ask(paths, { kind: "ask", question }, "control");
  if (answer.kind !== "objects")
    throw new CommandError("the control plane gave no objects; see: pillion check");
  if (answer.objects.length === 0 && name !== "") throw notThere(kind, name, options.namespace);
  print(objectsText(answer.objects, kind, name !== "", options.output));
}

/** How objects are shown; `single` ones not as a list. */
export function objectsText(
  objects: readonly Shown[],
  kind: string,
  single: boolean,
  output: GetOptions["output"],
): string {
  if (output === "text" || output === "wide") {
    if (objects.length === 0) return `no ${kind} is in the folder`;
    return [
      objectTable(objects, output === "wide"),
      ...objects.flatMap(({ status }) => status.findings.map((each) => `! ${describeProblem(each)}`)),
    ].join("\n");
  }
  const whole = objects.map(withStatus);
  const shown = single && whole.length === 1 ? whole[0] : { apiVersion: "v1", kind: "List", items: whole };
  return output === "json" ? JSON.stringify(shown, null, 2) : stringify(shown).trimEnd();
}

function objectTable(objects: readonly Shown[], wide: boolean): string {
  const hasParents = objects.some(({ status }) => status.parents.length > 0);
  const head = ["NAMESPACE", "NAME", ...(hasParents ? ["FOR", "ACCEPTED", "RESOLVED"] : ["STATE"])];
  const rows = objects.flatMap(({ status }) => {
    const { namespace, name, parents, summary, file } = status;
    const end = wide ? [file] : [];
    if (!hasParents) return [[namespace, name, summary, ...end]];
    if (parents.length === 0) return [[namespace, name, "", "", "", ...end]];
    return parents.map((parent, i) => [
      i === 0 ? namespace : "",
      i === 0 ? name : "",
      describeParent(parent.parent),
      cell(parent, "Accepted"),
      cell(parent, "ResolvedRefs"),
      ...end,
    ]);
  });
  return table(wide ? [...head, "FILE"] : head, rows);
}

function cell({ conditions }: ParentStatus, type: Condition["type"]): string {
  const found = conditions.find((each) => each.type === type);
  if (found === undefined) return "";
  const partly = type === "Accepted" && conditions.some((each) => each.type === "PartiallyInvalid");
  if (found.status === "False") return `no: ${found.reason}`;
  return partly ? "partly" : found.message.startsWith(AUDITED) ? `yes, ${AUDITED}` : "yes";
}

/** As a cluster would hold it: a route has `parents`, a policy `ancestors` (GEP-713). */
function withStatus({ manifest, status }: Shown): unknown {
  const object = manifest as Readonly<Record<string, unknown>>;
  if (status.parents.length === 0) return object;
  const isRoute = status.kind.endsWith("Route");
  const entries = status.parents.map(({ parent, conditions }) => {
    const { group, kind, namespace, name, section, port } = parent;
    const ref = {
      group,
      kind,
      namespace,
      ...(name === "" ? {} : { name }),
      ...(section === null ? {} : { sectionName: section }),
      ...(port === null ? {} : { port }),
    };
    return {
      ...(isRoute ? { parentRef: ref } : { ancestorRef: ref }),
      controllerName: "pillion.dev/control-plane",
      conditions,
    };
  });
  return { ...object, status: isRoute ? { parents: entries } : { ancestors: entries } };
}

function wanted({ target, name }: GetOptions): { kind: string; name: string } {
  const slash = target.indexOf("/");
  const word = slash === -1 ? target : target.slice(0, slash);
  const kind = kindNamed(word);
  if (kind === null)
    throw new CommandError(`"${word}" is no kind; there are: ${Object.keys(KINDS).join(", ")}`, 2);
  const own = slash === -1 ? "" : target.slice(slash + 1);
  if (own !== "" && name !== "")
    throw new CommandError(`"${target}" names an object already; leave out ${name}`, 2);
  return { kind, name: own === "" ? name : own };
}

/** Pods are not the folder's: what runs is shown. */
async function getPods(
  paths: InstancePaths,
  name: string,
  { namespace, output }: GetOptions,
  print: (text: string) => void,
): Promise<void> {
  const { pods } = await ask(paths, { kind: "status" }, "status");
  const found = pods.filter(
    (pod) => (namespace === null || pod.namespace === namespace) && (name === "" || pod.name === name),
  );
  if (found.length === 0 && name !== "") throw notThere("Pod", name, namespace);
  if (output === "json") print(JSON.stringify(found, null, 2));
  else if (output === "yaml") print(stringify(found).trimEnd());
  else print(found.length === 0 ? "no Pod runs" : podTable(found));
}

function notThere(kind: string, name: string, namespace: string | null): CommandError {
  const where = namespace === null ? "" : ` in namespace ${namespace}`;
  return new CommandError(`there is no ${kind} "${name}"${where}; see: pillion get ${kind.toLowerCase()}`);
}
