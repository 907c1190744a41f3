// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     cgroup/connect6 on the application's cgroup; context struct bpf_sock_addr. IPv6 sockets, also when they
 *           dial a v4-mapped address (as Java does).
 * Floor:    5.9.
 * Returns:  1 go on with the address as now written, 0 connect() fails with EPERM.
 * Maps:     reads mesh_settings, mesh_own, mesh_ports, mesh_cidrs, mesh_services, mesh_backends; writes mesh_targets,
 *           mesh_udp.
 * Nobody home: without settings every stream is denied. Without a sidecar the rewritten connection is refused.
 */
#include "outbound.h"

static __always_inline void destination_set(struct bpf_sock_addr *ctx, const struct mesh_addr *ip, __be16 port)
{
	FIELD(ctx->user_ip6[0]) = ip->word[0];
	FIELD(ctx->user_ip6[1]) = ip->word[1];
	FIELD(ctx->user_ip6[2]) = ip->word[2];
	FIELD(ctx->user_ip6[3]) = ip->word[3];
	FIELD(ctx->user_port) = port;
}

SEC("cgroup/connect6")
int mesh_connect6(struct bpf_sock_addr *ctx)
{
	struct mesh_settings *settings = settings_get();
	struct sockaddr_in6 source = { .sin6_family = AF_INET6 };
	struct mesh_endpoint dst = {};
	struct mesh_addr to = {};
	int mapped;

	if (!settings)
		return ctx->type != SOCK_STREAM;
	addr_set6(&dst.ip, ctx->user_ip6);
	dst.port = (__be16)ctx->user_port;
	mapped = addr_is4(&dst.ip);

	switch (outbound_decide(ctx, settings, &dst)) {
	case OUTBOUND_AS_ASKED:
		return 1;
	case OUTBOUND_TRANSLATED:
		if (addr_is4(&dst.ip) != mapped)
			return 0;
		destination_set(ctx, &dst.ip, dst.port);
		return 1;
	case OUTBOUND_PROXIED:
		/* As in connect4: show the pod's address where the application chose none. */
		addr_set6((struct mesh_addr *)source.sin6_addr,
			  (mapped ? &settings->source4 : &settings->source6)->word);
		bpf_bind(ctx, &source, sizeof(source));
		if (!untie_from_device(ctx))
			return 0;
		if (mapped)
			addr_set4(&to, bpf_htonl(0x7f000001));
		else
			to.word[3] = bpf_htonl(1);
		destination_set(ctx, &to, bpf_htons(settings->outbound_port));
		return 1;
	case OUTBOUND_REFUSED:
		if (mapped)
			addr_set4(&to, bpf_htonl(0x7f000001));
		else
			to.word[3] = bpf_htonl(1);
		destination_set(ctx, &to, 0);
		return 1;
	case OUTBOUND_UNREACHABLE:
		/* A stream to a multicast address is ENETUNREACH. */
		if (mapped)
			addr_set4(&to, bpf_htonl(0xe0000001));
		else
			to.word[0] = bpf_htonl(0xff0e0000);
		destination_set(ctx, &to, dst.port);
		return 1;
	}
	return 0;
}

char LICENSE[] SEC("license") = "Apache-2.0";
