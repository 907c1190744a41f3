import type { PodPlan } from "#/model/pod-plan.ts";

/** What a sidecar asks for. */
export const SIDECAR_CPU_REQUEST_MILLIS = 100;
/**
 * What containers that ask for nothing count as together. Kubernetes gives them next to nothing; here they stand beside their
 * own sidecar, which must not take the processor from whom it works for.
 */
const APP_CPU_REQUEST_MILLIS_MIN = 100;

/**
 * How much a pod weighs beside others when there is more to do than processors, and its containers beside their sidecar:
 * what they ask for, so that a pod in distress takes its own share and no more. Init containers run alone, one by one.
 */
export function podCpuRequests(plan: Pick<PodPlan, "containers" | "initContainers" | "sidecar">): {
  readonly podMillis: number;
  readonly appMillis: number;
} {
  const asked = (millis: number | null): number => millis ?? 0;
  const together = plan.containers.reduce((sum, { cpuRequestMillis }) => sum + asked(cpuRequestMillis), 0);
  const alone = plan.initContainers.map(({ cpuRequestMillis }) => asked(cpuRequestMillis));
  const appMillis = Math.max(APP_CPU_REQUEST_MILLIS_MIN, together, ...alone);
  return { appMillis, podMillis: appMillis + (plan.sidecar === null ? 0 : SIDECAR_CPU_REQUEST_MILLIS) };
}
