import { readFileSync } from "node:fs";
import { release } from "node:os";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { printable } from "#/base/printable.ts";
import { addAuthzCommands } from "./authz/commands.ts";
import { check, findingLine } from "./check.ts";
import { completion } from "./completion.ts";
import { edges } from "./edges/edges.ts";
import { exec } from "./exec.ts";
import { CommandError } from "./exit.ts";
import type { InstancePaths } from "./instance-paths.ts";
import { instancePaths, isRootsInstead } from "./instance-paths.ts";
import { get } from "./get.ts";
import type { GetOptions } from "./get.ts";
import { logs } from "./logs.ts";
import { DEFAULT_POD_CIDR, DEFAULT_SERVICE_CIDR, network } from "./networks.ts";
import { AgentAway } from "./operator.ts";
import { closeMachine, findMachine, isOrdinaryUser, runInside } from "./own-machine.ts";
import { rolloutRestart, rolloutStatus } from "./rollout.ts";
import { stat } from "./stat/stat.ts";
import { status } from "./status.ts";
import type { UpOptions } from "./up.ts";
import { countOf, down, statusIfRunning, up } from "./up.ts";

/** The operator's command. Sets `process.exitCode`; errors end as one message on standard error. */
export async function runCli(argv: readonly string[]): Promise<void> {
  const program = makeProgram();
  // A reader that went away (`pillion logs | head`) is no error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
  try {
    await program.parseAsync(argv);
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? 0 : 2;
    } else if (error instanceof CommandError) {
      process.stderr.write(`pillion: ${printable(error.message, true)}\n`);
      process.exitCode = error.exitCode;
    } else throw error;
  }
}

/** What is shown comes from manifests, peers and programs as well as from us: none of it may steer the terminal. */
const print = (text: string): void => void process.stdout.write(`${printable(text, true)}\n`);
const printProgress = (line: string): void => void process.stderr.write(`${printable(line, true)}\n`);

