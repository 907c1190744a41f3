import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { IpAddress } from "#/base/address.ts";
import { describeError } from "#/base/errors.ts";
import type { ServiceVip } from "#/kernel/interception.ts";
import type { PodPlan, PodStatus, ServicePlan } from "#/model/pod-plan.ts";
import { ensureDir, readIfThere, removeTree } from "../files.ts";
import { delay } from "./launch.ts";
import type { PublishedPort } from "./network.ts";
import type { PodHost } from "./pod-host.ts";
import { Pod, type PodRecord } from "./pod.ts";

/**
 * All pods of the machine, brought towards what is planned. Level-triggered: `apply` may be called with any plan at
 * any time and works out the difference itself.
 */
export class PodRuntime {
  readonly #host: PodHost;
  readonly #pods = new Map<string, Pod>();
  #publishing: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(host: PodHost) {
    this.#host = host;
  }

  /** Takes over the pods of an earlier agent, and removes what belongs to none. */
  async open(): Promise<void> {
    const dir = this.#podsDir();
    ensureDir(dir);
    const records: PodRecord[] = [];
    for (const uid of readdirSync(dir)) {
      const record = readRecord(join(dir, uid, "pod.json"));
      if (record === null) removeTree(join(dir, uid));
      else records.push(record);
    }
    for (const record of records) {
      this.#host.addresses.reserve(record.ip as IpAddress);
      this.#host.slots.reserve(record.slot);
    }
    const known = new Set(records.map((record) => record.plan.uid));
    // Groups that belong to no pod: an agent died between making and recording, or removing and forgetting.
    for (const uid of this.#host.cgroups.children("")) {
      if (!known.has(uid) && !DAEMON_GROUPS.includes(uid)) this.#host.cgroups.remove(uid);
    }
    for (const record of records) this.#begin(new Pod(this.#host, record));
    // Whoever asks for statuses from here on must not hear that running pods are not there yet.
    const running = this.pods.filter((pod) => pod.record.initialised && !pod.record.stopping);
    await Promise.race([Promise.all(running.map((pod) => pod.settled)), delay(SETTLE_MAX_MS)]);
  }

  apply(plans: readonly PodPlan[]): void {
    if (this.#closed) return;
    const wanted = new Map(plans.map((plan) => [plan.uid, plan]));
    for (const [uid, pod] of this.#pods) {
      const plan = wanted.get(uid);
      if (plan === undefined) pod.stop();
      else pod.update(plan);
    }
    for (const plan of plans) {
      if (this.#pods.has(plan.uid)) continue;
      try {
        this.#begin(new Pod(this.#host, Pod.newRecord(this.#host, plan)));
      } catch (error) {
        this.#host.log("error", `pod ${plan.namespace}/${plan.name} cannot start: ${describeError(error)}`);
      }
    }
  }

  /** Gives pods without a sidecar, and what goes past one, the Services' virtual IPs. */
  applyServices(services: readonly ServicePlan[]): void {
    this.#host.interceptor?.setServices(services.flatMap(virtualIps));
    for (const pod of this.#pods.values()) pod.sidecar?.retarget();
  }

  statuses(): PodStatus[] {
    return [...this.#pods.values()].map((pod) => pod.status());
  }

  find(namespace: string, name: string): Pod | null {
    return (
      [...this.#pods.values()].find((pod) => pod.plan.namespace === namespace && pod.plan.name === name) ??
      null
    );
  }

  get pods(): readonly Pod[] {
    return [...this.#pods.values()];
  }

  /** Ends all pods in order and resolves when nothing of them is left. Nothing starts any more. */
  async stopAll(): Promise<void> {
    this.#closed = true;
    const pods = [...this.#pods.values()];
    for (const pod of pods) pod.stop();
    await Promise.all(pods.map((pod) => pod.gone));
    await this.#publishing;
  }

  #begin(pod: Pod): void {
    this.#pods.set(pod.plan.uid, pod);
    pod.start();
    this.#publish();
    void pod.gone.then(() => {
      this.#pods.delete(pod.plan.uid);
      this.#publish();
      this.#host.changed();
    });
  }

  /** Ports of the machine follow the set of pods, one change at a time. */
  #publish(): void {
    this.#publishing = this.#publishing.then(async () => {
      try {
        await this.#host.network.publish([...this.#pods.values()].flatMap(publishedPorts));
      } catch (error) {
        this.#host.log("error", describeError(error));
      }
    });
  }

  #podsDir(): string {
    return join(this.#host.instance.stateDir, "agent", "pods");
  }
}

/** A pod that cannot be taken over in this time is reported as it is. */
const SETTLE_MAX_MS = 5_000;

/** Groups beside the pods': the mesh's own processes. */
export const DAEMON_GROUPS: readonly string[] = ["control", "dns"];

function readRecord(path: string): PodRecord | null {
  try {
    const text = readIfThere(path);
    return text === null ? null : (JSON.parse(text) as PodRecord);
  } catch {
    return null;
  }
}

function publishedPorts(pod: Pod): PublishedPort[] {
  return [...pod.plan.initContainers, ...pod.plan.containers].flatMap((container) =>
    container.ports.flatMap((port) =>
      port.hostPort === null
        ? []
        : [
            {
              hostIp: port.hostIp,
              hostPort: port.hostPort,
              protocol: port.protocol,
              podIp: pod.record.ip as IpAddress,
              podPort: port.containerPort,
            },
          ],
    ),
  );
}

function virtualIps(service: ServicePlan): ServiceVip[] {
  const { clusterIp } = service;
  if (clusterIp === null) return [];
  return service.ports.map((port, index) => ({
    ip: clusterIp as IpAddress,
    port: port.port,
    protocol: port.protocol === "UDP" ? "udp" : "tcp",
    backends: service.endpoints
      .filter(
        (endpoint) =>
          (endpoint.ready || service.publishNotReady) &&
          endpoint.ip !== "" &&
          (endpoint.targetPorts[index] ?? 0) > 0,
      )
      .map((endpoint) => ({ ip: endpoint.ip as IpAddress, port: endpoint.targetPorts[index] as number })),
  }));
}
