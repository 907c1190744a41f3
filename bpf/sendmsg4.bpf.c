// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     cgroup/sendmsg4 on the application's cgroup; context struct bpf_sock_addr. Unconnected UDP only.
 * Floor:    5.9.
 * Returns:  1 send to the address as now written, 0 sendmsg() fails with EPERM.
 * Maps:     reads mesh_services, mesh_backends; writes mesh_udp.
 * Nobody home: a virtual IP with no backend is denied; other datagrams are not ours.
 */
#include "service.h"

SEC("cgroup/sendmsg4")
int mesh_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct mesh_endpoint dst = {};

	addr_set4(&dst.ip, ctx->user_ip4);
	dst.port = (__be16)ctx->user_port;
	if (!udp_translate(ctx, &dst) || !addr_is4(&dst.ip))
		return 0;
	ctx->user_ip4 = dst.ip.word[3];
	ctx->user_port = dst.port;
	return 1;
}

char LICENSE[] SEC("license") = "Apache-2.0";
