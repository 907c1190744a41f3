import type { Fields } from "#/base/fields.ts";
import { readDocuments } from "#/kube/source.ts";
import type { FolderFile, FolderProblem } from "#/model/node-protocol.ts";
import type { Latency } from "../latency.ts";
import type { NetworkPlan } from "../plan.ts";
import { FieldReader } from "./field-reader.ts";

/** What happens in a simulation of a folder. Names are as written: what they mean is found out with the folder. */
export interface Scenario {
  readonly durationMs: number;
  readonly seed: number;
  readonly network: NetworkPlan;
  readonly workloads: readonly WorkloadScene[];
  readonly loads: readonly LoadScene[];
  readonly failures: readonly FailureScene[];
  readonly expectations: readonly Expectation[];
}

/** What has to come out, so that a scenario can be a check. */
export interface Expectation {
  /** Where it stands in the file. */
  readonly place: string;
  /** Names as in the report, or parts of them; "" for all. */
  readonly from: string;
  readonly to: string;
  /** "" for each of them. */
  readonly phase: string;
  /** Null: not asked for. */
  readonly successRateMin: number | null;
  readonly p99MsMax: number | null;
  /** Requests that reach the service's endpoints for each that programs made. */
  readonly loadFactorMax: number | null;
  /** What reaches the service a second, against the time before the failure. */
  readonly growthMax: number | null;
}

/** A problem with what stands in a scenario. */
export type Complain = (reason: string) => void;

export interface WorkloadScene {
  readonly name: string;
  readonly complain: Complain;
  readonly latency: Latency;
  readonly errorRate: number;
  readonly workersMax: number;
  readonly waitingMax: number;
  readonly noticesAbort: boolean;
  readonly calls: readonly CallScene[];
  /** Null: as many as the folder says. */
  readonly replicas: number | null;
  /** Pods take turns in them; empty: one zone for all. */
  readonly zones: readonly string[];
}

export interface CallScene {
  /** `http://SERVICE[.NAMESPACE][:PORT][/PATH]`. */
  readonly url: string;
  readonly complain: Complain;
  readonly method: string;
  readonly fields: Fields;
  readonly bodyBytes: number;
  readonly timeoutMs: number;
  readonly isOptional: boolean;
}

export interface LoadScene {
  readonly from: string;
  readonly complain: Complain;
  readonly call: CallScene;
  readonly keys: { readonly header: string; readonly count: number } | null;
  readonly retriesMax: number;
  readonly shape:
    | {
        readonly kind: "open";
        readonly steps: readonly { readonly atMs: number; readonly perSecond: number }[];
      }
    | { readonly kind: "closed"; readonly users: number; readonly think: Latency };
}

export interface FailureScene {
  readonly atMs: number;
  readonly forMs: number;
  readonly complain: Complain;
  /** "" for a zone's. */
  readonly workload: string;
  /** Null: all of them. */
  readonly pods: number | null;
  readonly what:
    | { readonly kind: "slow"; readonly factor: number }
    | { readonly kind: "errors"; readonly rate: number }
    | { readonly kind: "capacity"; readonly share: number }
    | { readonly kind: "death" }
    | { readonly kind: "zone"; readonly zone: string };
}

/** Reads a scenario file: YAML, one document. Null when there are problems. */
export function readScenario(file: FolderFile): { scenario: Scenario | null; problems: FolderProblem[] } {
  const { documents, errors } = readDocuments(file.text);
  const problems: FolderProblem[] = errors.map(({ line, reason }) => ({
    file: file.path,
    line,
    object: "",
    field: "",
    reason: `is no valid YAML: ${reason}`,
  }));
  const [document, second] = documents;
  if (document === undefined) {
    if (problems.length === 0)
      problems.push({
        file: file.path,
        line: 1,
        object: "",
        field: "",
        reason: "is empty; write at least a load",
      });
    return { scenario: null, problems };
  }
  const reader = new FieldReader(file.path, document, problems);
  if (second !== undefined) reader.problem([], "holds more than one document; a scenario is one");
  const scenario = scenarioOf(reader);
  return { scenario: problems.length === 0 ? scenario : null, problems };
}

