import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { SeededRandom } from "#/base/random.ts";
import type {
  DaemonSetObject,
  DeploymentObject,
  JobObject,
  PodObject,
  StatefulSetObject,
} from "#/kube/objects.ts";
import { decideBarePod } from "./bare-pod.ts";
import { decideDaemonSet } from "./daemon-set.ts";
import { resolveCount } from "./decision.ts";
import { decideDeployment } from "./deployment.ts";
import { decideJob } from "./job.ts";
import type { JobMemory } from "./job.ts";
import { decideStatefulSet } from "./stateful-set.ts";
import { SimulatedWorkload } from "./testing.ts";

const template = { spec: { containers: [{ name: "c" }] } };
const selector = { matchLabels: { app: "a" } };

const deployment = (spec: Partial<DeploymentObject["spec"]> = {}): DeploymentObject => ({
  kind: "Deployment",
  metadata: { name: "web" },
  spec: { selector, template, ...spec },
});
const statefulSet = (spec: Partial<StatefulSetObject["spec"]> = {}): StatefulSetObject => ({
  kind: "StatefulSet",
  metadata: { name: "db" },
  spec: { selector, template, ...spec },
});
const daemonSet = (spec: Partial<DaemonSetObject["spec"]> = {}): DaemonSetObject => ({
  kind: "DaemonSet",
  metadata: { name: "ds" },
  spec: { selector, template, ...spec },
});

test("a rolling update keeps its promises whatever the order of things", () => {
  fc.assert(
    fc.property(
      fc.record({
        seed: fc.nat(),
        replicas: fc.integer({ min: 1, max: 8 }),
        surge: fc.oneof(fc.integer({ min: 0, max: 4 }), fc.constantFrom("0%", "25%", "50%", "100%")),
        unavailable: fc.oneof(fc.integer({ min: 0, max: 4 }), fc.constantFrom("0%", "25%", "50%", "100%")),
        minReadySeconds: fc.constantFrom(0, 3),
      }),
      ({ seed, replicas, surge, unavailable, minReadySeconds }) => {
        const most = replicas + resolveCount(surge, replicas, "up");
        const down = resolveCount(unavailable, replicas, "down");
        const least = replicas - (most === replicas && down === 0 ? 1 : down);
        const object = deployment({
          replicas,
          minReadySeconds,
          strategy: { rollingUpdate: { maxSurge: surge, maxUnavailable: unavailable } },
        });
        const world = new SimulatedWorkload((now) => decideDeployment(object, now), new SeededRandom(seed));
        world.settle();
        assert.equal(world.wanted.length, replicas);
        world.hash = "two";
        world.settle(() => {
          assert.ok(world.wanted.length <= most, `${world.wanted.length} pods are more than ${most}`);
          assert.ok(
            world.available(minReadySeconds) >= least,
            `${world.available(minReadySeconds)} available pods are fewer than ${least}`,
          );
        });
        assert.ok(world.wanted.every((pod) => pod.hash === "two"));
        assert.equal(world.wanted.length, replicas);
      },
    ),
  );
});

test("a rollout that never becomes ready stops at maxUnavailable, and can be taken back", () => {
  const object = deployment({ replicas: 4, strategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 1 } } });
  const world = new SimulatedWorkload((now) => decideDeployment(object, now), new SeededRandom(1));
  world.settle();
  world.hash = world.broken = "bad";
  for (let i = 0; i < 50; i++) {
    world.step();
    world.chance();
  }
  assert.equal(world.available(), 3);
  assert.equal(world.wanted.length, 5);
  assert.match(world.last?.summary ?? "", /^rolling 0\/4/);
  world.hash = "one";
  world.settle();
  assert.ok(world.wanted.every((pod) => pod.hash === "one"));
});

