/**
 * What customers talk to:
 *
 *     GET  /                   the products (catalogue)
 *     POST /cart/CUSTOMER      puts something aside (cart, which asks redis)
 *     POST /buy/CUSTOMER       prices the cart (cart, catalogue, pricing over gRPC) and orders it (orders, PostgreSQL)
 */
import { callJson } from "./http-client.js";
import { describe, log, serveHttp } from "./http-service.js";
import { pricingClient } from "./pricing-client.js";

const CATALOGUE = process.env.CATALOGUE_URL ?? "http://catalogue";
const CART = process.env.CART_URL ?? "http://cart";
const ORDERS = process.env.ORDERS_URL ?? "http://orders";
const pricing = pricingClient(process.env.PRICING_ADDRESS ?? "pricing:50051");
/** Services that this shop does without. */
const leftOut = (process.env.LEFT_OUT ?? "").split(",");
let hasReachedAll = false;

serveHttp({
  name: "front",
  port: Number(process.env.PORT ?? 8080),
  async isReady() {
    // Once all were there, a missing one is an error of the requests that need it, not of the whole front.
    if (!hasReachedAll) hasReachedAll = await reachAll();
    return hasReachedAll;
  },
  async handle({ id, method, path, body, calls }) {
    if (method === "GET" && path === "/") return { body: await products() };
    const [, verb, customer] = /^\/(cart|buy)\/(\w+)$/.exec(path) ?? [];
    if (method !== "POST" || customer === undefined)
      return { status: 404, body: { error: `nothing at ${method} ${path}` } };
    if (verb === "cart") {
      count("cart");
      return { status: 201, body: await callJson(`${CART}/cart/${customer}`, { id, method: "POST", body }) };
    }
    return { status: 201, body: await buy(customer) };

    function products() {
      count("catalogue");
      return callJson(`${CATALOGUE}/products`, { id });
    }

    async function buy(name) {
      count("cart");
      const [{ products: known }, { lines }] = await Promise.all([
        products(),
        callJson(`${CART}/cart/${name}`, { id }),
      ]);
      const centsOf = new Map(known.map((product) => [product.id, product.cents]));
      count("pricing");
      const priced = lines.map((line) => ({
        productId: line.productId,
        cents: centsOf.get(line.productId) ?? 0,
        count: line.count,
      }));
      const quote = await pricing.quote(priced, id);
      count("orders");
      const order = { customer: name, totalCents: quote.totalCents };
      const { order: number } = await callJson(`${ORDERS}/orders`, { id, method: "POST", body: order });
      return { order: number, total: quote.totalCents, currency: quote.currency, note: quote.note };
    }

    function count(service) {
      calls[service] = (calls[service] ?? 0) + 1;
    }
  },
  close: async () => pricing.close(),
});

async function reachAll() {
  try {
    const asked = { catalogue: CATALOGUE, cart: CART, orders: ORDERS };
    const urls = Object.keys(asked).filter((name) => !leftOut.includes(name));
    const ready = urls
      .map((name) => asked[name])
      .map((url) => callJson(`${url}/readyz`, { id: "readiness" }));
    await Promise.all(ready);
    return true;
  } catch (error) {
    log({ log: "waiting", service: "front", error: describe(error) });
    return false;
  }
}