/** All commands; nothing is done before one is parsed. */
export function makeProgram(): Command {
  const program = new Command("pillion");
  program
    .description("A sidecar service mesh with eBPF beside it, on one Linux machine.")
    .version(versionLine(), "-V, --version", "print the version")
    .showHelpAfterError("(see: pillion --help)")
    .addHelpText(
      "after",
      `
Begin with:
  pillion check                what this machine lacks
  pillion demo                 a meshed shop, with live figures
  pillion up -f FOLDER         your own YAML, as meshed pods
  pillion bench                what a sidecar costs beside other proxies (in a checkout, as root)
`,
    )
    .exitOverride()
    .enablePositionalOptions();

  const command = (name: string, description: string): Command =>
    program
      .command(name)
      .description(description)
      .showHelpAfterError(`(see: pillion ${name} --help)`)
      .option("--instance <name>", "which mesh on this machine", "default")
      .exitOverride();
  const paths = (options: { instance: string }): InstancePaths =>
    instancePaths(options.instance, process.env);
  const output = (): Option =>
    new Option("-o, --output <format>", "how to print").choices(["text", "json"]).default("text");
  const intercept = (): Option =>
    new Option("--intercept <mode>", "how traffic reaches the sidecars")
      .choices(["auto", "ebpf", "nftables", "explicit"])
      .default("auto");

  command("up", "Start the mesh of a folder of Kubernetes YAML, and wait until it is ready.")
    .requiredOption("-f, --folder <folder>", "the folder; later edits apply live")
    .option("-d, --detach", "return once everything is ready, instead of staying until Ctrl-C", false)
    .addOption(intercept())
    .option("--pod-cidr <cidr>", "addresses of pods", network, DEFAULT_POD_CIDR)
    .option("--service-cidr <cidr>", "virtual addresses of Services", network, DEFAULT_SERVICE_CIDR)
    .option("--issuer-folder <folder>", "root and issuer of an authority outside: ca.crt, tls.crt, tls.key")
    .option("--timeout <seconds>", "how long to wait until everything is ready", seconds, 120)
    .action(
      async (options: {
        instance: string;
        folder: string;
        detach: boolean;
        intercept: UpOptions["intercept"];
        podCidr: string;
        serviceCidr: string;
        issuerFolder?: string;
        timeout: number;
      }) => {
        const where = paths(options);
        const start = { ...options, timeoutSeconds: options.timeout, say: printProgress };
        const sayReady = ({ pods, node }: Awaited<ReturnType<typeof up>>): void =>
          print(
            pods.length === 0
              ? `the mesh is up, and there is no workload in ${options.folder}; what you add applies at once`
              : `${countOf(pods.length, "pod")} ${pods.length === 1 ? "is" : "are"} ready (interception: ${node.intercept})`,
          );
        if (options.detach) {
          sayReady(await up(where, start));
          return;
        }
        // Heard from the first moment: who changes their mind while it starts wants nothing left either.
        const signal = interruption();
        try {
          sayReady(await up(where, { ...start, signal }));
          printProgress("Ctrl-C ends them; in another terminal: pillion status, stat, logs, exec");
          await aborted(signal);
        } catch (error) {
          if (!signal.aborted) throw error;
        }
        printProgress("ending …");
        await down(where, printProgress);
      },
    );

  command("down", "End everything of an instance and clean up after it.").action(
    async (options: { instance: string }) => {
      const where = paths(options);
      if ((await statusIfRunning(where)) !== null) {
        await down(where, printProgress);
        print("everything has ended");
        return;
      }
      if (isRootsInstead(where)) throw new AgentAway(where);
      await sweepStopped(where);
      print(`instance "${where.name}" is not running; nothing of it is left`);
    },
  );

  command("status", "Show what runs and how it is. Exit code 1 when something is not well.")
    .addOption(output())
    .action(async (options: { instance: string; output: string }) => {
      process.exitCode = await status(paths(options), options.output === "json", print);
    });

  command("get", "Show objects of the folder, and what became of them.")
    .argument("<kind>", "such as httproute, or httproute/NAME")
    .argument("[name]", "all if not given", "")
    .option("-n, --namespace <name>", "where to look; anywhere if not given")
    .addOption(
      new Option("-o, --output <format>", "how to print")
        .choices(["text", "wide", "yaml", "json"])
        .default("text"),
    )
    .action(
      async (
        target: string,
        name: string,
        options: { instance: string; namespace?: string; output: GetOptions["output"] },
      ) => {
        const { namespace = null, output: format } = options;
        await get(paths(options), { target, name, namespace, output: format }, print);
      },
    );

  command("stat", "Show live traffic by service.")
    .addOption(output())
    .option("--once", "print one table and end", false)
    .option("--interval <seconds>", "time between tables", seconds, 2)
    .action(async (options: { instance: string; output: string; once: boolean; interval: number }) => {
      await stat(
        paths(options),
        { json: options.output === "json", once: options.once, intervalMs: options.interval * 1000 },
        print,
      );
    });

  command("edges", "Show who has talked to whom: identities, mutual TLS or why not, cipher and key exchange.")
    .addOption(output())
    .action(async (options: { instance: string; output: string }) => {
      await edges(paths(options), options.output === "json", print);
    });

  command("logs", "Print a container's log; -c pillion-sidecar for the sidecar's.")
    .argument("<pod>", "a pod, or a workload (any of its pods will do)")
    .option("-n, --namespace <name>", "where to look; anywhere if not given")
    .option("-c, --container <name>", "the first one if not given")
    .option("-f, --follow", "go on as the log grows", false)
    .option("--tail <lines>", "only the last lines; all if not given", lines)
    .action(
      async (
        pod: string,
        options: { instance: string; namespace?: string; container?: string; follow: boolean; tail?: number },
      ) => {
        await logs(
          paths(options),
          {
            pod,
            namespace: options.namespace ?? null,
            container: options.container ?? null,
            follow: options.follow,
            tailLines: options.tail ?? -1,
          },
          (bytes) => void process.stdout.write(bytes),
          printProgress,
        );
      },
    );

  command("exec", "Run a command in a container, with its exit code.")
    .argument("<pod>", "a pod, or a workload (any of its pods will do)")
    .argument("<command...>", "after --, for example: pillion exec front -- ls -l")
    .option("-n, --namespace <name>", "where to look; anywhere if not given")
    .option("-c, --container <name>", "the first one if not given")
    .option("-i, --stdin", "as kubectl's; input is always passed on")
    .option("-t, --tty", "as kubectl's; a terminal is always passed on")
    .showHelpAfterError("(a command with options stands after --: pillion exec POD -- ls -l)")
    .action(
      async (
        pod: string,
        argv: string[],
        options: { instance: string; namespace?: string; container?: string },
      ) => {
        process.exitCode = await exec(paths(options), {
          pod,
          namespace: options.namespace ?? null,
          container: options.container ?? null,
          argv,
        });
      },
    );

  const rollout = program
    .command("rollout")
    .description("Replace a workload's pods without dropping a request.")
    .exitOverride();
  for (const [name, description, act] of [
    ["restart", "Replace the pods one after another and wait until all are new.", rolloutRestart],
    ["status", "Wait until a rollout is over.", rolloutStatus],
  ] as const) {
    rollout
      .command(name)
      .description(description)
      .showHelpAfterError(`(see: pillion rollout ${name} --help)`)
      .argument("[target]", "front, or deployment/front; all workloads if not given")
      .option("--instance <name>", "which mesh on this machine", "default")
      .option("-n, --namespace <name>", "where to look; anywhere if not given")
      .option("--timeout <seconds>", "how long to wait", seconds, 300)
      .exitOverride()
      .action(
        async (
          target: string | undefined,
          options: { instance: string; namespace?: string; timeout: number },
        ) => {
          await act(
            paths(options),
            {
              target: target ?? "",
              namespace: options.namespace ?? null,
              timeoutSeconds: options.timeout,
            },
            print,
          );
        },
      );
  }

  command("check", "Inspect this machine, and the mesh if it runs: one line a finding, with the remedy.")
    .addOption(output())
    .action(async (options: { instance: string; output: string }) => {
      const findings = await check(paths(options));
      print(
        options.output === "json" ? JSON.stringify(findings, null, 2) : findings.map(findingLine).join("\n"),
      );
      process.exitCode = findings.some((finding) => finding.level === "bad") ? 1 : 0;
    });

  command("demo", "Run a small meshed shop: real redis, PostgreSQL, gRPC and HTTP, with a live table.")
    .addOption(intercept())
    .option("--once", "start, verify every claim from outside, print a line each, clean up", false)
    .action(async (options: { instance: string; intercept: UpOptions["intercept"]; once: boolean }) => {
      const { demo } = await import("./demo/demo.ts");
      const instance = options.instance === "default" ? "demo" : options.instance;
      const test = {
        withoutTls: process.env["PILLION_TEST_WITHOUT_TLS"] === "1",
        unmeshed: process.env["PILLION_TEST_UNMESHED"] ?? "",
      };
      const where = instancePaths(instance, process.env);
      if (isOrdinaryUser()) {
        // The demo looks at what crosses the pods' links, so it runs where they are.
        if ((await statusIfRunning(where)) !== null)
          throw new CommandError(
            `instance "${instance}" is already running: pillion down --instance ${instance}`,
          );
        const flags = ["--instance", instance, "--intercept", options.intercept];
        process.exitCode = await runInside(where, ["demo", ...flags, ...(options.once ? ["--once"] : [])]);
        return;
      }
      process.exitCode = await demo(
        where,
        { intercept: options.intercept, once: options.once, test },
        print,
        printProgress,
      );
    });

  const identityCommand = program
    .command("identity")
    .description("Look at the mesh's certificates, rotate its root or issuer, repair, revoke.")
    .exitOverride();
  const identity = (name: string, description: string): Command =>
    identityCommand
      .command(name)
      .description(description)
      .showHelpAfterError(`(see: pillion identity ${name} --help)`)
      .option("--instance <name>", "which mesh on this machine", "default")
      .exitOverride();

  identity("status", "Show roots, issuer, and how far a rotation is. Exit code 1 when something has expired.")
    .addOption(output())
    .action(async (options: { instance: string; output: string }) => {
      const { identityStatus } = await import("./identity/identity.ts");
      process.exitCode = await identityStatus(paths(options), options.output === "json", print);
    });

  identity(
    "rotate",
    "Replace the root, or the issuer below it, without a restart, and wait until it is done.",
  )
    .option("--root", "a new root and a new issuer", false)
    .option("--issuer", "a new issuer below the present root", false)
    .option("--dry-run", "only say what would be done, and who would be waited for", false)
    .option("--force", "do not wait for whoever does not answer: those lose contact with the others", false)
    .option("--timeout <seconds>", "how long to wait; the rotation goes on after that", seconds, 300)
    .addOption(output())
    .action(
      async (options: {
        instance: string;
        root: boolean;
        issuer: boolean;
        dryRun: boolean;
        force: boolean;
        timeout: number;
        output: string;
      }) => {
        if (options.root === options.issuer) throw new CommandError("say what: --root or --issuer", 2);
        const { identityRotate } = await import("./identity/identity.ts");
        await identityRotate(
          paths(options),
          {
            what: options.root ? "root" : "issuer",
            isDryRun: options.dryRun,
            isForced: options.force,
            timeoutSeconds: options.timeout,
            json: options.output === "json",
          },
          print,
          printProgress,
        );
      },
    );

  identity("repair", "Make anew what has expired, and wait until every pod is ready.")
    .option("--timeout <seconds>", "how long to wait", seconds, 300)
    .action(async (options: { instance: string; timeout: number }) => {
      const { identityRepair } = await import("./identity/identity.ts");
      await identityRepair(paths(options), options.timeout, print, printProgress);
    });

  identity("revoke", "Give an identity no certificate any more, and let it in nowhere.")
    .argument("<name>", "NAMESPACE/ACCOUNT, a SPIFFE ID, or a DNS name of the mesh")
    .option("--undo", "take it back into use", false)
    .action(async (name: string, options: { instance: string; undo: boolean }) => {
      const { identityRevoke } = await import("./identity/identity.ts");
      await identityRevoke(paths(options), name, options.undo, print);
    });

  command("simulate", "Play a folder's mesh on virtual time: load, and a failure. Nothing is started.")
    .requiredOption("-f, --folder <folder>", "the folder of Kubernetes YAML, as for up")
    .option(
      "-s, --scenario <file>",
      "behaviour, load, failures and expectations (docs/operating/simulate.md)",
    )
    .option("--from <workload>", "without a scenario: who sends")
    .option("--to <url>", "… where to, such as http://cart.shop/items")
    .option("--rate <requests>", "… how many a second", rate, 100)
    .option(
      "--fail <what...>",
      "… what fails for a while: WORKLOAD=errors:30%, =slow:10, =capacity:20%, =death",
    )
    .option(
      "--seed <number>",
      "another chance than the scenario's; the same gives the same, byte by byte",
      seed,
    )
    .option("--plot <file>", "draw success, latency and load over time, as SVG")
    .addOption(output())
    .action(
      async (options: {
        folder: string;
        scenario?: string;
        from?: string;
        to?: string;
        rate: number;
        fail?: string[];
        seed?: number;
        plot?: string;
        output: string;
      }) => {
        const { simulateFolder } = await import("./simulate/simulate.ts");
        process.exitCode = simulateFolder(
          {
            folder: options.folder,
            scenario: options.scenario ?? null,
            from: options.from ?? null,
            to: options.to ?? null,
            rate: options.rate,
            fail: options.fail ?? [],
            seed: options.seed ?? null,
            plot: options.plot ?? null,
            json: options.output === "json",
          },
          print,
          printProgress,
        );
      },
    );

  command("validate", "Say what the mesh would complain of in a folder. Exit code 1 when there is anything.")
    .requiredOption("-f, --folder <folder>", "the folder of Kubernetes YAML, as for up")
    .addOption(output())
    .action(async (options: { folder: string; output: string }) => {
      const { validate } = await import("./change/validate.ts");
      process.exitCode = validate({ folder: options.folder, json: options.output === "json" }, print);
    });

  command(
    "diff",
    "Show what a folder would alter, by workload. Exit code 0: nothing, 1: something, 2: an error.",
  )
    .requiredOption("-f, --folder <folder>", "the folder as it is to be")
    .option("--from <folder>", "compare with this one instead of with what the running mesh goes by")
    .addOption(output())
    .action(async (options: { instance: string; folder: string; from?: string; output: string }) => {
      const { diff } = await import("./change/diff.ts");
      process.exitCode = await diff(
        paths(options),
        { folder: options.folder, from: options.from ?? null, json: options.output === "json" },
        print,
      );
    });

  command("explain", "Explain what becomes of a request: route, backends, retries, limits, and what says so.")
    .argument("<client>", "who sends: deployment/NAME, or the name of a pod or workload")
    .argument("<service>", "where to: NAME, NAME.NAMESPACE or NAME:PORT")
    .argument("[method]", "such as POST", "GET")
    .argument("[path]", "such as /items?page=2", "/")
    .option("-H, --header <header>", "of the request, as 'name: value'; may be given again", collected, [])
    .option("--http2", "it goes over HTTP/2; for gRPC say its content-type instead", false)
    .option("-n, --namespace <name>", "where the client is; anywhere if not given")
    .option("-f, --folder <folder>", "explain by this folder, not by the running mesh")
    .addOption(output())
    .action(
      async (
        client: string,
        service: string,
        method: string,
        path: string,
        options: {
          instance: string;
          header: readonly string[];
          http2: boolean;
          namespace?: string;
          folder?: string;
          output: string;
        },
      ) => {
        const { explain, headerOf } = await import("./explain/explain.ts");
        const question = {
          client,
          namespace: options.namespace ?? null,
          service,
          method,
          path,
          headers: options.header.map(headerOf),
          isHttp2: options.http2,
        };
        const { folder = null } = options;
        await explain(
          paths(options),
          { question, folder, json: options.output === "json" },
          print,
          printProgress,
        );
      },
    );

  addAuthzCommands(program, { paths, print, warn: printProgress });

  command("version", "Print the version.")
    .addOption(output())
    .action((options: { output: string }) => {
      print(
        options.output === "json"
          ? JSON.stringify({ version: version(), node: process.versions.node, kernel: release() })
          : versionLine(),
      );
    });

  program
    .command("completion")
    .description("Print a completion script for a shell.")
    .argument("<shell>", "bash or zsh")
    .addHelpText("after", "\nIn ~/.bashrc or ~/.zshrc:\n  source <(pillion completion bash)")
    .exitOverride()
    .action((shell: string) => print(completion(program, shell)));

  return program;
}

