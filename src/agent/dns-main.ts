export { runDns, type DnsOptions } from "./dns/server.ts";
