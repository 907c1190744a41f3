import { MeshError, type Blame } from "#/base/errors.ts";

export type InterceptionErrorCode =
  | "UNSUPPORTED" // kernel, library or privileges do not allow it
  | "LOAD_FAILED" // an object could not be opened or loaded, other than by the verifier
  | "ATTACH_FAILED" // a program could not be attached to a cgroup or network namespace
  | "MAP_FAILED" // a map could not be opened, read or written
  | "PIN_FAILED" // the BPF file system could not be used
  | "RULES_FAILED" // nft refused the rules
  | "BAD_INPUT"; // an address, CIDR or port that is none, or more than fits

/** Interception could not be put in place, changed or read. Traffic is then as it was before the call. */
export class InterceptionError extends MeshError {
  override readonly name = "InterceptionError";
  readonly code: InterceptionErrorCode;
  readonly blame: Blame;
  constructor(code: InterceptionErrorCode, message: string, options?: { cause?: unknown; blame?: Blame }) {
    super(message, options);
    this.code = code;
    this.blame = options?.blame ?? "operator";
  }
}

/** The kernel's verifier refused a program: a kernel too old for it, or a bug of ours. */
export class VerifierError extends MeshError {
  override readonly name = "VerifierError";
  readonly code = "VERIFIER_REFUSED";
  readonly blame = "us";
  /** The verifier's whole log, at most 64 KiB of it. */
  readonly log: string;
  constructor(program: string, release: string, log: string) {
    super(
      `the kernel refused program ${program}: ${usefulLines(log).join(" | ")}; check that the kernel (${release}) is 5.10 or newer, and report this if it is`,
    );
    this.log = log;
  }
}

/** The verifier's last words before its statistics: the instruction, the source line, the complaint. */
export function usefulLines(log: string, linesMax = 3): string[] {
  const lines = log
    .split("\n")
    .map((line) => line.trim())
    .filter(
      (line) =>
        line !== "" &&
        !/^(processed \d+ insns|-- (BEGIN|END) PROG LOAD LOG|verification time|stack depth|max_states)/.test(
          line,
        ),
    );
  return lines.slice(-linesMax);
}
