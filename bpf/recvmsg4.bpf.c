// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     cgroup/recvmsg4 on the application's cgroup; context struct bpf_sock_addr with a datagram's source.
 * Floor:    5.9.
 * Returns:  1 always.
 * Maps:     reads mesh_udp.
 * Nobody home: the application sees the backend's address.
 */
#include "service.h"

SEC("cgroup/recvmsg4")
int mesh_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct mesh_endpoint src = {};

	addr_set4(&src.ip, ctx->user_ip4);
	src.port = (__be16)ctx->user_port;
	if (udp_restore(ctx, &src)) {
		ctx->user_ip4 = src.ip.word[3];
		ctx->user_port = src.port;
	}
	return 1;
}

char LICENSE[] SEC("license") = "Apache-2.0";
