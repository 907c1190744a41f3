import type { Fields } from "#/base/fields.ts";
import { fieldValue, keepNeverIndexed } from "#/base/fields.ts";
import { encodeGrpcTimeout, parseGrpcTimeout } from "#/wire/grpc.ts";

const NAME = "grpc-timeout";

/** The client's own deadline, in milliseconds from when its head came; null where it set none, or one that cannot be read. */
export function grpcTimeoutMs(fields: Fields): number | null {
  const value = fieldValue(fields, NAME);
  return value === null ? null : parseGrpcTimeout(value);
}

/** With so much time left for the server, in place of what the client said or in addition. In whole milliseconds, rounded up. */
export function withGrpcTimeout(fields: Fields, leftMs: number): Fields {
  const out: Fields = [];
  let isSaid = false;
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    if (name !== NAME) out.push(name, fields[i + 1] as string);
    else if (!isSaid) {
      isSaid = true;
      out.push(NAME, encodeGrpcTimeout(leftMs));
    }
  }
  if (!isSaid) out.push(NAME, encodeGrpcTimeout(leftMs));
  keepNeverIndexed(fields, out);
  return out;
}
