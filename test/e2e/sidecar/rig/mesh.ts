import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, closeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { SIDECAR_NODE_FLAGS } from "#/agent/runtime/pod-host.ts";
import { strippedSources } from "#/agent/stripped-sources.ts";
import type { StubEndpoint, StubTable } from "./control-stub.ts";
import type { WorkerContext } from "./worker.ts";

const NODE = process.execPath;
const HERE = import.meta.dirname;
const PACKAGE = join(HERE, "../../../..");
const SIDECAR_UID = 61_100;
const GATEWAY = "10.213.0.1";
const CONTROL_NAME = identityName("control", "pillion");
const TOKEN = "token-of-this-test";

export function identityName(serviceAccount: string, namespace = "test"): string {
  return `${serviceAccount}.${namespace}.serviceaccount.identity.pillion.cluster.local`;
}

/** Why these tests cannot run here; null when they can. */
export function cannotRun(): string | null {
  if (process.getuid?.() !== 0) return "needs root to make network namespaces";
  try {
    execFileSync("nft", ["--version"], { stdio: "ignore" });
    execFileSync("ip", ["netns", "list"], { stdio: "ignore" });
  } catch {
    return "needs nft and ip";
  }
  return null;
}

const ip = (...args: string[]): void =>
  void execFileSync("ip", args, { stdio: ["ignore", "ignore", "inherit"] });

/** The sidecar of a package as JavaScript, with the alias that our package gives its sources; the path of what to start. */
export function sidecarOf(packageRoot: string, into: string): string {
  const sources = strippedSources(packageRoot, into);
  writeFileSync(join(sources, "package.json"), JSON.stringify({ type: "module", imports: { "#/*": "./*" } }));
  return join(sources, "main.js");
}

/**
 * Pods in network namespaces of their own around a bridge in another, with sidecars intercepting by nftables and a stub
 * control plane on the bridge's address. Everything is named after this process and goes away with `close`.
 */
