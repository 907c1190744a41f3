/** Who asks: consumers' routes are for clients of their own namespace, faults for those that they name. */
export interface PolicyClient {
  readonly namespace: string;
  readonly serviceAccount: string;
}