test("scaling up adds, scaling down takes those that are not ready and then the youngest; the others are not touched", () => {
  let replicas = 3;
  const world = new SimulatedWorkload(
    (now) => decideDeployment(deployment({ replicas }), now),
    new SeededRandom(1),
  );
  world.settle();
  const before = world.wanted.map((pod) => pod.uid);
  replicas = 5;
  world.settle();
  assert.deepEqual(
    world.wanted.slice(0, 3).map((pod) => pod.uid),
    before,
  );
  world.wanted[1]!.readySinceMs = null;
  const [first, , third] = world.wanted.map((pod) => pod.uid);
  replicas = 2;
  world.step();
  assert.deepEqual(
    world.wanted.map((pod) => pod.uid),
    [first, third],
  );
  replicas = 0;
  world.settle();
  assert.equal(world.pods.length, 0);
});

test("Recreate has no new pod before the last old one is gone", () => {
  const object = deployment({ replicas: 3, strategy: { type: "Recreate" } });
  const world = new SimulatedWorkload((now) => decideDeployment(object, now), new SeededRandom(1));
  world.settle();
  world.hash = "two";
  world.settle(() =>
    assert.equal(new Set(world.pods.map((pod) => pod.hash)).size <= 1 || world.pods.length === 0, true),
  );
  assert.ok(world.wanted.every((pod) => pod.hash === "two"));
});

test("a paused Deployment scales what it has", () => {
  let spec: Partial<DeploymentObject["spec"]> = { replicas: 2 };
  const world = new SimulatedWorkload((now) => decideDeployment(deployment(spec), now), new SeededRandom(1));
  world.settle();
  spec = { replicas: 3, paused: true };
  world.hash = "two";
  world.settle();
  assert.deepEqual(
    world.wanted.map((pod) => pod.hash),
    ["one", "one", "one"],
  );
});

test("a Deployment's pod that ended is replaced", () => {
  const world = new SimulatedWorkload(
    (now) => decideDeployment(deployment({ replicas: 1 }), now),
    new SeededRandom(1),
  );
  world.settle();
  const [pod] = world.wanted;
  world.finish(pod!, "Failed");
  world.settle();
  assert.notEqual(world.wanted[0]!.uid, pod!.uid);
});

test("an ordered StatefulSet comes up from the first, goes down from the last, and rolls from the last, one at a time", () => {
  fc.assert(
    fc.property(fc.nat(), fc.integer({ min: 1, max: 5 }), (seed, size) => {
      let replicas = size;
      const world = new SimulatedWorkload(
        (now) => decideStatefulSet(statefulSet({ replicas }), now),
        new SeededRandom(seed),
      );
      world.settle(() => {
        const places = world.wanted.map((pod) => pod.ordinal!);
        assert.deepEqual(
          places,
          places.map((_, i) => i),
          "without gaps",
        );
        assert.ok(world.wanted.filter((pod) => pod.readySinceMs === null).length <= 1, "one at a time");
      });
      assert.deepEqual(
        world.wanted.map((pod) => pod.name),
        Array.from({ length: size }, (_, i) => `db-${i}`),
      );
      world.hash = "two";
      world.settle(() => {
        assert.ok(world.available() >= size - 1, "one at a time");
        const updated = world.wanted.filter((pod) => pod.hash === "two").map((pod) => pod.ordinal!);
        const missing = [...Array(size).keys()].filter(
          (place) => !world.wanted.some((pod) => pod.ordinal === place),
        );
        const touched = [...updated, ...missing].toSorted((a, b) => a - b);
        assert.deepEqual(
          touched,
          Array.from({ length: touched.length }, (_, i) => size - touched.length + i),
          "from the last down",
        );
      });
      replicas = 0;
      world.settle(() => assert.ok(world.pods.filter((pod) => pod.isLeaving).length <= 1, "one at a time"));
      assert.equal(world.pods.length, 0);
    }),
  );
});

