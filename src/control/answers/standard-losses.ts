import { LINKERD_POLICY } from "#/kube/objects.ts";
import type { PolicySource } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { MeshView } from "../services/mesh-view.ts";
import type { Loss } from "./standard-refusal.ts";

/** Of one object; what more there is is one word. */
const LOSSES_MAX = 10;

/**
 * What proxies without our extension were told less of than policy says, by the object that says it: for its status. Of the present
 * view: whoever still listens was told anew when it came, so what nobody is told any more is forgotten with the view before.
 */
export class StandardLosses {
  #view: MeshView | null = null;
  readonly #byObject = new Map<string, Set<string>>();

  note(view: MeshView, losses: readonly Loss[]): void {
    if (view !== this.#view) this.#byObject.clear();
    this.#view = view;
    for (const { source, what } of losses) {
      const object = nameOf(source);
      const known = this.#byObject.get(object) ?? new Set();
      this.#byObject.set(object, known);
      if (known.size < LOSSES_MAX) known.add(what);
      else known.add("…");
    }
  }

  /** In the words of an object's status; "" when nothing is lost of it. */
  describe(object: Pick<PolicySource, "kind" | "namespace" | "name">): string {
    const { kind, namespace, name } = object;
    const known = this.#byObject.get([kind, namespace, name].join("/"));
    return known === undefined ? "" : `proxies of another kind ${[...known].join("; ")}`;
  }
}

/** As an object's status has it: of two kinds of one name, the second with its group. */
function nameOf(source: PolicySource): string {
  return source.group === LINKERD_POLICY && source.kind === "AuthorizationPolicy"
    ? ruleOf({ ...source, kind: `${source.kind}.${source.group}` })
    : ruleOf(source);
}
