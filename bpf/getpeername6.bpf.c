// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     cgroup/getpeername6 on the application's cgroup; context struct bpf_sock_addr, which holds the kernel's
 *           answer and takes ours.
 * Floor:    5.9.
 * Returns:  1 always.
 * Maps:     reads mesh_targets, mesh_origins.
 * Nobody home: the application sees the sidecar's address.
 */
#include "names.h"

SEC("cgroup/getpeername6")
int mesh_getpeername6(struct bpf_sock_addr *ctx)
{
	struct mesh_tuple tuple = {};
	struct mesh_endpoint *asked;

	addr_set6(&tuple.client, ctx->sk->src_ip6);
	addr_set6(&tuple.server, ctx->user_ip6);
	tuple.client_port = bpf_htons(ctx->sk->src_port);
	tuple.server_port = (__be16)ctx->user_port;
	asked = asked_for(ctx, &tuple);
	if (asked) {
		FIELD(ctx->user_ip6[0]) = asked->ip.word[0];
		FIELD(ctx->user_ip6[1]) = asked->ip.word[1];
		FIELD(ctx->user_ip6[2]) = asked->ip.word[2];
		FIELD(ctx->user_ip6[3]) = asked->ip.word[3];
		FIELD(ctx->user_port) = asked->port;
	}
	return 1;
}

char LICENSE[] SEC("license") = "Apache-2.0";
