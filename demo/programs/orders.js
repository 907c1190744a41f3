/** What was bought: POST /orders writes an order, GET /orders counts them. Kept in PostgreSQL. */
import pg from "pg";
import { CANARIES } from "./canaries.js";
import { describe, log, serveHttp } from "./http-service.js";

// Host, user, password and database come from PGHOST, PGUSER, PGPASSWORD and PGDATABASE.
const pool = new pg.Pool({ max: 8, connectionTimeoutMillis: 15_000, idleTimeoutMillis: 60_000 });
pool.on("error", (error) => log({ log: "error", service: "orders", error: `postgres: ${describe(error)}` }));

const TABLE = `
  create table if not exists orders (
    id bigserial primary key, request_id text not null, customer text not null, total_cents integer not null,
    note text not null, at timestamptz not null default now())`;
let hasTable = false;

serveHttp({
  name: "orders",
  port: Number(process.env.PORT ?? 8080),
  async isReady() {
    try {
      if (!hasTable) await makeTable();
      await pool.query("select 1");
      return true;
    } catch (error) {
      log({ log: "waiting", service: "orders", error: `postgres: ${describe(error)}` });
      return false;
    }
  },
  async handle({ id, method, body, calls }) {
    calls.postgres = 1;
    if (method === "POST") {
      const { rows } = await pool.query(
        "insert into orders (request_id, customer, total_cents, note) values ($1, $2, $3, $4) returning id",
        [id, body.customer, body.totalCents, CANARIES.sql],
      );
      return { status: 201, body: { order: Number(rows[0].id) } };
    }
    const { rows } = await pool.query(
      "select count(*)::int as count, coalesce(sum(total_cents), 0)::int as cents from orders",
    );
    return { body: rows[0] };
  },
  close: () => pool.end(),
});

/** Two replicas may begin at the same moment, and `if not exists` alone does not keep them apart. */
async function makeTable() {
  const client = await pool.connect();
  try {
    await client.query("begin");
    await client.query("select pg_advisory_xact_lock(1)");
    await client.query(TABLE);
    await client.query("commit");
    hasTable = true;
    client.release();
  } catch (error) {
    client.release(true);
    throw error;
  }
}
