/**
 * Words that travel in the shop's requests and nowhere else. Whoever captures the pods' traffic looks for them: between
 * meshed pods none may ever be seen in plain text.
 */
export const CANARIES = Object.freeze({
  /** In every body of the catalogue's answers, and from there in the front's. */
  http: "canary-http-spotted-sandpiper",
  /** In every value that the cart writes to redis. */
  redis: "canary-redis-slender-billed-curlew",
  /** In a column of every row that orders writes to PostgreSQL, in the statement's parameters. */
  sql: "canary-sql-black-tailed-godwit",
  /** In every answer of the pricing service. */
  grpc: "canary-grpc-bar-tailed-oystercatcher",
});
