import { call, offer, VIRTUAL_IP, type SoakCase } from "../soak-case.ts";

const HTTP1_PORT = 8141;
const HTTP2_PORT = 8142;
const HOSTILE_PORT = 8143;
const INBOUND_PORT = 4143;

export const hostile: SoakCase = {
  name: "hostile",
  what: "every attack at once, from the application, from outside of the mesh and from the server, beside good requests",
  seconds: 600,
  async prepare(stage) {
    await call(stage.server, "victims.ts", "serve", HTTP1_PORT, HTTP2_PORT, HOSTILE_PORT);
    await offer(stage, { [HTTP1_PORT]: "detect", [HTTP2_PORT]: "detect", [HOSTILE_PORT]: "detect" });
  },
  async run({ client, server, stranger, seconds }) {
    const at = (host: string, ...ports: number[]) => ports.map((port) => ({ host, port }));
    const [outbound, inbound, asked, good] = await Promise.all([
      call<Record<string, number>>(
        client,
        "hostile.ts",
        "attack",
        at(VIRTUAL_IP, HTTP1_PORT, HTTP2_PORT),
        seconds,
      ),
      call<Record<string, number>>(
        stranger,
        "hostile.ts",
        "attack",
        at(server.ip, HTTP1_PORT, HTTP2_PORT, INBOUND_PORT),
        seconds,
      ),
      call<number>(client, "victims.ts", "askHostile", VIRTUAL_IP, HOSTILE_PORT, seconds),
      call<{ answered: number; failed: number }>(
        client,
        "victims.ts",
        "askGood",
        VIRTUAL_IP,
        HTTP1_PORT,
        seconds,
      ),
    ]);
    const attempts = [...Object.values(outbound), ...Object.values(inbound)].reduce(
      (sum, one) => sum + one,
      asked,
    );
    if (good.answered === 0) throw new Error("no good request was answered");
    return `${attempts} attacks; of good requests ${good.answered} answered, ${good.failed} not`;
  },
};
