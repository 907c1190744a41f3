import { cpSync, existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CommandError } from "../exit.ts";
import type { InstancePaths } from "../instance-paths.ts";
import { stat } from "../stat/stat.ts";
import type { UpOptions } from "../up.ts";
import { down, statusIfRunning, up } from "../up.ts";
import { proveClaims } from "./once.ts";

export interface DemoOptions {
  readonly intercept: UpOptions["intercept"];
  readonly once: boolean;
  /** Hooks for the test that shows that the proof can fail. */
  readonly test: {
    readonly withoutTls: boolean;
    /** Name of a workload to leave out of the mesh; "" for none. */
    readonly unmeshed: string;
  };
}

type Print = (line: string) => void;

const FOLDER = fileURLToPath(new URL("../../../demo", import.meta.url));
const POD_CIDR = "10.211.0.0/16";
const SERVICE_CIDR = "10.212.0.0/16";

/** Runs the shop; with `once`, proves what the demo claims and ends. Gives the exit code. Cleans up whatever happens. */
export async function demo(
  paths: InstancePaths,
  options: DemoOptions,
  print: Print,
  progress: Print,
): Promise<number> {
  if ((await statusIfRunning(paths)) !== null) {
    throw new CommandError(
      `instance "${paths.name}" is already running; end it first: pillion down --instance ${paths.name}`,
    );
  }
  const shop = mkdtempSync(join(tmpdir(), "pillion-shop-"));
  cpSync(join(FOLDER, "shop"), shop, { recursive: true });
  if (options.test.unmeshed !== "") leaveOut(join(shop, `${options.test.unmeshed}.yaml`));
  for (const { service, needs } of leaveOutMissing(shop))
    progress(`left out: ${service}, because ${needs} is not installed`);
  const ending = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => ending.abort());
  const start: UpOptions = {
    folder: shop,
    detach: true,
    intercept: options.intercept,
    podCidr: POD_CIDR,
    serviceCidr: SERVICE_CIDR,
    timeoutSeconds: 120,
    testWithoutTls: options.test.withoutTls,
    say: progress,
  };
  try {
    if (options.once)
      return await proveClaims(
        paths,
        { start, shop, stand: join(FOLDER, "once"), signal: ending.signal },
        print,
        progress,
      );
    const running = await up(paths, { ...start, signal: ending.signal });
    progress(`${running.pods.length} pods are ready; live traffic follows, Ctrl-C ends it`);
    progress(
      `who may call whom, learned from it: pillion authz suggest${paths.name === "default" ? "" : ` --instance ${paths.name}`}`,
    );
    await stat(paths, { json: false, once: false, intervalMs: 2_000, signal: ending.signal }, print);
    return 0;
  } finally {
    progress("ending …");
    if ((await statusIfRunning(paths)) !== null) await down(paths, () => {});
    rmSync(shop, { recursive: true, force: true });
  }
}

/** What the shop takes from the system, by the file that needs it; a slash makes it a pattern of a path. */
const NEEDS = [
  { service: "cart", needs: "redis-server" },
  { service: "orders", needs: "/usr/lib/postgresql/*/bin/postgres" },
];

/** Removes what cannot run here, and tells the rest of the shop to do without. */
function leaveOutMissing(shop: string): typeof NEEDS {
  const folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
  const missing = NEEDS.filter(({ needs }) =>
    needs.includes("/")
      ? globSync(needs).length === 0
      : !folders.some((folder) => existsSync(join(folder, needs))),
  );
  for (const { service } of missing) rmSync(join(shop, `${service}.yaml`));
  const settings = join(shop, "namespace.yaml");
  const names = missing.map(({ service }) => service).join(",");
  writeFileSync(settings, readFileSync(settings, "utf8").replace('LEFT_OUT: ""', `LEFT_OUT: "${names}"`));
  return missing;
}

/** Takes a file's workloads out of the mesh. */
function leaveOut(file: string): void {
  const yaml = readFileSync(file, "utf8");
  writeFileSync(
    file,
    yaml.replaceAll(/^( {4})metadata:$/gm, "$1metadata:\n$1  annotations: { linkerd.io/inject: disabled }"),
  );
}
