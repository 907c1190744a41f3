/**
 * One program, several roles: the first argument picks the process to be. Each role loads only what it uses, since a
 * machine runs many sidecars and one of everything else.
 */
const role = process.argv[2];

switch (role) {
  case "sidecar": {
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
    const { runControl } = await import("./control/main.ts");
    await runControl(roleOptions());
    break;
  }
  case "dns": {
    const { runDns } = await import("./agent/dns-main.ts");
    await runDns(roleOptions());
    break;
  }
  default: {
    const { runCli } = await import("./cli/main.ts");
    await runCli(process.argv);
  }
}

/** Roles other than the operator's command are started by Pillion itself, with their options as one JSON argument. */
function roleOptions<T>(): T {
  return JSON.parse(process.argv[3] ?? "{}") as T;
}
