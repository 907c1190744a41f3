import { call, offer, VIRTUAL_IP, type SoakCase } from "../soak-case.ts";

const PORT = 8121;
const STREAMS = 1000;

export const streams: SoakCase = {
  name: "streams",
  what: `${STREAMS} concurrent streams on one HTTP/2 connection, talking both ways`,
  seconds: 75,
  async prepare(stage) {
    await call(stage.server, "streams.ts", "serve", PORT);
    await offer(stage, { [PORT]: "detect" });
  },
  async run({ client, seconds }) {
    const done = await call<{ messages: number; streams: number }>(
      client,
      "streams.ts",
      "talk",
      VIRTUAL_IP,
      PORT,
      STREAMS,
      seconds,
    );
    if (done.streams !== STREAMS) throw new Error(`${done.streams} of ${STREAMS} streams lasted`);
    return `${done.messages} messages echoed`;
  },
};
