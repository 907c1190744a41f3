// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     cgroup/connect4 on the application's cgroup; context struct bpf_sock_addr.
 * Floor:    5.9 (sk_storage here; the whole set needs 5.9 for sk_lookup).
 * Returns:  1 go on with the address as now written, 0 connect() fails with EPERM.
 * Maps:     reads mesh_settings, mesh_own, mesh_ports, mesh_cidrs, mesh_services, mesh_backends; writes mesh_targets,
 *           mesh_udp.
 * Nobody home: without settings every stream is denied. Without a sidecar the rewritten connection is refused.
 */
#include "outbound.h"

SEC("cgroup/connect4")
int mesh_connect4(struct bpf_sock_addr *ctx)
{
	struct mesh_settings *settings = settings_get();
	struct mesh_endpoint dst = {};
	struct sockaddr_in source = { .sin_family = AF_INET };

	if (!settings)
		return ctx->type != SOCK_STREAM;
	addr_set4(&dst.ip, ctx->user_ip4);
	dst.port = (__be16)ctx->user_port;

	switch (outbound_decide(ctx, settings, &dst)) {
	case OUTBOUND_AS_ASKED:
		return 1;
	case OUTBOUND_TRANSLATED:
		if (!addr_is4(&dst.ip))
			return 0;
		ctx->user_ip4 = dst.ip.word[3];
		ctx->user_port = dst.port;
		return 1;
	case OUTBOUND_PROXIED:
		/* The sidecar and the application shall see the pod's address, not 127.0.0.1. A socket that is
		 * already bound keeps its own, and the call fails without harm. */
		source.sin_addr = settings->source4.word[3];
		bpf_bind(ctx, &source, sizeof(source));
		if (!untie_from_device(ctx))
			return 0;
		ctx->user_ip4 = bpf_htonl(0x7f000001);
		ctx->user_port = bpf_htons(settings->outbound_port);
		return 1;
	case OUTBOUND_REFUSED:
		/* Nothing can listen on port 0: the kernel itself answers with a reset. */
		ctx->user_ip4 = bpf_htonl(0x7f000001);
		ctx->user_port = 0;
		return 1;
	case OUTBOUND_UNREACHABLE:
		/* A stream to a multicast address is ENETUNREACH. */
		ctx->user_ip4 = bpf_htonl(0xe0000001);
		return 1;
	}
	return 0;
}

char LICENSE[] SEC("license") = "Apache-2.0";
