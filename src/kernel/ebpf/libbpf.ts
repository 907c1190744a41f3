/**
 * The system's libbpf through `node:ffi`: opening, loading, attaching and pinning, and maps by file descriptor. Everything
 * that crosses into native code is here; pointers do not leave this file except as opaque `Program` and `BpfObject`.
 *
 * libbpf 1.0 or newer: its functions then return negative error numbers, and NULL with errno where they return pointers.
 */
import ffi from "node:ffi";
import { closeSync } from "node:fs";
import { release } from "node:os";
import { InterceptionError, VerifierError } from "../errors.ts";
import { errno } from "../libc.ts";

const LIBRARY = "libbpf.so.1";
const LOG_BYTES_MAX = 64 * 1024;
const LOG_LINES_MAX = 64;

const SIGNATURES = {
  libbpf_set_print: { arguments: ["pointer"], return: "pointer" },
  bpf_object__open_file: { arguments: ["string", "pointer"], return: "pointer" },
  bpf_object__load: { arguments: ["pointer"], return: "int32" },
  bpf_object__close: { arguments: ["pointer"], return: "void" },
  bpf_object__next_program: { arguments: ["pointer", "pointer"], return: "pointer" },
  bpf_object__next_map: { arguments: ["pointer", "pointer"], return: "pointer" },
  bpf_map__name: { arguments: ["pointer"], return: "pointer" },
  bpf_map__set_pin_path: { arguments: ["pointer", "string"], return: "int32" },
  bpf_program__fd: { arguments: ["pointer"], return: "int32" },
  bpf_program__attach_cgroup: { arguments: ["pointer", "int32"], return: "pointer" },
  bpf_program__attach_netns: { arguments: ["pointer", "int32"], return: "pointer" },
  bpf_link__pin: { arguments: ["pointer", "string"], return: "int32" },
  bpf_link__destroy: { arguments: ["pointer"], return: "int32" },
  bpf_link_update: { arguments: ["int32", "int32", "pointer"], return: "int32" },
  bpf_link_detach: { arguments: ["int32"], return: "int32" },
  bpf_obj_get: { arguments: ["string"], return: "int32" },
  bpf_obj_get_info_by_fd: { arguments: ["int32", "buffer", "buffer"], return: "int32" },
  bpf_map_lookup_elem: { arguments: ["int32", "buffer", "buffer"], return: "int32" },
  bpf_map_update_elem: { arguments: ["int32", "buffer", "buffer", "uint64"], return: "int32" },
  bpf_map_delete_elem: { arguments: ["int32", "buffer"], return: "int32" },
  bpf_map_get_next_key: { arguments: ["int32", "pointer", "buffer"], return: "int32" },
} as const;

const ENOENT = 2;

/** A loaded program. Valid until its object is closed. */
export type Program = bigint & { readonly __program: never };

/** What a BPF link is attached to now. */
export interface LinkInfo {
  readonly programId: number;
  /** cgroup: its directory's inode number. netns: the namespace file's. 0 when the target is gone. */
  readonly targetInode: bigint;
}

type Functions = ReturnType<typeof ffi.dlopen<typeof SIGNATURES>>["functions"];

export class Libbpf {
  readonly #lib: Functions;
  readonly #log: string[];

  /** Throws `InterceptionError` "UNSUPPORTED" when the library is not installed. */
  constructor() {
    const { functions, log } = openLibrary();
    this.#lib = functions;
    this.#log = log;
  }

