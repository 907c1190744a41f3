/**
 * One program, several roles: the first argument picks the process to be. Each role loads only what it uses, since a
 * machine runs many sidecars and one of everything else.
 */
import type { Confinement } from "./kernel/confinement.ts";

const role = process.argv[2];

switch (role) {
  case "sidecar": {
    const tokenFd = Number(process.env["PILLION_TOKEN_FD"]);
    await confined({
      writes: process.env["PILLION_WORKLOAD_API_SOCKET"] === undefined ? "nothing" : "sockets",
      handed: Number.isInteger(tokenFd) ? [tokenFd] : [],
    });
    const { runSidecar } = await import("./proxy/main.ts");
    await runSidecar(process.env);
    break;
  }
  case "agent": {
    const { runAgent } = await import("./agent/main.ts");
    await runAgent(roleOptions());
    break;
  }
  case "control": {
    await confined({ writes: "files" });
    const { runControl } = await import("./control/main.ts");
    await runControl(roleOptions());
    break;
  }
  case "dns": {
    await confined({ writes: "nothing" });
    const { runDns } = await import("./agent/dns-main.ts");
    await runDns(roleOptions());
    break;
  }
  default: {
    const { runCli } = await import("./cli/main.ts");
    await runCli(process.argv);
  }
}

/** Before any of the role's own code: what cannot be locked in does not start. */
async function confined(options: Confinement): Promise<void> {
  const { confine } = await import("./kernel/confinement.ts");
  try {
    confine(options);
  } catch (error) {
    process.stderr.write(
      `${role} cannot be locked in: ${error instanceof Error ? error.message : String(error)}\n`,
    );
    process.exit(1);
  }
}

/** Roles other than the operator's command are started by Pillion itself, with their options as one JSON argument. */
function roleOptions<T>(): T {
  return JSON.parse(process.argv[3] ?? "{}") as T;
}
