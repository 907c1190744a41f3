/**
 * Two sidecars of one pod on the same ports (SO_REUSEPORT) under interception by eBPF: whether both get connections, and what is left when
 * the one that began to listen last is gone. Needs root.
 *
 *   scripts/run test bench/choices/shared-listener.ts
 */
import { join } from "node:path";
import type { Errand } from "../../test/e2e/kernel/fixtures/app.ts";
import { POD4, Rig, WORLD4, type Sidecar } from "../../test/e2e/kernel/rig.ts";
import { openInterceptor, sweepLeftovers } from "#/kernel/interception.ts";

const DIALS = 40;
const rig = new Rig();
const interceptor = openInterceptor("ebpf", rig.instance);
const accepted = new Map<string, number>();

try {
  interceptor.install(rig.interception());
  // Children inherit it.
  process.env["NODE_OPTIONS"] = `--import=${join(import.meta.dirname, "reuse-port.ts")}`;
  await startSidecar("first");
  const second = await startSidecar("second");
  delete process.env["NODE_OPTIONS"];
  await rig.startServer("app", "app", "tcp:0.0.0.0:80");
  await rig.startServer("world", "world", `tcp:${WORLD4}:80`);
  const inbound = { to: { ip: POD4, port: 80 }, receive: true, times: DIALS };
  await dial("inbound, both alive", "world", inbound);
  await dial("outbound, both alive", "app", { to: { ip: WORLD4, port: 80 }, receive: true, times: DIALS });
  await rig.stop(second.child);
  await dial("inbound, the second gone", "world", inbound);
} finally {
  interceptor.remove(rig.instance, rig.pod);
  interceptor.close();
  sweepLeftovers(rig.instance);
  await rig[Symbol.asyncDispose]();
}
process.exit();

async function startSidecar(name: string): Promise<Sidecar> {
  const sidecar = await rig.startSidecar();
  const count = async (): Promise<void> => {
    for (;;) {
      await sidecar.accepted();
      accepted.set(name, (accepted.get(name) ?? 0) + 1);
    }
  };
  // It ends when the sidecar does.
  void count().catch(() => undefined);
  return sidecar;
}

async function dial(what: string, from: "app" | "world", errand: Errand): Promise<void> {
  accepted.clear();
  const outcomes = await rig.runMany(from, errand);
  const refused = outcomes.filter(({ error }) => error !== null);
  const untilMs = performance.now() + 2000;
  const sum = (): number => [...accepted.values()].reduce((all, one) => all + one, 0);
  while (sum() < outcomes.length - refused.length && performance.now() < untilMs)
    await new Promise((resolve) => setTimeout(resolve, 10));
  console.log(
    `${what}: ${JSON.stringify(Object.fromEntries(accepted))}, ${refused.length} of ${DIALS} refused`,
  );
}
