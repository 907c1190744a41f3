import type { Command } from "commander";
import { InvalidArgumentError, Option } from "commander";
import type { InstancePaths } from "../instance-paths.ts";

export interface CommandParts {
  readonly paths: (options: { instance: string }) => InstancePaths;
  readonly print: (text: string) => void;
  readonly warn: (text: string) => void;
}

/** `pillion authz …`. What does the work is loaded when it is asked for. */
export function addAuthzCommands(program: Command, { paths, print, warn }: CommandParts): void {
  const authz = program
    .command("authz")
    .description("Who may call whom, who does, and what a policy would change.")
    .exitOverride();
  const command = (name: string, description: string): Command =>
    authz
      .command(name)
      .description(description)
      .showHelpAfterError(`(see: pillion authz ${name} --help)`)
      .option("--instance <name>", "which mesh on this machine", "default")
      .exitOverride();
  const output = (): Option =>
    new Option("-o, --output <format>", "how to print").choices(["text", "json"]).default("text");

  command("flows", "Show who called what, and what was decided. With -o json: for suggest and test.")
    .option("-n, --namespace <name>", "of servers there; of all if not given")
    .option("--refused", "only what was refused, or would be without audit mode", false)
    .addOption(output())
    .action(async (options: { instance: string; namespace?: string; refused: boolean; output: string }) => {
      const { flows } = await import("./authz.ts");
      const { namespace = null, refused, output: format } = options;
      await flows(paths(options), { namespace, refused, json: format === "json" }, print, warn);
    });

  command("suggest", "Write the smallest policies that allow what was seen, as YAML for the folder.")
    .option("-n, --namespace <name>", "for servers there; for all if not given")
    .option("--from <file...>", "flows that were saved; those of the running mesh if not given")
    .addOption(
      new Option("--level <level>", "who may use which port, or also for which requests")
        .choices(["network", "requests"])
        .default("network"),
    )
    .addOption(
      new Option("--mode <mode>", "Audit changes nothing, and counts what Enforce would refuse")
        .choices(["Audit", "Enforce"])
        .default("Audit"),
    )
    .action(
      async (options: {
        instance: string;
        namespace?: string;
        from?: string[];
        level: "network" | "requests";
        mode: "Audit" | "Enforce";
      }) => {
        const { suggestPolicies } = await import("./authz.ts");
        const { namespace = null, from = [], level, mode } = options;
        await suggestPolicies(paths(options), { namespace, from, level, mode }, print, warn);
      },
    );

  command("test", "Try a folder on what was seen. Exit code 1 when something that works would be denied.")
    .requiredOption("-f, --folder <folder>", "the folder of Kubernetes YAML, as it would be")
    .option("--flows <file...>", "flows that were saved; those of the running mesh if not given")
    .option("--enforced", "as if no policy were in mode Audit", false)
    .addOption(output())
    .action(
      async (options: {
        instance: string;
        folder: string;
        flows?: string[];
        enforced: boolean;
        output: string;
      }) => {
        const { testFolder } = await import("./authz.ts");
        const { folder, flows = [], enforced, output: format } = options;
        process.exitCode = await testFolder(
          paths(options),
          { folder, flows, enforced, json: format === "json" },
          print,
          warn,
        );
      },
    );

  command("explain", "Say who may do what at a server, and which rule and line says so.")
    .argument(
      "<client>",
      "a workload, as deployment/front, or a pod; or an address, for one without identity",
    )
    .argument("<server>", "a Service, as web, web.shop or web.shop:80; or a workload, as deployment/web")
    .option("-n, --namespace <name>", "of the client; anywhere if not given")
    .option("--port <port>", "of the Service, or of the workload's pods; all if not given", portNumber)
    .option("--method <method>", "of a request; GET if only --path is given")
    .option("--path <path>", "of a request, with its query; what may be asked at all, if not given")
    .option("-H, --header <header>", "of the request, as 'name: value'; may be repeated", collected, [])
    .option("-f, --folder <folder>", "by a folder, as if all of it were ready; no mesh has to run")
    .addOption(output())
    .action(
      async (
        client: string,
        server: string,
        options: {
          instance: string;
          namespace?: string;
          port?: number;
          method?: string;
          path?: string;
          header: readonly string[];
          folder?: string;
          output: string;
        },
      ) => {
        const [{ explainWho }, { headerOf }] = await Promise.all([
          import("./authz.ts"),
          import("../explain/explain.ts"),
        ]);
        const { namespace = null, port = null, method, path, header, folder = null } = options;
        const isDefinite = method !== undefined || path !== undefined || header.length > 0;
        const request = { method: method ?? "GET", path: path ?? "/", headers: header.map(headerOf) };
        await explainWho(
          paths(options),
          {
            question: { client, namespace, server, port, request: isDefinite ? request : null },
            folder,
            json: options.output === "json",
          },
          print,
          warn,
        );
      },
    );

  command("matrix", "Show who may use what, and who was seen to.")
    .option("-n, --namespace <name>", "of servers; of all if not given")
    .option("-f, --folder <folder>", "by a folder, as if all of it were ready; no mesh has to run")
    .addOption(
      new Option("-o, --output <format>", "how to print").choices(["text", "json", "svg"]).default("text"),
    )
    .action(
      async (options: {
        instance: string;
        namespace?: string;
        folder?: string;
        output: "text" | "json" | "svg";
      }) => {
        const { printMatrix } = await import("./authz.ts");
        const { namespace = null, folder = null, output: format } = options;
        await printMatrix(paths(options), { namespace, folder, output: format }, print, warn);
      },
    );
}

function portNumber(text: string): number {
  const value = Number(text);
  if (text === "" || !Number.isInteger(value) || value < 1 || value > 65_535)
    throw new InvalidArgumentError("It must be a port, such as 80.");
  return value;
}

function collected(text: string, before: readonly string[]): readonly string[] {
  return [...before, text];
}
