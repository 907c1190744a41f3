import { call, offer, VIRTUAL_IP, type SoakCase } from "../soak-case.ts";

const PORT = 8131;
const CONNECTIONS = 8;
/** Each way on each connection. */
const BYTES = 256 * 1024 ** 2;

export const opaque: SoakCase = {
  name: "opaque",
  what: `${CONNECTIONS} opaque connections with 256 MiB each way to slow readers`,
  seconds: 75,
  async prepare(stage) {
    await call(stage.server, "bulk.ts", "serve", PORT, BYTES, Math.ceil(BYTES / stage.seconds));
    await offer(stage, { [PORT]: "opaque" });
  },
  async run({ client, seconds }) {
    const pace = Math.ceil(BYTES / seconds);
    const bytes = await call<number>(
      client,
      "bulk.ts",
      "exchange",
      VIRTUAL_IP,
      PORT,
      CONNECTIONS,
      BYTES,
      pace,
    );
    if (bytes !== CONNECTIONS * BYTES) throw new Error(`${bytes} of ${CONNECTIONS * BYTES} bytes came`);
    return `${(bytes / 1024 ** 3).toFixed(1)} GiB each way`;
  },
};