  /**
   * Opens and loads one object file. Maps whose name `pinOf` gives a path for are taken from there, or created and
   * pinned there. Throws `VerifierError` or `InterceptionError` "LOAD_FAILED"; close the object when attached.
   */
  load(file: string, pinOf: (map: string) => string): BpfObject {
    this.#log.length = 0;
    const object = this.#lib.bpf_object__open_file(file, 0n);
    if (object === 0n)
      throw new InterceptionError("LOAD_FAILED", `cannot open ${file}: ${this.#reason(errno())}`);
    try {
      for (let map = 0n; (map = this.#lib.bpf_object__next_map(object, map)) !== 0n;) {
        const name = ffi.toString(this.#lib.bpf_map__name(map)) ?? "";
        // The compiler's own constants (`connect6.rodata`): nothing to share or keep.
        if (name.includes(".")) continue;
        const error = this.#lib.bpf_map__set_pin_path(map, pinOf(name));
        if (error !== 0)
          throw new InterceptionError("LOAD_FAILED", `cannot pin map ${name}: ${this.#reason(error)}`);
      }
      const error = this.#lib.bpf_object__load(object);
      if (error !== 0) throw this.#loadError(file, error);
      const program = this.#lib.bpf_object__next_program(object, 0n) as Program;
      return {
        program,
        fd: this.#lib.bpf_program__fd(program),
        close: () => this.#lib.bpf_object__close(object),
      };
    } catch (error) {
      this.#lib.bpf_object__close(object);
      throw error;
    }
  }

  /** Attaches and pins: the pin, not this process, keeps the program attached. */
  attachAndPin(program: Program, target: "cgroup" | "netns", targetFd: number, path: string): void {
    this.#log.length = 0;
    const link =
      target === "cgroup"
        ? this.#lib.bpf_program__attach_cgroup(program, targetFd)
        : this.#lib.bpf_program__attach_netns(program, targetFd);
    if (link === 0n)
      throw new InterceptionError(
        "ATTACH_FAILED",
        `cannot attach to the ${target}: ${this.#reason(errno())}`,
      );
    const error = this.#lib.bpf_link__pin(link, path);
    this.#lib.bpf_link__destroy(link);
    if (error !== 0) throw new InterceptionError("PIN_FAILED", `cannot pin ${path}: ${this.#reason(error)}`);
  }

  /** Puts another program behind an existing link, atomically. */
  replaceProgram(linkFd: number, programFd: number): void {
    const error = this.#lib.bpf_link_update(linkFd, programFd, 0n);
    if (error !== 0)
      throw new InterceptionError("ATTACH_FAILED", `cannot replace a program: ${this.#reason(error)}`);
  }

  detach(linkFd: number): void {
    // A link whose cgroup or namespace is gone is detached already, and says so with an error.
    this.#lib.bpf_link_detach(linkFd);
  }

  /** Opens what is pinned at `path`; null when nothing is. The caller closes the descriptor. */
  open(path: string): number | null {
    const fd = this.#lib.bpf_obj_get(path);
    if (fd >= 0) return fd;
    if (fd === -ENOENT) return null;
    throw new InterceptionError("PIN_FAILED", `cannot open ${path}: ${this.#reason(fd)}`);
  }

  linkInfo(linkFd: number): LinkInfo {
    // struct bpf_link_info: type, id, prog_id, then a union at 16 that begins with the target's inode number, which
    // is 64 bits wide for a cgroup and 32 for a network namespace.
    const BPF_LINK_TYPE_CGROUP = 3;
    const info = this.#info(linkFd, 64);
    const targetInode =
      info.readUInt32LE(0) === BPF_LINK_TYPE_CGROUP
        ? info.readBigUInt64LE(16)
        : BigInt(info.readUInt32LE(16));
    return { programId: info.readUInt32LE(8), targetInode };
  }

  lookup(mapFd: number, key: Buffer, value: Buffer): boolean {
    const error = this.#lib.bpf_map_lookup_elem(mapFd, key, value);
    if (error === 0) return true;
    if (error === -ENOENT) return false;
    throw new InterceptionError("MAP_FAILED", `cannot read a map: ${this.#reason(error)}`);
  }

  put(mapFd: number, key: Buffer, value: Buffer): void {
    const error = this.#lib.bpf_map_update_elem(mapFd, key, value, 0n);
    if (error !== 0) throw new InterceptionError("MAP_FAILED", `cannot write a map: ${this.#reason(error)}`);
  }

  delete(mapFd: number, key: Buffer): void {
    const error = this.#lib.bpf_map_delete_elem(mapFd, key);
    if (error !== 0 && error !== -ENOENT)
      throw new InterceptionError("MAP_FAILED", `cannot delete from a map: ${this.#reason(error)}`);
  }

  /** Every key of a map, at most `keysMax` of them. The map may change meanwhile; then some may come twice or not. */
  keys(mapFd: number, keyBytes: number, keysMax: number): Buffer[] {
    const keys: Buffer[] = [];
    let previous: Buffer | null = null;
    while (keys.length < keysMax) {
      const next: Buffer = Buffer.alloc(keyBytes);
      const at = previous === null ? 0n : ffi.getRawPointer(previous);
      const error = this.#lib.bpf_map_get_next_key(mapFd, at, next);
      if (error === -ENOENT) break;
      if (error !== 0) throw new InterceptionError("MAP_FAILED", `cannot list a map: ${this.#reason(error)}`);
      keys.push(next);
      previous = next;
    }
    return keys;
  }

  close(fd: number): void {
    closeSync(fd);
  }

  #info(fd: number, bytes: number): Buffer {
    const info = Buffer.alloc(bytes);
    const size = Buffer.alloc(4);
    size.writeUInt32LE(bytes, 0);
    const error = this.#lib.bpf_obj_get_info_by_fd(fd, info, size);
    if (error !== 0)
      throw new InterceptionError("MAP_FAILED", `cannot query an object: ${this.#reason(error)}`);
    return info;
  }

  #loadError(file: string, error: number): Error {
    const log = this.#log.join("");
    const refused = /-- BEGIN PROG LOAD LOG --\n([\s\S]*?)-- END PROG LOAD LOG --/.exec(log);
    if (refused?.[1] !== undefined) {
      const program = /prog '([^']+)'/.exec(log)?.[1] ?? file;
      return new VerifierError(program, release(), refused[1]);
    }
    return new InterceptionError("LOAD_FAILED", `cannot load ${file}: ${this.#reason(error)}`);
  }

  /** The error number in words, and what libbpf said last. */
  #reason(error: number): string {
    const code = Math.abs(error);
    const hint = code === 1 ? " (not permitted: root, or CAP_BPF with CAP_NET_ADMIN, is needed)" : "";
    const said = this.#log.at(-1)?.trim();
    return `error ${code}${hint}${said === undefined || said === "" ? "" : `, ${said}`}`;
  }
}