/** Clears what an instance left whose agent is gone. */
async function sweepStopped(paths: InstancePaths): Promise<void> {
  if (isOrdinaryUser()) {
    await closeMachine(paths, findMachine(paths));
    return;
  }
  const { describeInstance } = await import("#/agent/instance.ts");
  const { sweep } = await import("#/agent/sweep.ts");
  const problems = await sweep(
    describeInstance({ ...paths, podCidr: DEFAULT_POD_CIDR, serviceCidr: DEFAULT_SERVICE_CIDR }),
  );
  if (problems.length > 0) throw new CommandError(problems.join("\n"));
}

function seconds(text: string): number {
  const value = Number(text.replace(/s$/, ""));
  if (text === "" || !Number.isFinite(value) || value <= 0)
    throw new InvalidArgumentError("It must be a number of seconds above 0, such as 30.");
  return value;
}

function collected(text: string, before: readonly string[]): readonly string[] {
  return [...before, text];
}

function rate(text: string): number {
  const value = Number(text);
  if (text === "" || !Number.isFinite(value) || value <= 0)
    throw new InvalidArgumentError("It must be a number of requests a second, such as 100.");
  return value;
}

function seed(text: string): number {
  const value = Number(text);
  if (text === "" || !Number.isInteger(value) || value < 0 || value >= 2 ** 32)
    throw new InvalidArgumentError("It must be a whole number below 4294967296.");
  return value;
}

function lines(text: string): number {
  const value = Number(text);
  // kubectl's -1 is all lines.
  if (text === "" || !Number.isInteger(value) || value < -1)
    throw new InvalidArgumentError("It must be a number of lines, such as 100.");
  return value;
}

function version(): string {
  const file = new URL("../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}

function versionLine(): string {
  return `pillion ${version()} (Node ${process.versions.node}, Linux ${release()})`;
}

/** Aborts when the operator wants an end. */
function interruption(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(name, () => controller.abort());
  return controller.signal;
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const keepAlive = setInterval(() => {}, 60_000);
    signal.addEventListener("abort", () => {
      clearInterval(keepAlive);
      resolve();
    });
  });
}
