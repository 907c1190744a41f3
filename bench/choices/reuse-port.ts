/** Loaded before a program (`--import`): all that it listens on is shared with others that listen there too (SO_REUSEPORT). */
import { Server } from "node:net";

const prototype = Server.prototype as unknown as { listen: (this: Server, ...given: unknown[]) => Server };
const { listen } = prototype;
prototype.listen = function (...given: unknown[]): Server {
  const [options, ...more] = given;
  const isTcp = typeof options === "object" && options !== null && "port" in options;
  return listen.call(this, isTcp ? { ...options, reusePort: true } : options, ...more);
};