export interface BpfObject {
  /** The only program of the object. */
  readonly program: Program;
  readonly fd: number;
  close(): void;
}

let opened: { functions: Functions; log: string[] } | null = null;

/** Once per process: libbpf has one global print function. */
function openLibrary(): { functions: Functions; log: string[] } {
  if (opened !== null) return opened;
  let library;
  try {
    library = ffi.dlopen(LIBRARY, SIGNATURES);
  } catch (cause) {
    throw new InterceptionError(
      "UNSUPPORTED",
      `${LIBRARY} cannot be loaded: install libbpf 1.0 or newer (Debian: libbpf1)`,
      {
        cause,
      },
    );
  }
  const log: string[] = [];
  const { functions: libc } = ffi.dlopen(null, {
    vsnprintf: { arguments: ["buffer", "uint64", "pointer", "pointer"], return: "int32" },
  });
  const line = Buffer.alloc(LOG_BYTES_MAX);
  // int print(level, format, va_list). A va_list argument travels as a pointer on x86-64 (System V ABI §3.5.7) and
  // on arm64 (AAPCS64 §6.8.2: a composite over 16 bytes goes by reference), so it can be handed on as one.
  const print = library.lib.registerCallback(
    { arguments: ["int32", "pointer", "pointer"], return: "int32" },
    (level, format, args): number => {
      const LIBBPF_DEBUG = 2;
      if (level === LIBBPF_DEBUG) return 0;
      const bytes = libc.vsnprintf(line, BigInt(line.length), format, args);
      if (log.length === LOG_LINES_MAX) log.shift();
      log.push(line.toString("utf8", 0, Math.min(bytes, line.length - 1)));
      return 0;
    },
  );
  library.functions.libbpf_set_print(print);
  opened = { functions: library.functions, log };
  return opened;
}
