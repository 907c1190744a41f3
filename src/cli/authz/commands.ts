import type { Command } from "commander";
import { Option } from "commander";
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
}
