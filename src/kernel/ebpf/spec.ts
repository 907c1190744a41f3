/**
 * What a compiled object says, read from its ELF and BTF: programs, maps and struct layouts. Pure, and the same on every
 * machine; what a kernel makes of it is another question (`libbpf.ts`).
 *
 * ELF: System V ABI, chapter 4. BTF: the kernel's Documentation/bpf/btf.rst.
 */
import { InterceptionError } from "../errors.ts";

export interface ObjectSpec {
  readonly license: string;
  /** Global functions by name, with the section that says which hook they are for. */
  readonly programs: readonly ProgramSpec[];
  readonly maps: ReadonlyMap<string, MapSpec>;
  readonly structs: ReadonlyMap<string, StructSpec>;
}

export interface ProgramSpec {
  readonly name: string;
  readonly section: string;
  readonly instructions: number;
}

export interface MapSpec {
  /** enum bpf_map_type. */
  readonly type: number;
  readonly keyBytes: number;
  readonly valueBytes: number;
  /** 0 where the kernel decides (socket storage). */
  readonly maxEntries: number;
}

export interface StructSpec {
  readonly bytes: number;
  /** Offset of each member, in bytes. */
  readonly members: ReadonlyMap<string, number>;
}

/** Throws `InterceptionError` "LOAD_FAILED" on anything that is not a little-endian BPF object with BTF. */
export function readSpec(bytes: Uint8Array): ObjectSpec {
  try {
    const sections = readSections(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    const btf = new Btf(needed(sections, ".BTF"));
    const license = sections.find((section) => section.name === "license")?.data;
    const code = sections.filter((section) => section.executable && section.data.length > 0);
    const names = btf.globalFunctions();
    return {
      license: license === undefined ? "" : textAt(license, 0),
      programs: code.map((section, i) => ({
        name: names[i] ?? "",
        section: section.name,
        instructions: section.data.length / INSTRUCTION_BYTES,
      })),
      maps: btf.maps(),
      structs: btf.structs(),
    };
  } catch (cause) {
    if (cause instanceof InterceptionError) throw cause;
    throw new InterceptionError(
      "LOAD_FAILED",
      "this is no BPF object with BTF: build it with `node bpf/build.ts`",
      { cause },
    );
  }
}

const INSTRUCTION_BYTES = 8;

interface Section {
  readonly name: string;
  readonly executable: boolean;
  readonly data: Buffer;
}

function readSections(elf: Buffer): Section[] {
  const EM_BPF = 247;
  const SHT_NOBITS = 8;
  const SHF_EXECINSTR = 4n;
  // 0x7f "ELF", 64-bit, little-endian.
  if (
    elf.length < 64 ||
    elf.readUInt32BE(0) !== 0x7f454c46 ||
    elf.readUInt16BE(4) !== 0x0201 ||
    elf.readUInt16LE(18) !== EM_BPF
  )
    throw new InterceptionError("LOAD_FAILED", "this is no little-endian ELF object for BPF");
  const headersAt = Number(elf.readBigUInt64LE(40));
  const headerBytes = elf.readUInt16LE(58);
  const count = elf.readUInt16LE(60);
  const header = (i: number): Buffer => slice(elf, headersAt + i * headerBytes, 64);
  const body = (of: Buffer): Buffer =>
    of.readUInt32LE(4) === SHT_NOBITS
      ? Buffer.alloc(0)
      : slice(elf, Number(of.readBigUInt64LE(24)), Number(of.readBigUInt64LE(32)));
  const names = body(header(elf.readUInt16LE(62)));
  return Array.from({ length: count }, (_, i) => {
    const of = header(i);
    return {
      name: textAt(names, of.readUInt32LE(0)),
      executable: (of.readBigUInt64LE(8) & SHF_EXECINSTR) !== 0n,
      data: body(of),
    };
  });
}

const Kind = {
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  TYPEDEF: 8,
  VOLATILE: 9,
  CONST: 10,
  RESTRICT: 11,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  DECL_TAG: 17,
  TYPE_TAG: 18,
  ENUM64: 19,
} as const;

interface Type {
  readonly name: string;
  readonly kind: number;
  readonly vlen: number;
  /** A size or another type's id, by kind. */
  readonly sizeOrType: number;
  /** What follows the common part, by kind. */
  readonly extra: Buffer;
}

interface Member {
  readonly name: string;
  readonly type: number;
  readonly offset: number;
}

class Btf {
  readonly #strings: Buffer;
  readonly #types: Type[] = [{ name: "void", kind: 0, vlen: 0, sizeOrType: 0, extra: Buffer.alloc(0) }];

  constructor(data: Buffer) {
    const BTF_MAGIC = 0xeb9f;
    if (data.readUInt16LE(0) !== BTF_MAGIC)
      throw new InterceptionError("LOAD_FAILED", "the object's BTF is damaged");
    const headerBytes = data.readUInt32LE(4);
    const types = slice(data, headerBytes + data.readUInt32LE(8), data.readUInt32LE(12));
    this.#strings = slice(data, headerBytes + data.readUInt32LE(16), data.readUInt32LE(20));
    for (let at = 0; at < types.length;) {
      const info = types.readUInt32LE(at + 4);
      const kind = (info >>> 24) & 0x1f;
      const vlen = info & 0xffff;
      const extraBytes = extraBytesOf(kind, vlen);
      this.#types.push({
        name: textAt(this.#strings, types.readUInt32LE(at)),
        kind,
        vlen,
        sizeOrType: types.readUInt32LE(at + 8),
        extra: slice(types, at + 12, extraBytes),
      });
      at += 12 + extraBytes;
    }
  }

  /** In the order of the source, which is the order of their sections. */
  globalFunctions(): string[] {
    const BTF_FUNC_GLOBAL = 1;
    return this.#types
      .filter((type) => type.kind === Kind.FUNC && type.vlen === BTF_FUNC_GLOBAL)
      .map((type) => type.name);
  }

  structs(): Map<string, StructSpec> {
    const named = this.#types.filter((type) => type.kind === Kind.STRUCT && type.name !== "");
    return new Map(
      named.map((type) => [
        type.name,
        {
          bytes: type.sizeOrType,
          members: new Map(this.#members(type).map((member) => [member.name, member.offset])),
        },
      ]),
    );
  }

  /** A map is a variable in .maps whose struct's members say by their types what others say by values. */
  maps(): Map<string, MapSpec> {
    const section = this.#types.find((type) => type.kind === Kind.DATASEC && type.name === ".maps");
    const maps = new Map<string, MapSpec>();
    for (let i = 0; i < (section?.vlen ?? 0); i++) {
      const variable = this.#type(section?.extra.readUInt32LE(12 * i) ?? 0);
      const members = new Map(
        this.#members(this.#type(variable.sizeOrType)).map((member) => [member.name, member.type]),
      );
      maps.set(variable.name, {
        type: this.#numberOf(members.get("type")),
        keyBytes: this.#pointeeBytes(members.get("key")),
        valueBytes: this.#pointeeBytes(members.get("value")),
        maxEntries: this.#numberOf(members.get("max_entries")),
      });
    }
    return maps;
  }

  #members(type: Type): Member[] {
    if (type.kind !== Kind.STRUCT) return [];
    return Array.from({ length: type.vlen }, (_, i) => ({
      name: textAt(this.#strings, type.extra.readUInt32LE(12 * i)),
      type: type.extra.readUInt32LE(12 * i + 4),
      offset: (type.extra.readUInt32LE(12 * i + 8) & 0xffffff) / 8,
    }));
  }

  /** `int (*x)[N]` says N. */
  #numberOf(id: number | undefined): number {
    if (id === undefined) return 0;
    const array = this.#type(this.#type(id).sizeOrType);
    return array.kind === Kind.ARRAY ? array.extra.readUInt32LE(8) : 0;
  }

  #pointeeBytes(id: number | undefined): number {
    return id === undefined ? 0 : this.#bytes(this.#type(id).sizeOrType);
  }

  #bytes(id: number): number {
    let type = this.#type(id);
    // Names for types, at most as deep as there are types.
    for (let depth = 0; ALIASES.has(type.kind) && depth < this.#types.length; depth++)
      type = this.#type(type.sizeOrType);
    return type.sizeOrType;
  }

  #type(id: number): Type {
    const type = this.#types[id];
    if (type === undefined)
      throw new InterceptionError("LOAD_FAILED", `the object's BTF names a type ${id} that it does not have`);
    return type;
  }
}

