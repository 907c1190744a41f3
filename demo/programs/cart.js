/** Who has put what aside: POST /cart/CUSTOMER adds, GET /cart/CUSTOMER reads. Kept in redis. */
import { createClient } from "redis";
import { CANARIES } from "./canaries.js";
import { describe, log, serveHttp } from "./http-service.js";

const LINES_MAX = 20;
const EXPIRY_SECONDS = 600;

const redis = createClient({ url: process.env.REDIS_URL ?? "redis://redis:6379" });
// The client connects anew by itself; without a listener the error would end the process.
redis.on("error", (error) => log({ log: "error", service: "cart", error: `redis: ${describe(error)}` }));
redis.connect().catch(() => {});

serveHttp({
  name: "cart",
  port: Number(process.env.PORT ?? 8080),
  isReady: async () => redis.isReady,
  async handle({ method, path, body, calls }) {
    const customer = /^\/cart\/(\w+)$/.exec(path)?.[1];
    if (customer === undefined) return { status: 404, body: { error: `no cart at ${path}` } };
    const key = `cart:${customer}`;
    calls.redis = 1;
    if (method === "POST") {
      const line = JSON.stringify({ productId: body.productId, count: 1, note: CANARIES.redis });
      await redis
        .multi()
        .lPush(key, line)
        .lTrim(key, 0, LINES_MAX - 1)
        .expire(key, EXPIRY_SECONDS)
        .exec();
      return { status: 201, body: { added: body.productId } };
    }
    const lines = await redis.lRange(key, 0, -1);
    return { body: { lines: lines.map((line) => JSON.parse(line)) } };
  },
  close: () => redis.close(),
});
