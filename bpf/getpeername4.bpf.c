// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     cgroup/getpeername4 on the application's cgroup; context struct bpf_sock_addr, which holds the kernel's
 *           answer and takes ours.
 * Floor:    5.9.
 * Returns:  1 always.
 * Maps:     reads mesh_targets, mesh_origins.
 * Nobody home: the application sees the sidecar's address.
 */
#include "names.h"

SEC("cgroup/getpeername4")
int mesh_getpeername4(struct bpf_sock_addr *ctx)
{
	struct mesh_tuple tuple = {};
	struct mesh_endpoint *asked;

	addr_set4(&tuple.client, ctx->sk->src_ip4);
	addr_set4(&tuple.server, ctx->user_ip4);
	tuple.client_port = bpf_htons(ctx->sk->src_port);
	tuple.server_port = (__be16)ctx->user_port;
	asked = asked_for(ctx, &tuple);
	if (asked && addr_is4(&asked->ip)) {
		ctx->user_ip4 = asked->ip.word[3];
		ctx->user_port = asked->port;
	}
	return 1;
}

char LICENSE[] SEC("license") = "Apache-2.0";