export class Mesh {
  readonly folder: string = mkdtempSync(join(tmpdir(), "pillion-sidecar-"));
  /** As the agent starts it. */
  readonly sidecarMain: string = sidecarOf(PACKAGE, this.folder);
  readonly #prefix = `pt${process.pid}`;
  readonly #hub = `${this.#prefix}-hub`;
  readonly #pods: Pod[] = [];
  #stub: ChildProcess | null = null;
  #stubLines: string[] = [];
  #table: StubTable = {
    services: {},
    policies: {},
    endpoints: {},
    pods: {},
    ports: {},
    certificateSeconds: 3600,
    token: TOKEN,
  };

  static async start(): Promise<Mesh> {
    const mesh = new Mesh();
    chmodSync(mesh.folder, 0o755);
    mesh.#makeCertificates();
    ip("netns", "add", mesh.#hub);
    ip("-n", mesh.#hub, "link", "set", "lo", "up");
    // A fixed address: else the bridge takes its lowest port's, and a pod that is added later silences the others for seconds.
    ip("-n", mesh.#hub, "link", "add", "mesh0", "address", "02:00:0a:d5:00:01", "type", "bridge");
    ip("-n", mesh.#hub, "addr", "add", `${GATEWAY}/16`, "dev", "mesh0");
    ip("-n", mesh.#hub, "link", "set", "mesh0", "up");
    try {
      await mesh.startControl();
    } catch (error) {
      await mesh.close();
      throw error;
    }
    return mesh;
  }

  async pod(
    name: string,
    options: {
      readonly isMeshed: boolean;
      readonly inboundPorts?: readonly number[];
      readonly env?: Record<string, string>;
    },
  ): Promise<Pod> {
    const number = this.#pods.length + 1;
    const ns = `${this.#prefix}-${name}`;
    const address = `10.213.1.${number}`;
    ip("netns", "add", ns);
    ip(
      "link",
      "add",
      `${this.#prefix}h${number}`,
      "netns",
      this.#hub,
      "type",
      "veth",
      "peer",
      "name",
      "eth0",
      "netns",
      ns,
    );
    ip("-n", this.#hub, "link", "set", `${this.#prefix}h${number}`, "master", "mesh0", "up");
    ip("-n", ns, "addr", "add", `${address}/16`, "dev", "eth0");
    ip("-n", ns, "link", "set", "lo", "up");
    ip("-n", ns, "link", "set", "eth0", "up");
    ip("-n", ns, "route", "add", "default", "via", GATEWAY);
    const pod = new Pod(this, name, ns, address, options.isMeshed);
    this.#pods.push(pod);
    if (options.isMeshed) {
      const rules = [
        "table ip pillion {",
        "chain pre { type nat hook prerouting priority -100; tcp dport 4191 return; meta l4proto tcp redirect to :4143; }",
        `chain out { type nat hook output priority -100; meta skuid ${SIDECAR_UID} return; oifname lo return; meta l4proto tcp redirect to :4140; }`,
        "}",
      ];
      execFileSync("ip", ["netns", "exec", ns, "nft", "-f", "-"], { input: rules.join("\n") });
      await pod.startSidecar(options.inboundPorts ?? [], options.env ?? {});
    }
    return pod;
  }

  /** Changes what the control plane says, and waits until it has taken it. */
  async set(change: Partial<StubTable>): Promise<void> {
    this.#table = { ...this.#table, ...change };
    const before = this.#stubLines.filter((line) => line === "table").length;
    if (this.#stub === null) return;
    this.#stub.stdin?.write(`${JSON.stringify(this.#table)}\n`);
    await until(
      () => this.#stubLines.filter((line) => line === "table").length > before,
      "the stub took its table",
    );
  }

  get table(): StubTable {
    return this.#table;
  }

  get controlLines(): readonly string[] {
    return this.#stubLines;
  }

  async startControl(): Promise<void> {
    this.#stubLines = [];
    const stub = spawn(
      "ip",
      ["netns", "exec", this.#hub, NODE, join(HERE, "control-stub.ts"), this.folder, GATEWAY, "8086"],
      { stdio: ["pipe", "pipe", "inherit"] },
    );
    this.#stub = stub;
    createInterface(stub.stdout).on("line", (line) => this.#stubLines.push(line));
    await until(() => this.#stubLines.includes("listening"), "the stub control plane listens");
    await this.set({});
  }

  async killControl(): Promise<void> {
    const stub = this.#stub;
    this.#stub = null;
    if (stub === null) return;
    stub.kill("SIGKILL");
    if (stub.exitCode === null && stub.signalCode === null) await once(stub, "exit");
  }

  /** Makes `NAME.pem` and `NAME.key` for an identity. */
  leaf(name: string, dns: string, root = "root", days = "1"): { key: string; cert: string } {
    this.#openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", `${name}.key`);
    this.#openssl("req", "-new", "-key", `${name}.key`, "-subj", "/", "-out", `${name}.csr`);
    writeFileSync(join(this.folder, `${name}.ext`), `subjectAltName=critical,DNS:${dns}\n`);
    this.#openssl(
      "x509",
      "-req",
      "-in",
      `${name}.csr`,
      "-CA",
      `${root}.pem`,
      "-CAkey",
      `${root}.key`,
      "-CAcreateserial",
      "-days",
      days,
      "-extfile",
      `${name}.ext`,
      "-out",
      `${name}.pem`,
    );
    return { key: this.text(`${name}.key`), cert: this.text(`${name}.pem`) };
  }

  selfSigned(name: string, extension: string): { key: string; cert: string } {
    this.#openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", `${name}.key`);
    this.#openssl(
      "req",
      "-x509",
      "-new",
      "-key",
      `${name}.key`,
      "-subj",
      `/CN=${name}`,
      "-days",
      "2",
      "-out",
      `${name}.pem`,
      "-addext",
      extension,
    );
    return { key: this.text(`${name}.key`), cert: this.text(`${name}.pem`) };
  }

  text(name: string): string {
    return readFileSync(join(this.folder, name), "latin1");
  }

  async close(): Promise<void> {
    for (const pod of this.#pods) await pod.close();
    await this.killControl();
    for (const { ns } of this.#pods) ip("netns", "del", ns);
    ip("netns", "del", this.#hub);
    rmSync(this.folder, { recursive: true });
  }

  #makeCertificates(): void {
    this.selfSigned("root", "keyUsage=critical,keyCertSign");
    this.leaf("control", CONTROL_NAME);
  }

  #openssl(...args: string[]): void {
    execFileSync("openssl", args, { cwd: this.folder, stdio: ["ignore", "ignore", "pipe"] });
  }
}

export class Pod {
  readonly name: string;
  readonly ns: string;
  readonly ip: string;
  readonly isMeshed: boolean;
  readonly logs: Record<string, unknown>[] = [];
  sidecar: ChildProcess | null = null;
  readonly #mesh: Mesh;
  readonly #worker: ChildProcess;
  readonly #calls = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  #nextId = 1;

  constructor(mesh: Mesh, name: string, ns: string, address: string, isMeshed: boolean) {
    this.#mesh = mesh;
    this.name = name;
    this.ns = ns;
    this.ip = address;
    this.isMeshed = isMeshed;
    const worker = spawn("ip", ["netns", "exec", ns, NODE, join(HERE, "worker.ts")], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#worker = worker;
    createInterface(worker.stdout).on("line", (line) => {
      const { id, value, error } = JSON.parse(line) as { id: number; value?: unknown; error?: string };
      const call = this.#calls.get(id);
      this.#calls.delete(id);
      if (error === undefined) call?.resolve(value);
      else call?.reject(new Error(`in ${name}: ${error}`));
    });
  }

  get identity(): string {
    return identityName(this.name);
  }

  /** `ip` inside the pod's namespace. */
  configure(...args: string[]): void {
    ip("-n", this.ns, ...args);
  }

  /** A setting of the kernel inside the pod's namespace. */
  sysctl(name: string, value: string): void {
    const file = `/proc/sys/${name.replaceAll(".", "/")}`;
    execFileSync("ip", ["netns", "exec", this.ns, "tee", file], {
      input: value,
      stdio: ["pipe", "ignore", "inherit"],
    });
  }

  /** As the control plane would tell of this pod. */
  endpoint(port: number, hint: StubEndpoint["hint"] = "http2"): StubEndpoint {
    return this.isMeshed
      ? { ip: this.ip, port, identity: this.identity, tunnelPort: 4143, hint }
      : { ip: this.ip, port, identity: "", tunnelPort: 0, hint: "unknown" };
  }

  /** Runs `code` in a process of the pod; it sees its context and `args` only. */
  run<A extends unknown[], R>(
    code: (ctx: WorkerContext, ...args: A) => R | Promise<R>,
    ...args: A
  ): Promise<R> {
    const id = this.#nextId++;
    return new Promise<R>((resolve, reject) => {
      this.#calls.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#worker.stdin?.write(`${JSON.stringify({ id, code: code.toString(), args })}\n`);
    });
  }

  async startSidecar(
    inboundPorts: readonly number[],
    env: Record<string, string>,
    main: string = this.#mesh.sidecarMain,
  ): Promise<void> {
    const tokenFile = join(this.#mesh.folder, `${this.name}.token`);
    writeFileSync(tokenFile, TOKEN);
    const fd = openSync(tokenFile, "r");
    const service = `${GATEWAY}:8086`;
    const settings: Record<string, string> = {
      PATH: "/usr/bin:/bin:/usr/sbin:/sbin",
      LINKERD2_PROXY_IDENTITY_LOCAL_NAME: this.identity,
      LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS: this.#mesh.text("root.pem"),
      LINKERD2_PROXY_INBOUND_IPS: this.ip,
      LINKERD2_PROXY_INBOUND_PORTS: inboundPorts.join(","),
      LINKERD2_PROXY_ADMIN_LISTEN_ADDR: "0.0.0.0:4191",
      LINKERD2_PROXY_POLICY_WORKLOAD: `test:${this.name}`,
      LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS: "10.213.0.0/16,10.214.0.0/16",
      PILLION_TOKEN_FD: "3",
      PILLION_INTERCEPT: "nftables",
      PILLION_LOG: "debug",
      ...env,
    };
    for (const name of ["IDENTITY", "DESTINATION", "POLICY"]) {
      settings[`LINKERD2_PROXY_${name}_SVC_ADDR`] = service;
      settings[`LINKERD2_PROXY_${name}_SVC_NAME`] = CONTROL_NAME;
    }
    const args = [
      "netns",
      "exec",
      this.ns,
      "setpriv",
      `--reuid=${SIDECAR_UID}`,
      `--regid=${SIDECAR_UID}`,
      "--clear-groups",
      "--inh-caps=-all",
      "--bounding-set=-all",
      NODE,
      ...SIDECAR_NODE_FLAGS,
      main,
      "sidecar",
    ];
    const sidecar = spawn("ip", args, { stdio: ["ignore", "ignore", "pipe", fd], env: settings });
    closeSync(fd);
    this.sidecar = sidecar;
    createInterface(sidecar.stderr as NodeJS.ReadableStream).on("line", (line) => {
      if (process.env["SHOW_LOGS"] !== undefined) process.stderr.write(`${this.name}: ${line}\n`);
      try {
        this.logs.push(JSON.parse(line) as Record<string, unknown>);
      } catch {
        this.logs.push({ message: line });
      }
    });
    await until(
      () => this.logs.some((line) => line["message"] === "ready") || sidecar.exitCode !== null,
      `the sidecar of ${this.name} is ready`,
    );
    if (sidecar.exitCode !== null)
      throw new Error(`the sidecar of ${this.name} ended: ${JSON.stringify(this.logs)}`);
    await until(
      async () => (await this.metric(/^pillion_control_connected/)) === 1,
      "it is connected to the control plane",
    );
  }

  /** Kills the sidecar and starts another, from other sources. */
  async restartSidecar(main: string, inboundPorts: readonly number[]): Promise<void> {
    await this.#killSidecar();
    this.logs.length = 0;
    await this.startSidecar(inboundPorts, {}, main);
  }

  /** Reasons of refused inbound or outbound connections in the log so far. */
  refusals(): string[] {
    return this.logs
      .filter((line) => String(line["message"]).endsWith("connection refused"))
      .map((line) => String(line["reason"]));
  }

  /** A page of the admin server, read from inside the pod. */
  admin(path: string, method = "GET"): Promise<{ status: number; text: string }> {
    return this.run(
      ({ http }, at, verb) =>
        new Promise<{ status: number; text: string }>((resolve, reject) => {
          const request = http.request(
            { host: "127.0.0.1", port: 4191, path: at, method: verb },
            (response) => {
              let text = "";
              response.on("data", (bytes: Buffer) => (text += bytes.toString()));
              response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
            },
          );
          request.on("error", reject);
          request.end();
        }),
      path,
      method,
    );
  }

  /** The value of a metric whose line matches; 0 when there is none. */
  async metric(pattern: RegExp): Promise<number> {
    const { text } = await this.admin("/metrics");
    return text
      .split("\n")
      .filter((line) => pattern.test(line))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  }

  async close(): Promise<void> {
    await this.#killSidecar();
    this.#worker.stdin?.end();
    if (this.#worker.exitCode === null) await once(this.#worker, "exit");
  }

  async #killSidecar(): Promise<void> {
    const { sidecar } = this;
    if (sidecar === null || sidecar.exitCode !== null || sidecar.signalCode !== null) return;
    sidecar.kill("SIGKILL");
    await once(sidecar, "exit");
  }
}

/** Waits for a condition, with a bound that only a failure reaches, also on a machine that is busy with other things. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  withinMs = 30_000,
): Promise<void> {
  const stopAtMs = performance.now() + withinMs;
  while (!(await condition())) {
    if (performance.now() > stopAtMs) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
