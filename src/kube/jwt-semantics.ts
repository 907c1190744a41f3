import { fieldProblem } from "#/stack/route/header-change.ts";
import type { JwtPolicyObject, JwtIssuerSpec } from "./access-objects.ts";
import { checkRequest, checkTargets } from "./access-semantics.ts";
import { durationMs } from "./duration.ts";

type Path = readonly (string | number)[];
type Say = (path: Path, reason: string) => void;

const LEEWAY_MS_MAX = 600_000;

/** What the schema of JwtPolicy cannot say: fields that must agree with each other. */
export function checkJwtPolicy({ spec, metadata }: JwtPolicyObject, say: Say): void {
  checkTargets({ targetRefs: spec.targetRefs }, metadata.namespace ?? "default", say);
  const names = new Set<string>();
  for (const [i, issuer] of spec.issuers.entries()) {
    const at = ["spec", "issuers", i];
    if (names.has(issuer.issuer))
      say([...at, "issuer"], `${issuer.issuer} is there twice; join the two, with all audiences in one`);
    names.add(issuer.issuer);
    checkIssuer(issuer, at, say);
  }
  const { required } = spec;
  if (required !== undefined && (required.all === true) === (required.requests !== undefined))
    say(
      ["spec", "required"],
      "must have either all: true or requests; delete it where nothing needs a token",
    );
  for (const [i, request] of (required?.requests ?? []).entries()) {
    const at = ["spec", "required", "requests", i];
    checkRequest(request, at, say);
    if (request.claims !== undefined)
      say([...at, "claims"], "says nothing of who needs a token; ask for claims in an AuthorizationPolicy");
  }
}

function checkIssuer(
  { jwks, leeway, claimHeaders = [], headers = [] }: JwtIssuerSpec,
  at: Path,
  say: Say,
): void {
  const said = [jwks.inline, jwks.configMap, jwks.url].filter((one) => one !== undefined);
  if (said.length !== 1) say([...at, "jwks"], "must have exactly one of inline, configMap and url");
  const problem = jwks.url === undefined ? null : urlProblem(jwks.url);
  if (problem !== null) say([...at, "jwks", "url"], problem);
  if (leeway !== undefined && durationMs(leeway)! > LEEWAY_MS_MAX)
    say([...at, "leeway"], "must be at most 10m");
  for (const [h, { header }] of claimHeaders.entries()) {
    const path = [...at, "claimHeaders", h, "header"];
    const reason = fieldProblem(header);
    const lower = header.toLowerCase();
    if (reason !== null) say(path, `cannot be set: ${reason}`);
    else if (lower === "authorization" || headers.some((one) => one.toLowerCase() === lower))
      say(path, "is where tokens are looked for; write another name");
    else if (claimHeaders.findIndex((one) => one.header.toLowerCase() === lower) !== h)
      say(path, `${header} is there twice; a header is told one claim`);
  }
}

/** Host of a Service in a mesh: `NAME.NAMESPACE.svc`, with or without the domain behind it. */
export function serviceHost(hostname: string): { readonly name: string; readonly namespace: string } | null {
  const match = /^([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?:\.[a-z0-9.-]+)?$/.exec(hostname);
  return match === null ? null : { name: match[1]!, namespace: match[2]! };
}

function urlProblem(text: string): string | null {
  if (!URL.canParse(text)) return "is no URL";
  const url = new URL(text);
  if (url.username !== "" || url.password !== "") return "must hold no name or password; key sets are public";
  if (url.protocol === "https:") return null;
  if (url.protocol !== "http:") return "must begin with https://";
  return serviceHost(url.hostname) === null
    ? "must begin with https://: whoever is on the way could exchange the keys. http:// only to a Service of the mesh, by its name NAME.NAMESPACE.svc"
    : null;
}
