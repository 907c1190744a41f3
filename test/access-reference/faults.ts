/**
 * Mistakes that an evaluator of access can make, as changes of ours: the comparison has to find each. What is to be replaced stands in
 * its file exactly once.
 */
export interface AccessFault {
  readonly name: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

const CLIENT = "src/stack/access/client.ts";
const CONDITION = "src/stack/access/condition.ts";
const PATH = "src/stack/access/path.ts";
const READ = "src/stack/access/read-rule.ts";
const SEGMENTS = "src/stack/access/segments.ts";
const SOURCE = "src/stack/access/source.ts";
const STAGE = "src/stack/access/stage.ts";
const TABLE = "src/stack/route/table.ts";

/** No mistake at all: a copy that is made in the same way has to differ in nothing. */
export const NO_FAULT: AccessFault = {
  name: "nothing changed",
  file: CLIENT,
  find: "if (this.#isLocal) return LOCALHOST;",
  replace: "if (this.#isLocal) return LOCALHOST;",
};

export const ACCESS_FAULTS: readonly AccessFault[] = [
  {
    name: "asks ALLOW rules before DENY rules",
    file: STAGE,
    find: "const deny = index.first(DENY, always.deny, holds, asked);",
    replace: `const early = index.first(ALLOW, always.allow, holds, asked);
    if (early !== NONE) return early;
    const deny = index.first(DENY, always.deny, holds, asked);`,
  },
  {
    name: "lets the default decide within the scope of an ALLOW policy",
    file: STAGE,
    find: "if (restrict !== NONE) return restrict;",
    replace: "if (restrict === 0) return restrict;",
  },
  {
    name: "answers 404 before DENY rules",
    file: STAGE,
    find: "const deny = index.first(DENY, always.deny, holds, asked);",
    replace: `if (this.#isRouted && asked.route < 0) return Outcome.NO_ROUTE;
    const deny = index.first(DENY, always.deny, holds, asked);`,
  },
  {
    name: "lets a path with several readings through to the default",
    file: STAGE,
    find: "if (this.looksAtPaths && asked.path === null) return Outcome.AMBIGUOUS;",
    replace: "",
  },
  {
    name: "takes a policy in audit mode for an enforced one",
    file: STAGE,
    find: `return rule.stage === "both" || rule.stage === this.#which;`,
    replace: `return rule.stage !== "enforced" || this.#which === "enforced";`,
  },
  {
    name: "refuses paths because of a policy in audit mode",
    file: "src/stack/access/rules.ts",
    find: `this.enforced = new Stage(this.rules, "enforced", looks, this.table !== null);`,
    replace: `const all = policy.rules.some((rule) => rule.action !== "exempt" && looksAtPaths(rule));
    this.enforced = new Stage(this.rules, "enforced", looks || all, this.table !== null);`,
  },
  {
    name: "lets an ALLOW rule about requests hold for an opaque connection",
    file: CLIENT,
    find: `if ((requests !== null || route !== null) && action !== "deny" && action !== "restrict") return false;`,
    replace: "",
  },
  {
    name: "lets an opaque connection past a DENY rule about requests",
    file: CLIENT,
    find: `if ((requests !== null || route !== null) && action !== "deny" && action !== "restrict") return false;`,
    replace: `if ((requests !== null || route !== null) && action !== "restrict") return false;`,
  },
  {
    name: "names the last DENY rule of an opaque connection",
    file: CLIENT,
    find: "const found = rules.findIndex(",
    replace: "const found = rules.findLastIndex(",
  },
  {
    name: "tells would_deny only of what was denied by a rule",
    file: CLIENT,
    find: `const differs = (verdict === "allowed") !== (wouldVerdict === "allowed");`,
    replace: `const differs = (verdict === "allowed") !== (wouldVerdict === "allowed") && would !== Outcome.NOBODY;`,
  },
  {
    name: "tells of each AUDIT rule of an object",
    file: CLIENT,
    find: "if (!objects.has(object)) audits.push(number);",
    replace: "audits.push(number);",
  },
  {
    name: "forgets the layer of a rule for requests",
    file: READ,
    find: `rule.layer === "connections" ||`,
    replace: "",
  },
  {
    name: "compares a namespace without its trust domain",
    file: SOURCE,
    find: "return identity.trustDomain === match.trustDomain && identity.namespace === match.namespace;",
    replace: "return identity.namespace === match.namespace;",
  },
  {
    name: "leaves out the exceptions of a network",
    file: SOURCE,
    find: "for (const one of this.#except) if (networkContains(one, ip)) return false;",
    replace: "",
  },
  {
    name: "takes a suffix within a label",
    file: SOURCE,
    find: 'endsWith(`.${match.labels.join(".")}`)',
    replace: 'endsWith(match.labels.join("."))',
  },
  {
    name: "takes a prefix within a segment",
    file: SEGMENTS,
    find: "if (name.length === length && path.startsWith(name, start)) return this.#nodes[place]!;",
    replace: 'if (name !== "" && path.startsWith(name, start)) return this.#nodes[place]!;',
  },
  {
    name: "compares methods without case",
    file: CLIENT,
    find: "asked.methodBit = methodBit(request.method);",
    replace: "asked.methodBit = methodBit(request.method.toUpperCase());",
  },
  {
    name: "looks at the first of several header fields",
    file: CONDITION,
    find: "values === null ? headerValue(request, test.name) :",
    replace: "values === null ? fieldValue(request.fields, test.name) :",
  },
  {
    name: "lets a rule without a token hold by its claims",
    file: CONDITION,
    find: "if (claims === null) return false;",
    replace: "if (claims === null) return true;",
  },
  {
    name: "leads into objects past a claim of the whole name",
    file: "src/stack/access/claim.ts",
    find: "if (Object.hasOwn(claims, name)) return claims[name];",
    replace: "",
  },
  {
    name: "takes one of a condition's headers for all",
    file: CONDITION,
    find: "for (const test of this.#headers) if (!this.#fieldHolds(test, request, false)) return false;",
    replace:
      "if (this.#headers.length > 0 && !this.#headers.some((test) => this.#fieldHolds(test, request, false))) return false;",
  },
  {
    name: "compares an escape that needs none as it is written",
    file: PATH,
    find: "return UNRESERVED.test(character) ? character : escape.toUpperCase();",
    replace: "return escape.toUpperCase();",
  },
  {
    name: "goes up from the root without a word",
    file: PATH,
    find: `if (kept.length === 0 || segments[i - 1] === "") return null;`,
    replace: `if (segments[i - 1] === "") return null;`,
  },
  {
    name: "reads %252F for a path",
    file: PATH,
    find: "|25[0-9A-Fa-f]{2})/;",
    replace: ")/;",
  },
  {
    name: "looks at a rule of a route for requests of any route",
    file: STAGE,
    find: "if (this.#ofRoute !== undefined) best = this.#ofRoute.first(step, best, holds, asked);",
    replace: `for (const index of this.#byRoute) {
      index?.look(asked);
      if (index !== undefined) best = index.first(step, best, holds, asked);
    }`,
  },
  {
    name: "lets the shortest prefix of the routes win",
    file: TABLE,
    find: `  if (segment.next !== null && slash !== -1) {
    const found =`,
    replace: `  const own = firstThatHolds(segment.candidates, head);
  if (own !== null) return own;
  if (segment.next !== null && slash !== -1) {
    const found =`,
  },
  {
    name: "lets a route without a method win over one with it",
    file: TABLE,
    find: "Number((b?.method ?? null) !== null) - Number((a?.method ?? null) !== null) ||",
    replace: "Number((a?.method ?? null) !== null) - Number((b?.method ?? null) !== null) ||",
  },
  {
    name: "remembers outcomes without what would become of them",
    file: CLIENT,
    find: "const isPlain = would === outcome && audits.length === 0;",
    replace: "const isPlain = audits.length === 0;",
  },
];
