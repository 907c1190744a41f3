import { availableParallelism, cpus, loadavg, release } from "node:os";

/** One line that says what the figures were measured on. */
export function describeMachine(): string {
  const model = cpus()[0]?.model ?? "unknown CPU";
  const [one = 0] = loadavg();
  return `${new Date().toISOString().slice(0, 16)}Z, ${availableParallelism()} × ${model}, Linux ${release()}, Node ${process.versions.node}, load average ${one.toFixed(1)}`;
}
