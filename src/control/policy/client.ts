/** Who asks: consumers' routes are for clients of their own namespace, faults for those that they name. */
export interface PolicyClient {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Of its pod; absent where nobody knows which it is. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
}
