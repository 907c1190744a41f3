import { call, offer, VIRTUAL_IP, type SoakCase } from "../soak-case.ts";

const BODY_BYTES = 1024 ** 3;
const HTTP1_PORT = 8101;
const HTTP2_PORT = 8102;

/** The readers take as long as the case has; the writers would be done in a few seconds. */
export const bodies: SoakCase = {
  name: "bodies",
  what: "1 GiB each way to slow readers, over HTTP/1 and HTTP/2 at once",
  seconds: 105,
  async prepare(stage) {
    await call(stage.server, "bodies.ts", "serve", HTTP1_PORT, HTTP2_PORT);
    await offer(stage, { [HTTP1_PORT]: "detect", [HTTP2_PORT]: "detect" });
  },
  async run({ client, seconds }) {
    const pace = Math.ceil(BODY_BYTES / seconds);
    const taken = await Promise.all(
      (
        [
          ["upload1", HTTP1_PORT],
          ["download1", HTTP1_PORT],
          ["upload2", HTTP2_PORT],
          ["download2", HTTP2_PORT],
        ] as const
      ).map(([name, port]) => call<number>(client, "bodies.ts", name, VIRTUAL_IP, port, BODY_BYTES, pace)),
    );
    if (taken.some((bytes) => bytes !== BODY_BYTES))
      throw new Error(`bodies arrived as ${taken.join(", ")} bytes`);
    return `${taken.length} bodies of 1 GiB at ${(pace / 1e6).toFixed(0)} MB/s each`;
  },
};
