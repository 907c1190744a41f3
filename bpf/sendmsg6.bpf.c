// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     cgroup/sendmsg6 on the application's cgroup; context struct bpf_sock_addr. Unconnected UDP only. A
 *           v4-mapped destination does not come here: the kernel hands it to sendmsg4's path first.
 * Floor:    5.9.
 * Returns:  1 send to the address as now written, 0 sendmsg() fails with EPERM.
 * Maps:     reads mesh_services, mesh_backends; writes mesh_udp.
 * Nobody home: a virtual IP with no backend is denied; other datagrams are not ours.
 */
#include "service.h"

SEC("cgroup/sendmsg6")
int mesh_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct mesh_endpoint asked = {};
	struct mesh_endpoint dst;

	addr_set6(&asked.ip, ctx->user_ip6);
	asked.port = (__be16)ctx->user_port;
	dst = asked;
	if (!udp_translate(ctx, &dst) || addr_is4(&dst.ip) != addr_is4(&asked.ip))
		return 0;
	FIELD(ctx->user_ip6[0]) = dst.ip.word[0];
	FIELD(ctx->user_ip6[1]) = dst.ip.word[1];
	FIELD(ctx->user_ip6[2]) = dst.ip.word[2];
	FIELD(ctx->user_ip6[3]) = dst.ip.word[3];
	FIELD(ctx->user_port) = dst.port;
	return 1;
}

char LICENSE[] SEC("license") = "Apache-2.0";
