import { spawn } from "node:child_process";

export interface CommandResult {
  /** -1 when it was killed, could not be started or took too long. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
  readonly env?: Record<string, string>;
}

/** Kept of each output stream; the rest is read and dropped. */
const OUTPUT_BYTES_MAX = 256 * 1024;

/** Runs a host tool to its end. Never throws: a tool that is missing gives -1 and says so in `stderr`. */
export function runCommand(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  return new Promise((resolve) => {
    const child = spawn(file, args, { stdio: ["pipe", "pipe", "pipe"], env: options.env ?? TOOL_ENV });
    const out: Buffer[][] = [[], []];
    const sizes = [0, 0];
    let timedOut = false;
    const collect = (which: 0 | 1) => (chunk: Buffer) => {
      if ((sizes[which] as number) < OUTPUT_BYTES_MAX) (out[which] as Buffer[]).push(chunk);
      sizes[which] = (sizes[which] as number) + chunk.length;
    };
    child.stdout.on("data", collect(0));
    child.stderr.on("data", collect(1));
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill("SIGKILL");
    }, options.timeoutMs ?? 30_000);
    const text = (which: 0 | 1): string =>
      Buffer.concat(out[which] as Buffer[])
        .toString("utf8")
        .slice(0, OUTPUT_BYTES_MAX);
    child.on("error", (error) => {
      clearTimeout(timer);
      resolve({ code: -1, stdout: "", stderr: `cannot run ${file}: ${error.message}` });
    });
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? -1, stdout: text(0), stderr: timedOut ? `${file} took too long` : text(1) });
    });
    // A tool that ends before it has read everything is judged by its exit code.
    child.stdin.on("error", () => {});
    child.stdin.end(options.input ?? "");
  });
}

/** Host tools run as root: they get no variable of the caller's environment. */
export const TOOL_ENV: Record<string, string> = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  LC_ALL: "C",
};

/** Runs it and throws with the tool's own words when it fails. */
export async function mustRun(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const result = await runCommand(file, args, options);
  if (result.code !== 0)
    throw new Error(`${file} ${args.join(" ")}: ${result.stderr.trim() || `exit code ${result.code}`}`);
  return result.stdout;
}

/** `text` as one word of a POSIX shell. */
export function shellQuote(text: string): string {
  return /^[A-Za-z0-9_./:=+,@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
