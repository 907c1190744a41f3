import type { Family } from "./registry.ts";

/** Linkerd's latency buckets (facts §17.1). */
const LATENCY_MS: readonly number[] = [1, 10, 100, 1000, 10_000].flatMap((unit) =>
  [1, 2, 3, 4, 5].map((n) => n * unit),
);

function counter(name: string, help: string): Family {
  return { name, help, type: "counter" };
}
function gauge(name: string, help: string): Family {
  return { name, help, type: "gauge" };
}

/** Every family that a sidecar exposes, under the names that Linkerd's dashboards and tools ask for where they have one. */
export const FAMILIES = {
  requestTotal: counter("request_total", "Total count of HTTP requests."),
  responseTotal: counter("response_total", "Total count of HTTP responses."),
  responseLatencyMs: {
    name: "response_latency_ms",
    help: "Elapsed times between a request's headers being received and its response stream completing",
    type: "histogram",
    bounds: LATENCY_MS,
  } as Family,
  tcpOpenTotal: counter("tcp_open_total", "Total count of opened connections"),
  tcpOpenConnections: gauge("tcp_open_connections", "Number of currently-open connections"),
  tcpReadBytesTotal: counter("tcp_read_bytes_total", "Total count of bytes read from peers"),
  tcpWriteBytesTotal: counter("tcp_write_bytes_total", "Total count of bytes written to peers"),
  tcpCloseTotal: counter("tcp_close_total", "Total count of closed connections"),
  inboundTcpErrors: counter(
    "inbound_tcp_errors_total",
    "The total number of inbound TCP connections that could not be processed due to a proxy error.",
  ),
  outboundTcpErrors: counter(
    "outbound_tcp_errors_total",
    "The total number of outbound TCP connections that could not be processed due to a proxy error.",
  ),
  inboundHttpErrors: counter(
    "inbound_http_errors_total",
    "The total number of inbound HTTP requests that could not be processed due to a proxy error.",
  ),
  outboundHttpErrors: counter(
    "outbound_http_errors_total",
    "The total number of outbound HTTP requests that could not be processed due to a proxy error.",
  ),
  outboundTcpRouteOpen: counter("outbound_tcp_route_open_total", "Connections that a route has passed on"),
  outboundTcpRouteClose: counter("outbound_tcp_route_close_total", "Connections of a route that ended"),
  mirrorDropped: counter(
    "pillion_mirror_copies_dropped_total",
    "Copies of requests that were given up because their mirror was too slow",
  ),
  httpRouteRequests: counter(
    "outbound_http_route_requests_total",
    "HTTP requests that a rule of a route took",
  ),
  httpRouteStatuses: counter(
    "outbound_http_route_request_statuses_total",
    "Answers to HTTP requests that a rule of a route took",
  ),
  httpRouteBackendRequests: counter(
    "outbound_http_route_backend_requests_total",
    "HTTP requests that a rule of a route sent to a backend",
  ),
  httpRouteBackendStatuses: counter(
    "outbound_http_route_backend_response_statuses_total",
    "Answers of a backend of a rule to HTTP requests",
  ),
  grpcRouteRequests: counter(
    "outbound_grpc_route_requests_total",
    "gRPC requests that a rule of a route took",
  ),
  grpcRouteStatuses: counter(
    "outbound_grpc_route_request_statuses_total",
    "Answers to gRPC requests that a rule of a route took",
  ),
  grpcRouteBackendRequests: counter(
    "outbound_grpc_route_backend_requests_total",
    "gRPC requests that a rule of a route sent to a backend",
  ),
  grpcRouteBackendStatuses: counter(
    "outbound_grpc_route_backend_response_statuses_total",
    "Answers of a backend of a rule to gRPC requests",
  ),
  inboundTcpAuthzAllow: counter(
    "inbound_tcp_authz_allow_total",
    "The total number of inbound TCP connections that were authorized",
  ),
  inboundTcpAuthzDeny: counter(
    "inbound_tcp_authz_deny_total",
    "The total number of inbound TCP connections that were denied",
  ),
  inboundHttpAuthzAllow: counter(
    "inbound_http_authz_allow_total",
    "The total number of inbound HTTP requests that were authorized",
  ),
  inboundHttpAuthzDeny: counter(
    "inbound_http_authz_deny_total",
    "The total number of inbound HTTP requests that could not be processed due to being denied by policy",
  ),
  inboundTcpAuthzTerminate: counter(
    "inbound_tcp_authz_terminate_total",
    "The total number of inbound TCP connections that were ended because policy no longer allows them",
  ),
  inboundHttpRouteNotFound: counter(
    "inbound_http_route_not_found_total",
    "The total number of inbound HTTP requests that no route of the port takes",
  ),
  inboundAuthzWould: counter(
    "pillion_inbound_authz_would_total",
    "Inbound requests and connections that policies in audit mode would decide otherwise, or that AUDIT policies name",
  ),
  inboundTokenRefusals: counter(
    "pillion_inbound_token_refusals_total",
    "Inbound requests refused for their token, or for want of one",
  ),
  faultsInjected: counter("pillion_faults_injected_total", "Requests that a FaultPolicy has hit"),
  inboundLocalRateLimit: counter(
    "inbound_http_local_ratelimit_total",
    "The total number of inbound HTTP requests that could not be processed due to being rate-limited.",
  ),
  inboundGlobalRateLimit: counter(
    "pillion_inbound_global_ratelimit_total",
    "Inbound HTTP requests refused by a rate limit for all pods of the workload",
  ),
  inboundShed: counter(
    "pillion_inbound_shed_total",
    "Inbound HTTP requests refused because the workload has as many as it serves well",
  ),
  concurrencyLimit: gauge(
    "pillion_concurrency_limit",
    "Requests that the workload is found to serve without queueing",
  ),
  concurrencyUnderWay: gauge(
    "pillion_concurrency_under_way",
    "Requests under way that count against pillion_concurrency_limit",
  ),
  transportHeaderConnections: counter(
    "inbound_tcp_transport_header_connections_total",
    "TCP connections with transport headers",
  ),
  inboundDetectResults: counter(
    "inbound_tcp_detect_http_results_total",
    "What protocol detection found on inbound connections",
  ),
  outboundDetectResults: counter(
    "outbound_tcp_detect_http_results_total",
    "What protocol detection found on outbound connections",
  ),
  egressRequests: counter(
    "pillion_egress_requests_total",
    "HTTP requests to addresses outside the mesh, by the host that they name",
  ),
  egressVerdicts: counter(
    "pillion_egress_policy_total",
    "Requests and connections to addresses outside that an EgressPolicy has looked at",
  ),
  passedTls: counter(
    "pillion_passed_tls_connections_total",
    "Connections in TLS of the workloads' own, passed on untouched",
  ),
  certExpiration: gauge(
    "control_identity_cert_expiration_timestamp_seconds",
    "When the current certificate ends, in seconds since 1970",
  ),
  certRefreshes: counter(
    "control_identity_cert_refreshes_total",
    "How many certificates were issued to this sidecar",
  ),
  identityInfo: gauge("pillion_identity_info", "1, with the identity that the workload proves"),
  certLeft: gauge(
    "pillion_identity_cert_left_seconds",
    "How long the current certificate still lasts, by the clock that sees less of it",
  ),
  certRenewalFailures: counter(
    "pillion_identity_renewal_failures_total",
    "How often a certificate could not be had or renewed",
  ),
  identityProofs: counter(
    "pillion_identity_proofs_total",
    "Handshakes made to keep connections that live longer than certificates",
  ),
  controlRequestTotal: counter("control_request_total", "Calls to the control plane"),
  controlResponseTotal: counter("control_response_total", "Calls to the control plane that ended"),
  workloadApiCalls: counter(
    "pillion_workload_api_calls_total",
    "Calls of the SPIFFE Workload API that are over, by method and gRPC status",
  ),
  workloadApiConnections: gauge(
    "pillion_workload_api_connections",
    "Connections that programs of the workload hold to the SPIFFE Workload API",
  ),
  workloadSvidExpiration: gauge(
    "pillion_workload_svid_expiration_timestamp_seconds",
    "When the certificate that the workload was given for its own use ends; 0 before the first",
  ),
  controlConnected: gauge("pillion_control_connected", "1 while a connection to the control plane is up"),
  discoveryTargets: gauge("pillion_discovery_targets", "Outbound targets that are known"),
  outboundHttpRetryRequests: counter(
    "outbound_http_route_retry_requests_total",
    "Requests that were sent again",
  ),
  outboundHttpRetrySuccesses: counter(
    "outbound_http_route_retry_successes_total",
    "Requests whose last retry was answered well",
  ),
  outboundHttpRetryLimitExceeded: counter(
    "outbound_http_route_retry_limit_exceeded_total",
    "Requests that still failed after the last retry allowed",
  ),
  outboundHttpRetryOverflow: counter(
    "outbound_http_route_retry_overflow_total",
    "Retries that were withheld for want of budget or room",
  ),
  outboundGrpcRetryRequests: counter(
    "outbound_grpc_route_retry_requests_total",
    "Requests that were sent again",
  ),
  outboundGrpcRetrySuccesses: counter(
    "outbound_grpc_route_retry_successes_total",
    "Requests whose last retry was answered well",
  ),
  outboundGrpcRetryLimitExceeded: counter(
    "outbound_grpc_route_retry_limit_exceeded_total",
    "Requests that still failed after the last retry allowed",
  ),
  outboundGrpcRetryOverflow: counter(
    "outbound_grpc_route_retry_overflow_total",
    "Retries that were withheld for want of budget or room",
  ),
  requestTimeouts: counter(
    "pillion_request_timeouts_total",
    "Requests, and attempts of them, that a timeout of their route ended",
  ),
  limitReached: counter("pillion_limit_reached_total", "How often a bound on what a peer may do was reached"),
  backendLimitReached: counter(
    "pillion_backend_limit_reached_total",
    "Requests and connections refused by a bound of the service's traffic policy",
  ),
  memoryLimit: gauge("pillion_memory_limit_bytes", "Memory limit that the sidecar stays below"),
  memoryUsed: gauge(
    "pillion_memory_used_bytes",
    "Memory that counts against the limit, as the sidecar sees it",
  ),
  memoryEnded: counter("pillion_memory_ended_connections_total", "Connections ended for want of memory"),
  logLines: counter("pillion_log_lines_total", "Lines logged, by level"),
} as const;
