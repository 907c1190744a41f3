import type { Heard, Seen } from "../client.ts";

export function parsed(body: string): Seen | null {
  try {
    return JSON.parse(body) as Seen;
  } catch {
    return null;
  }
}

export const failed = (error: unknown): Heard => ({
  status: 0,
  headers: {},
  seen: null,
  body: "",
  error: String(error),
});

export function hostAndPort(to: string, port: number): [string, number] {
  const at = to.lastIndexOf(":");
  return at === -1 ? [to, port] : [to.slice(0, at), Number(to.slice(at + 1))];
}
