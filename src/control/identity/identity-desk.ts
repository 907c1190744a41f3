import type { Clock, Timer } from "#/base/clock.ts";
import { describeError } from "#/base/errors.ts";
import { parseIdentity, spiffeUri, type Identity } from "#/model/identity.ts";
import type { IdentityStatus } from "#/model/identity-status.ts";
import type { CertificateStatus, ControlAnswer, ControlQuestion } from "#/model/node-protocol.ts";
import type { Log } from "#/net/log.ts";
import type { Mesh } from "../mesh/mesh.ts";
import type { Authority } from "./authority.ts";
import { fingerprint } from "./certificates.ts";
import { reportOf } from "./expiry.ts";
import type { IssuerFeed } from "./issuer-feed.ts";
import type { Revocations } from "./revocations.ts";
import type { Rotator } from "./rotator.ts";

const LOOK_EVERY_MS = 10_000;

type Question = Extract<ControlQuestion, { readonly kind: `identity-${string}` }>;

export interface IdentityDeskParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly authority: Authority;
  readonly rotator: Rotator;
  readonly revocations: Revocations;
  /** null: root and issuer are our own. */
  readonly feed: IssuerFeed | null;
}

/** What the operator asks and says of the mesh's certificates; what is wrong with them it also says by itself, in the log. */
export class IdentityDesk {
  readonly #parts: IdentityDeskParts;
  #timer: Timer | null = null;
  #logged = "";

  constructor(parts: IdentityDeskParts) {
    this.#parts = parts;
    this.#look();
  }

  close(): void {
    this.#timer?.cancel();
  }

  get certificates(): readonly CertificateStatus[] {
    const { authority } = this.#parts;
    return [
      { name: "root", notAfterMs: authority.rootNotAfterMs },
      { name: "issuer", notAfterMs: authority.issuerNotAfterMs },
    ];
  }

  get status(): IdentityStatus {
    const { authority, revocations, rotator } = this.#parts;
    const signs = authority.root === null ? "" : fingerprint(authority.root);
    const next = authority.nextRoot === null ? "" : fingerprint(authority.nextRoot);
    return {
      trustDomain: authority.trustDomain,
      source: this.#parts.feed?.name ?? "own",
      roots: authority.anchors.map((anchor) => {
        const print = fingerprint(anchor);
        return reportOf(anchor, print === signs || signs === "" ? "signs" : print === next ? "next" : "old");
      }),
      issuer: reportOf(authority.issuer, "issuer"),
      sequence: authority.bundle.sequence,
      rotation: rotator.report,
      problems: this.#problems(),
      revoked: revocations.all.map(spiffeUri),
    };
  }

  #problems(): string[] {
    const { authority, feed } = this.#parts;
    return [...authority.problems(), ...(feed === null || feed.problem === "" ? [] : [feed.problem])];
  }

  async answer(question: Question, mesh: Mesh): Promise<ControlAnswer> {
    try {
      return await this.#answer(question, mesh);
    } catch (error) {
      // As a rule a state folder that cannot be written: nothing has changed then.
      return { kind: "error", message: describeError(error) };
    }
  }

  async #answer(question: Question, mesh: Mesh): Promise<ControlAnswer> {
    switch (question.kind) {
      case "identity-status":
        return { kind: "identity", identity: this.status };
      case "identity-rotate":
        return await this.#rotate(question);
      case "identity-repair":
        return await this.#repair(mesh);
      case "identity-revoke":
        return this.#revoke(question.name, question.isUndone, mesh);
    }
  }

  async #rotate(question: Extract<Question, { kind: "identity-rotate" }>): Promise<ControlAnswer> {
    const { authority, feed, rotator } = this.#parts;
    if (feed !== null && authority.rotation === null)
      return {
        kind: "error",
        message: `root and issuer come from ${feed.name}: put new ones there, and the same steps are gone by themselves`,
      };
    if (authority.root === null && question.what === "issuer" && authority.rotation === null)
      return {
        kind: "error",
        message:
          "the root above the issuer came from outside; make an own one: pillion identity rotate --root",
      };
    // One that is under way may be the way out.
    if (!authority.canSign && authority.rotation === null)
      return { kind: "error", message: `nothing can be rotated: ${authority.problems().join("; ")}` };
    if (question.isDryRun) return { kind: "rotation-plan", plan: rotator.plan(question.what) };
    const { isRefused, message } = await rotator.start(question.what, question.isForced);
    return isRefused ? { kind: "error", message } : { kind: "ok", message, done: false };
  }

  /** Running sidecars that are not ready are started again in any case: an operator who asks for a repair has reason to. */
  async #repair(mesh: Mesh): Promise<ControlAnswer> {
    const { authority, feed, log } = this.#parts;
    const before = authority.problems();
    if (feed !== null && before.length > 0)
      return {
        kind: "error",
        message: `root and issuer come from ${feed.name}, which has to get new ones first: ${before.join("; ")}`,
      };
    const made = await authority.repair();
    const restarted = mesh.restartSidecars(
      made === null ? (podUid) => mesh.isSidecarUnwell(podUid) : () => true,
    );
    this.#look();
    if (made === null && restarted === 0)
      return {
        kind: "ok",
        done: true,
        message: "nothing has expired and every sidecar is ready: there is nothing to repair",
      };
    const what =
      made === null
        ? "nothing has expired"
        : made === "issuer"
          ? "a new issuer signs"
          : "a new root and a new issuer sign";
    const message = `${what}; ${restarted} sidecar${restarted === 1 ? "" : "s"} start again in their pods`;
    log.warn("identity was repaired", { made: made ?? "nothing", restarted, before });
    return { kind: "ok", done: restarted === 0, message };
  }

  #revoke(name: string, isUndone: boolean, mesh: Mesh): ControlAnswer {
    const { authority, log, revocations } = this.#parts;
    const identity = readIdentity(name, authority.trustDomain);
    if (identity === null)
      return {
        kind: "error",
        message: `${name} is no identity; write it as spiffe://${authority.trustDomain}/ns/NAMESPACE/sa/ACCOUNT or NAMESPACE/ACCOUNT`,
      };
    const uri = spiffeUri(identity);
    const isChanged = revocations.set(identity, !isUndone);
    if (isChanged) {
      mesh.takeRevocations();
      log.warn(isUndone ? "a revocation was undone" : "an identity was revoked", { identity: uri });
    }
    const already = isChanged ? "" : "already ";
    return {
      kind: "ok",
      done: true,
      message: isUndone
        ? `${uri} is ${already}in use: it gets certificates, and is let in where policies say so`
        : `${uri} is ${already}revoked: it gets no certificate, and every sidecar refuses it`,
    };
  }

  /** Says each thing once, until something else is wrong. */
  #look(): void {
    const { authority, clock, log } = this.#parts;
    const problems = authority.problems();
    const text = problems.join("\n").replaceAll(/, (in )?\d+ (days|hours|minutes?)( ago)?/g, "");
    if (text !== this.#logged) for (const problem of problems) log.error("certificates", { problem });
    if (text === "" && this.#logged !== "") log.info("all certificates are good again");
    this.#logged = text;
    this.#timer?.cancel();
    this.#timer = clock.after(LOOK_EVERY_MS, () => this.#look());
  }
}

function readIdentity(name: string, trustDomain: string): Identity | null {
  const short = /^([a-z0-9-]+)\/([a-z0-9.-]+)$/.exec(name);
  if (short !== null) return { trustDomain, namespace: short[1]!, serviceAccount: short[2]! };
  return parseIdentity(name);
}
