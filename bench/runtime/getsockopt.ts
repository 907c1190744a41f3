import type * as NodeFfi from "node:ffi";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

/** `getsockopt` of an int through either runtime's FFI; throws when the descriptor is not a socket. */
export const getsockoptInt: (fd: number, level: number, option: number) => number =
  "Bun" in globalThis ? bindBun() : bindNode();

function bindNode(): typeof getsockoptInt {
  const ffi = require("node:ffi") as typeof NodeFfi;
  const { functions } = ffi.dlopen("libc.so.6", {
    getsockopt: { return: "int32", arguments: ["int32", "int32", "int32", "buffer", "buffer"] },
  } as const);
  return through((fd, level, option, value, length) =>
    functions.getsockopt(fd, level, option, value, length),
  );
}

function bindBun(): typeof getsockoptInt {
  type Bind = (path: string, definitions: object) => { symbols: { getsockopt: Call } };
  const { dlopen } = require("bun:ffi") as { dlopen: Bind };
  const definitions = { getsockopt: { returns: "i32", args: ["i32", "i32", "i32", "ptr", "ptr"] } };
  return through(dlopen("libc.so.6", definitions).symbols.getsockopt);
}

type Call = (fd: number, level: number, option: number, value: Buffer, length: Buffer) => number;

function through(call: Call): typeof getsockoptInt {
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  return (fd, level, option) => {
    length.writeInt32LE(4);
    if (call(fd, level, option, value, length) !== 0)
      throw new Error(`getsockopt failed on descriptor ${fd}`);
    return value.readInt32LE();
  };
}