test("a parallel StatefulSet makes and lets go all at once", () => {
  let replicas = 4;
  const world = new SimulatedWorkload(
    (now) =>
      decideStatefulSet(
        statefulSet({ replicas, podManagementPolicy: "Parallel", ordinals: { start: 2 } }),
        now,
      ),
    new SeededRandom(1),
  );
  world.step();
  assert.deepEqual(
    world.wanted.map((pod) => pod.name),
    ["db-2", "db-3", "db-4", "db-5"],
  );
  world.settle();
  replicas = 1;
  world.step();
  assert.deepEqual(
    world.wanted.map((pod) => pod.name),
    ["db-2"],
  );
});

test("a StatefulSet's partition keeps the first pods as they are, also when one must be made again", () => {
  const object = statefulSet({ replicas: 3, updateStrategy: { rollingUpdate: { partition: 2 } } });
  const world = new SimulatedWorkload((now) => decideStatefulSet(object, now), new SeededRandom(1));
  world.settle();
  world.hash = "two";
  world.settle();
  assert.deepEqual(
    world.wanted.toSorted((a, b) => a.ordinal! - b.ordinal!).map((pod) => pod.hash),
    ["one", "one", "two"],
  );
  world.finish(
    world.wanted.find((pod) => pod.ordinal === 0)!,
    "Failed",
  );
  world.settle();
  assert.equal(world.wanted.find((pod) => pod.ordinal === 0)!.hash, "one");
});

test("OnDelete leaves running pods of a StatefulSet and a DaemonSet alone", () => {
  const set = new SimulatedWorkload(
    (now) => decideStatefulSet(statefulSet({ replicas: 2, updateStrategy: { type: "OnDelete" } }), now),
    new SeededRandom(1),
  );
  set.settle();
  set.hash = "two";
  set.settle();
  assert.ok(set.wanted.every((pod) => pod.hash === "one"));
  const daemon = new SimulatedWorkload(
    (now) => decideDaemonSet(daemonSet({ updateStrategy: { type: "OnDelete" } }), now),
    new SeededRandom(1),
  );
  daemon.settle();
  daemon.hash = "two";
  daemon.settle();
  assert.equal(daemon.wanted[0]!.hash, "one");
});

test("a StatefulSet's template that never becomes ready can be repaired", () => {
  const world = new SimulatedWorkload(
    (now) => decideStatefulSet(statefulSet({ replicas: 3 }), now),
    new SeededRandom(1),
  );
  world.settle();
  world.hash = world.broken = "bad";
  for (let i = 0; i < 20; i++) {
    world.step();
    world.chance();
  }
  assert.equal(world.available(), 2);
  for (const pod of world.wanted) if (pod.hash === "bad") pod.restarts = 3;
  world.hash = "good";
  world.settle();
  assert.ok(world.wanted.every((pod) => pod.hash === "good"));
});

test("a DaemonSet has one pod; with maxSurge the new one is ready before the old one goes", () => {
  for (const surges of [false, true]) {
    const object = daemonSet(
      surges ? { updateStrategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } } } : {},
    );
    const world = new SimulatedWorkload((now) => decideDaemonSet(object, now), new SeededRandom(1));
    world.settle();
    world.hash = "two";
    world.settle(() => assert.ok(surges ? world.available() >= 1 : world.pods.length <= 1));
    assert.deepEqual(
      world.wanted.map((pod) => pod.hash),
      ["two"],
    );
  }
});

test("a bare Pod that changed is made again under its name, once the old one is gone", () => {
  const object: PodObject = { kind: "Pod", metadata: { name: "p" }, spec: template.spec };
  const world = new SimulatedWorkload((now) => decideBarePod(object, now), new SeededRandom(1));
  world.settle();
  world.hash = "two";
  world.settle(() => assert.ok(world.pods.length <= 1));
  assert.deepEqual(
    world.wanted.map((pod) => [pod.name, pod.hash]),
    [["p", "two"]],
  );
});

