import type { AccessPolicy, AccessRule, AccessSource } from "#/model/access.ts";
import { accessOf, conditionOf, policyNamed, ruleOfAction } from "#/stack/access/testing.ts";

const POLICIES = 100;
const RULES_EACH = 10;

/**
 * 100 policies of 10 rules for one port, a tenth of them DENY: rules by path, method and identity, for each of `paths` several, of which
 * a later one lets `client` in. So each request is looked up, and none is decided by its connection alone.
 */
export function manyRules(client: string, paths: readonly string[]): AccessPolicy {
  const rules: AccessRule[] = [];
  for (let policy = 0; policy < POLICIES; policy++) {
    const isDeny = policy % 10 === 0;
    for (let rule = 0; rule < RULES_EACH; rule++) {
      const number = policy * RULES_EACH + rule;
      // Each round through the paths begins a policy later, so that no path has DENY rules alone.
      const path = paths[(number + RULES_EACH * Math.floor(number / paths.length)) % paths.length]!;
      const condition = conditionOf([isDeny ? `${path}/admin*` : `${path}*`], {
        methods: ["GET", rule % 2 === 0 ? "HEAD" : "POST"],
      });
      const isClient = number >= (POLICIES * RULES_EACH) / 2;
      rules.push(
        ruleOfAction(isDeny ? "deny" : "allow", `policy-${policy}`, {
          source: policyNamed(`policy-${policy}`, String(rule)),
          sources: isDeny
            ? null
            : [account(`other-${number}`), account(isClient ? client : `another-${number}`)],
          requests: [condition],
        }),
      );
    }
    if (!isDeny) rules.push(ruleOfAction("restrict", `policy-${policy}`));
  }
  return accessOf(rules);
}

function account(serviceAccount: string): AccessSource {
  return {
    peer: { kind: "identity", trustDomain: "cluster.local", namespace: "sim", serviceAccount },
    networks: null,
  };
}
