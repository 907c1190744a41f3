// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     cgroup/recvmsg6 on the application's cgroup; context struct bpf_sock_addr with a datagram's source.
 * Floor:    5.9.
 * Returns:  1 always.
 * Maps:     reads mesh_udp.
 * Nobody home: the application sees the backend's address.
 */
#include "service.h"

SEC("cgroup/recvmsg6")
int mesh_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct mesh_endpoint src = {};

	addr_set6(&src.ip, ctx->user_ip6);
	src.port = (__be16)ctx->user_port;
	if (udp_restore(ctx, &src)) {
		FIELD(ctx->user_ip6[0]) = src.ip.word[0];
		FIELD(ctx->user_ip6[1]) = src.ip.word[1];
		FIELD(ctx->user_ip6[2]) = src.ip.word[2];
		FIELD(ctx->user_ip6[3]) = src.ip.word[3];
		FIELD(ctx->user_port) = src.port;
	}
	return 1;
}

char LICENSE[] SEC("license") = "Apache-2.0";
