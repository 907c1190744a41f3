/** What is asked from inside a pod, and what comes back: the words between a test and `programs/client.ts`. */
export interface Ask {
  /** "http" unless it says otherwise. */
  readonly protocol?: "http" | "grpc" | "tls" | "tcp";
  /** Where the connection goes: "echo", "echo-v1:8080". */
  readonly to: string;
  readonly method?: string;
  readonly path?: string;
  /** Also `host`, which then differs from `to`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** TLS: the server name asked for. */
  readonly serverName?: string;
}

export interface Heard {
  /** HTTP's; for gRPC 200, or the code as 1000 + code; 0: none came. */
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** What the echo says it saw; null when it was not asked, or gave no JSON. */
  readonly seen: Seen | null;
  readonly body: string;
  readonly error: string;
}

export interface Seen {
  readonly pod: string;
  readonly method: string;
  readonly path: string;
  readonly host: string;
  /** By name in lower case. */
  readonly headers: Readonly<Record<string, readonly string[]>>;
}
