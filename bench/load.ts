/**
 * One run of a load generator as its own process (so that it can be pinned to a core or put in a namespace).
 * Usage: load.ts http|tcp|grpc|handshake|use|hold SETTINGS-AS-JSON; prints the result as JSON. `hold` goes on until it is killed.
 */
import { grpcLoad, type GrpcLoadSettings } from "./lib/grpc-load.ts";
import { handshakeLoad, type HandshakeLoadSettings } from "./lib/handshake-load.ts";
import { hold } from "./lib/idle.ts";
import { useTargets } from "./lib/mesh-size.ts";
import { openLoop, type OpenLoopSettings } from "./lib/open-loop.ts";
import { tcpLoad, type TcpLoadSettings } from "./lib/tcp-load.ts";

const [kind, text = "{}"] = process.argv.slice(2);
const settings = JSON.parse(text) as unknown;
if (kind === "hold") {
  const { place, speech } = settings as { place: string; speech: "http1" | "tcp" };
  const [host = "", port = ""] = place.split(":");
  await hold(host, Number(port), speech);
} else if (kind === "use") {
  console.log(JSON.stringify(await useTargets(settings as Parameters<typeof useTargets>[0])));
} else {
  const result =
    kind === "tcp"
      ? await tcpLoad(settings as TcpLoadSettings)
      : kind === "grpc"
        ? await grpcLoad(settings as GrpcLoadSettings)
        : kind === "handshake"
          ? await handshakeLoad(settings as HandshakeLoadSettings)
          : await openLoop(settings as OpenLoopSettings);
  console.log(JSON.stringify(result));
  process.exit(0);
}
