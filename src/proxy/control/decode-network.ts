import type { NetworkMatch } from "#/model/access.ts";
import type { ProtoReader } from "#/wire/proto.ts";
import { decodeIp } from "./decode-endpoint.ts";

/** `inbound.Network`, and `pillion.access.Source.Network`, which is built alike. Null: it cannot be read. */
export function decodeNetwork(reader: ProtoReader): NetworkMatch | null {
  let net: string | null = null;
  const except: string[] = [];
  while (reader.next()) {
    if (reader.field === 1) net = networkText(reader.message());
    else if (reader.field === 2) {
      const one = networkText(reader.message());
      // An exception that cannot be read would let in whom it should keep out.
      if (one === null) return null;
      except.push(one);
    }
  }
  return net === null || reader.error !== null ? null : { net, except };
}

function networkText(reader: ProtoReader): string | null {
  let ip: string | null = null;
  let prefixBits = 0;
  while (reader.next()) {
    if (reader.field === 1) ip = decodeIp(reader.message());
    else if (reader.field === 2) prefixBits = reader.uint();
  }
  return ip === null || reader.error !== null ? null : `${ip}/${prefixBits}`;
}