function scenarioOf(reader: FieldReader): Scenario {
  const network = reader.map("network");
  const workloads = reader.map("workloads");
  const scenario: Scenario = {
    durationMs: reader.durationMs("run", 60_000),
    seed: reader.whole("seed", 1, 0, 2 ** 32 - 1),
    network: {
      latencyMs: network.durationMs("latency", 0.25),
      zoneLatencyMs: network.durationMs("zoneLatency", 1),
      discoveryMs: network.durationMs("discovery", 2_000),
    },
    workloads: workloads.names.map((name) => workloadOf(name, workloads.map(name))),
    loads: reader.list("load").map(loadOf),
    failures: reader.list("failures").map(failureOf),
    expectations: reader.list("expect").map(expectationOf),
  };
  network.done();
  if (scenario.durationMs <= 0) reader.problem(["run"], "must be more than no time");
  if (!reader.has("load")) reader.problem([], "load is missing: without requests there is nothing to see");
  reader.done();
  return scenario;
}

function workloadOf(name: string, reader: FieldReader): WorkloadScene {
  const workload: WorkloadScene = {
    name,
    complain: complainer(reader, []),
    latency: latencyOf(reader, "latency", DEFAULT_LATENCY),
    errorRate: reader.share("errors", 0),
    workersMax: reader.whole("workers", 64, 1, 1_000_000),
    waitingMax: reader.whole("waiting", 1_000, 0, 1_000_000),
    noticesAbort: reader.flag("noticesAbort", false),
    calls: reader.list("calls").map((call) => {
      const made = callOf(call, call.flag("optional", false));
      call.done();
      return made;
    }),
    replicas: reader.has("replicas") ? reader.whole("replicas", 1, 1, 10_000) : null,
    zones: reader.texts("zones"),
  };
  reader.knows("replicas");
  reader.done();
  return workload;
}

function callOf(reader: FieldReader, isOptional: boolean): CallScene {
  const headers = reader.map("headers");
  return {
    url: reader.required("to"),
    complain: complainer(reader, ["to"]),
    method: reader.text("method", "GET"),
    fields: headers.names.flatMap((name) => [name.toLowerCase(), headers.text(name, "")]),
    bodyBytes: reader.whole("bodyBytes", 0, 0, 1 << 30),
    timeoutMs: reader.durationMs("timeout", 0),
    isOptional,
  };
}

function loadOf(reader: FieldReader): LoadScene {
  const keys = reader.map("keys");
  const load: LoadScene = {
    from: reader.required("from"),
    complain: complainer(reader, ["from"]),
    call: callOf(reader, false),
    keys: reader.has("keys")
      ? { header: keys.required("header").toLowerCase(), count: keys.whole("count", 1_000, 1, 1_000_000) }
      : null,
    retriesMax: reader.whole("retries", 0, 0, 100),
    shape: shapeOf(reader),
  };
  keys.done();
  reader.done();
  return load;
}

function shapeOf(reader: FieldReader): LoadScene["shape"] {
  const shapes = ["rate", "steps", "users"].filter((name) => reader.has(name));
  if (shapes.length !== 1)
    reader.problem([], "must have one of rate (requests a second), steps (of rates over time) and users");
  const rate = reader.number("rate", 0, 0, RATE_MAX);
  const steps = reader.list("steps").map((step) => {
    const read = { atMs: step.durationMs("at", 0), perSecond: step.number("rate", 0, 0, RATE_MAX) };
    step.done();
    return read;
  });
  const users = reader.whole("users", 0, 1, 1_000_000);
  const think = latencyOf(reader, "think", { kind: "exponential", meanMs: 1_000 });
  if (users > 0) return { kind: "closed", users, think };
  if (reader.has("think")) reader.problem(["think"], "is for users; a rate does not wait for answers");
  if (steps.some((step, i) => i > 0 && step.atMs < steps[i - 1]!.atMs))
    reader.problem(["steps"], "must be in the order of their times");
  return { kind: "open", steps: steps.length > 0 ? steps : [{ atMs: 0, perSecond: rate }] };
}