class SimulatedJob {
  memory: JobMemory | null = null;
  readonly world: SimulatedWorkload;
  constructor(spec: Partial<JobObject["spec"]>) {
    const object: JobObject = { kind: "Job", metadata: { name: "j" }, spec: { template, ...spec } };
    this.world = new SimulatedWorkload((now) => {
      const decision = decideJob(object, now, this.memory);
      this.memory = decision.memory;
      return decision;
    }, new SeededRandom(1));
    this.world.step();
  }
  get active(): SimulatedWorkload["pods"] {
    return this.world.wanted.filter((pod) => pod.phase !== "Succeeded" && pod.phase !== "Failed");
  }
  end(phase: "Succeeded" | "Failed"): void {
    this.world.finish(this.active[0]!, phase);
    this.world.step();
  }
  pass(seconds: number): void {
    this.world.nowMs += seconds * 1000;
    this.world.step();
  }
}

test("a Job runs as many pods as it may until enough have succeeded, and keeps them for their logs", () => {
  const job = new SimulatedJob({ completions: 5, parallelism: 2 });
  for (let done = 0; done < 5; done++) {
    assert.equal(job.active.length, Math.min(2, 5 - done));
    job.end("Succeeded");
  }
  assert.equal(job.memory?.result, "Complete");
  assert.equal(job.world.wanted.length, 5);
  assert.equal(job.world.last?.summary, "completed 5/5");
});

test("a Job waits 10 s after a failure, then twice as long, and fails beyond backoffLimit", () => {
  const job = new SimulatedJob({ backoffLimit: 2 });
  job.end("Failed");
  assert.equal(job.active.length, 0);
  assert.equal(job.world.last?.wakeAtMs, job.world.nowMs + 10_000);
  job.pass(9);
  assert.equal(job.active.length, 0);
  job.pass(1);
  assert.equal(job.active.length, 1);
  job.end("Failed");
  job.pass(19);
  assert.equal(job.active.length, 0);
  job.pass(1);
  job.end("Failed");
  assert.equal(job.memory?.result, "Failed");
  assert.match(job.world.last?.summary ?? "", /^failed: 3 pods failed, more than backoffLimit 2$/);
  job.pass(10_000);
  assert.equal(job.active.length, 0);
});

test("a Job whose containers are restarted in place counts restarts", () => {
  const job = new SimulatedJob({ backoffLimit: 2 });
  job.active[0]!.restarts = 3;
  job.world.step();
  assert.equal(job.memory?.result, "Failed");
  assert.equal(job.active.length, 0);
});

test("a Job ends at activeDeadlineSeconds", () => {
  const job = new SimulatedJob({ activeDeadlineSeconds: 30 });
  assert.equal(job.world.last?.wakeAtMs, job.world.nowMs + 30_000);
  job.pass(30);
  assert.match(job.world.last?.summary ?? "", /activeDeadlineSeconds/);
  assert.equal(job.active.length, 0);
});

test("a Job's pods are removed after ttlSecondsAfterFinished, and it does not run again until it changes", () => {
  const job = new SimulatedJob({ ttlSecondsAfterFinished: 60 });
  job.end("Succeeded");
  job.pass(59);
  assert.equal(job.world.wanted.length, 1);
  job.pass(1);
  assert.equal(job.world.wanted.length, 0);
  job.pass(1000);
  assert.equal(job.world.wanted.length, 0);
  job.world.hash = "two";
  job.world.step();
  assert.equal(job.active.length, 1);
});

test("a suspended Job has no active pods", () => {
  const job = new SimulatedJob({ suspend: true });
  assert.equal(job.world.pods.length, 0);
  assert.match(job.world.last?.summary ?? "", /suspended/);
});

test("a work queue's Job is done when one pod succeeded and all have ended", () => {
  const job = new SimulatedJob({ parallelism: 2 });
  assert.equal(job.active.length, 2);
  job.end("Succeeded");
  assert.equal(job.active.length, 1);
  assert.equal(job.memory?.result, "");
  job.end("Succeeded");
  assert.equal(job.memory?.result, "Complete");
});