const ALIASES: ReadonlySet<number> = new Set([
  Kind.TYPEDEF,
  Kind.VOLATILE,
  Kind.CONST,
  Kind.RESTRICT,
  Kind.TYPE_TAG,
]);

function extraBytesOf(kind: number, vlen: number): number {
  switch (kind) {
    case Kind.INT:
    case Kind.VAR:
    case Kind.DECL_TAG:
      return 4;
    case Kind.ARRAY:
      return 12;
    case Kind.STRUCT:
    case Kind.UNION:
    case Kind.DATASEC:
    case Kind.ENUM64:
      return 12 * vlen;
    case Kind.ENUM:
    case Kind.FUNC_PROTO:
      return 8 * vlen;
    default:
      return 0;
  }
}

function needed(sections: readonly Section[], name: string): Buffer {
  const found = sections.find((section) => section.name === name);
  if (found === undefined) throw new InterceptionError("LOAD_FAILED", `the object has no section ${name}`);
  return found.data;
}

/** Unlike `subarray`, does not quietly give less than was asked for. */
function slice(bytes: Buffer, at: number, length: number): Buffer {
  if (at + length > bytes.length) throw new InterceptionError("LOAD_FAILED", "the object is cut short");
  return bytes.subarray(at, at + length);
}

function textAt(bytes: Buffer, at: number): string {
  const end = bytes.indexOf(0, at);
  return bytes.toString("latin1", at, end === -1 ? bytes.length : end);
}
