/** What the shop sells: GET /products, GET /products/ID. Holds no state, so it runs in three replicas. */
import { CANARIES } from "./canaries.js";
import { serveHttp } from "./http-service.js";

const NAMES =
  "saddle,girth,bridle,halter,blanket,bedroll,lantern,canteen,pannier,rope,hoof pick,curry comb".split(",");
const PRODUCTS = NAMES.map((name, index) => ({
  id: `p${index + 1}`,
  name,
  cents: 500 + index * 325,
  note: CANARIES.http,
}));

serveHttp({
  name: "catalogue",
  port: Number(process.env.PORT ?? 8080),
  handle({ path }) {
    if (path === "/products") return { body: { products: PRODUCTS } };
    const product = PRODUCTS.find((each) => path === `/products/${each.id}`);
    return product === undefined
      ? { status: 404, body: { error: `no product at ${path}` } }
      : { body: product };
  },
});