function failureOf(reader: FieldReader): FailureScene {
  const failure: FailureScene = {
    atMs: reader.durationMs("at", 0),
    forMs: reader.durationMs("for", 0),
    complain: complainer(reader, []),
    workload: reader.text("workload", ""),
    pods: reader.has("pods") ? reader.whole("pods", 1, 1, 10_000) : null,
    what: whatOf(reader),
  };
  reader.knows("pods");
  if (failure.forMs <= 0) reader.problem([], "for is missing: how long it lasts");
  if (failure.what.kind === "zone" ? failure.workload !== "" : failure.workload === "")
    reader.problem(
      [],
      failure.what.kind === "zone"
        ? "a zone's loss takes all pods in it; remove workload"
        : "workload is missing: whose pods fail",
    );
  reader.done();
  return failure;
}

function whatOf(reader: FieldReader): FailureScene["what"] {
  const kinds = ["slow", "errors", "capacity", "death", "zone"].filter((name) => reader.has(name));
  if (kinds.length !== 1)
    reader.problem(
      [],
      "must be one of slow (so many times), errors (a share), capacity (a share of workers left), death (true) and zone (its name)",
    );
  // Each is asked for, so that all are known fields.
  const factor = reader.number("slow", 1, 1, 100_000);
  const rate = reader.share("errors", 0);
  const share = reader.share("capacity", 1);
  const death = reader.flag("death", true);
  const zone = reader.text("zone", "");
  if (!death) reader.problem(["death"], "must be true; or remove the failure");
  switch (kinds[0]) {
    case "slow":
      return { kind: "slow", factor };
    case "errors":
      return { kind: "errors", rate };
    case "capacity":
      return { kind: "capacity", share };
    case "zone":
      return { kind: "zone", zone };
    default:
      return { kind: "death" };
  }
}

function expectationOf(reader: FieldReader): Expectation {
  const expectation: Expectation = {
    place: reader.place,
    from: reader.text("from", ""),
    to: reader.text("to", ""),
    phase: reader.text("phase", ""),
    successRateMin: reader.has("success") ? reader.share("success", 0) : null,
    p99MsMax: reader.has("p99") ? reader.durationMs("p99", 0) : null,
    loadFactorMax: reader.has("loadFactor") ? reader.number("loadFactor", 1, 0, 1_000_000) : null,
    growthMax: reader.has("growth") ? reader.number("growth", 1, 0, 1_000_000) : null,
  };
  const bounds = ["success", "p99", "loadFactor", "growth"];
  reader.knows(...bounds);
  if (!bounds.some((name) => reader.has(name)))
    reader.problem(
      [],
      "must have success (a least share), p99 (a longest time), loadFactor or growth (the most)",
    );
  if (!["", "all", "before", "during", "after"].includes(expectation.phase))
    reader.problem(["phase"], "must be before, during or after the failures; or all, where there are none");
  reader.done();
  return expectation;
}

/** `5ms` is what all take; `{ median, p99 }` is log-normal; `{ mean }` exponential. */
function latencyOf(reader: FieldReader, name: string, fallback: Latency): Latency {
  reader.knows(name);
  if (!reader.has(name)) return fallback;
  if (reader.isText(name)) return { kind: "constant", ms: reader.durationMs(name, 0) };
  const map = reader.map(name);
  const medianMs = map.durationMs("median", 0);
  const p99Ms = map.durationMs("p99", 0);
  const meanMs = map.durationMs("mean", 0);
  map.done();
  if (map.has("mean") && !map.has("median") && !map.has("p99") && meanMs > 0)
    return { kind: "exponential", meanMs };
  if (!map.has("mean") && medianMs > 0 && p99Ms >= medianMs) return { kind: "log-normal", medianMs, p99Ms };
  map.problem([], "must be a duration, or { median, p99 } with 0 < median <= p99, or { mean }");
  return fallback;
}

function complainer(reader: FieldReader, path: readonly (string | number)[]): Complain {
  return (reason) => reader.problem(path, reason);
}

/** Of a workload that the scenario does not name, or says nothing of. */
export const DEFAULT_LATENCY: Latency = { kind: "log-normal", medianMs: 5, p99Ms: 50 };
const RATE_MAX = 1_000_000;
