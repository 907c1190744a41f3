import type { PolicySource } from "#/model/policy.ts";
import type { ProtoReader } from "#/wire/proto.ts";

export const NO_SOURCE: PolicySource = {
  group: "",
  kind: "default",
  namespace: "",
  name: "",
  section: "",
  port: 0,
};

/** `meta.Metadata`; a default has a name only. */
export function decodeSource(reader: ProtoReader): PolicySource {
  let source = NO_SOURCE;
  while (reader.next()) {
    if (reader.field === 1) source = { ...NO_SOURCE, name: reader.text() };
    else if (reader.field === 2) source = decodeResource(reader.part());
  }
  return source;
}

function decodeResource(reader: ProtoReader): PolicySource {
  const source = { ...NO_SOURCE, kind: "" };
  while (reader.next()) {
    if (reader.field === 1) source.group = reader.text();
    else if (reader.field === 2) source.kind = reader.text();
    else if (reader.field === 3) source.name = reader.text();
    else if (reader.field === 4) source.namespace = reader.text();
    else if (reader.field === 5) source.section = reader.text();
    else if (reader.field === 6) source.port = reader.uint();
  }
  return source;
}

/** No timer goes further than 24 days; whoever asks for more gets that. */
const DURATION_MS_MAX = 2 ** 31 - 1;

/** `google.protobuf.Duration`. A negative one is refused, as linkerd2-proxy does (facts §11.3). */
export function decodeDurationMs(reader: ProtoReader): number {
  let ms = 0;
  while (reader.next()) {
    if (reader.field === 1) ms += reader.int() * 1000;
    else if (reader.field === 2) ms += reader.int() / 1e6;
  }
  if (ms < 0) reader.reject("a duration is negative");
  return Math.min(ms, DURATION_MS_MAX);
}

/** Of a bound: zero stands for none. */
export function decodeTimeoutMs(reader: ProtoReader): number | null {
  return decodeDurationMs(reader) || null;
}

/** `ExponentialBackoff`, with Linkerd's defaults where it is silent. */
export interface WireBackoff {
  readonly backoff: { readonly minMs: number; readonly maxMs: number; readonly jitterRatio: number };
  readonly respectsRetryAfter: boolean;
}

export function decodeBackoff(reader: ProtoReader): WireBackoff {
  let minMs = 0;
  let maxMs = 0;
  let jitterRatio = 0;
  let respectsRetryAfter = false;
  while (reader.next()) {
    if (reader.field === 1) minMs = decodeDurationMs(reader.part());
    else if (reader.field === 2) maxMs = decodeDurationMs(reader.part());
    else if (reader.field === 3) jitterRatio = decodeShare(reader.float(), reader);
    else if (reader.field === 4) respectsRetryAfter = reader.flag();
  }
  return { backoff: { minMs, maxMs, jitterRatio }, respectsRetryAfter };
}

/** A number that must not be negative, infinite or none. */
export function decodeShare(value: number, reader: ProtoReader): number {
  if (value >= 0 && value < Infinity) return value;
  reader.reject("a ratio is no number from 0 up");
  return 0;
}
