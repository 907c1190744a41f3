// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     cgroup/getsockopt on the sidecar's cgroup; context struct bpf_sockopt, after the kernel's own answer.
 * Floor:    5.9.
 * Returns:  1 answer as now written, 0 the call fails with EPERM.
 * Maps:     reads mesh_settings, mesh_targets.
 * Nobody home: an outbound connection whose original destination is not known gets an error, and the sidecar refuses it.
 *
 * SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, the contract that proxies know from iptables. For an inbound connection,
 * which nothing rewrote, it is the accepted socket's own address.
 */
#include "address.h"

static __always_inline int answer4(struct bpf_sockopt *ctx, __be32 ip, __be16 port)
{
	struct sockaddr_in *out = ctx->optval;

	if ((void *)(out + 1) > ctx->optval_end)
		return 0;
	out->sin_family = AF_INET;
	out->sin_port = port;
	out->sin_addr = ip;
	ctx->optlen = sizeof(*out);
	ctx->retval = 0;
	return 1;
}

static __always_inline int answer6(struct bpf_sockopt *ctx, const struct mesh_addr *ip, __be16 port)
{
	struct sockaddr_in6 *out = ctx->optval;

	if ((void *)(out + 1) > ctx->optval_end)
		return 0;
	out->sin6_family = AF_INET6;
	out->sin6_port = port;
	out->sin6_flowinfo = 0;
	out->sin6_addr[0] = ip->word[0];
	out->sin6_addr[1] = ip->word[1];
	out->sin6_addr[2] = ip->word[2];
	out->sin6_addr[3] = ip->word[3];
	out->sin6_scope_id = 0;
	ctx->optlen = sizeof(*out);
	ctx->retval = 0;
	return 1;
}

SEC("cgroup/getsockopt")
int mesh_getsockopt(struct bpf_sockopt *ctx)
{
	struct mesh_settings *settings;
	struct mesh_target *target;
	struct mesh_endpoint dst = {};
	struct bpf_sock *sk = ctx->sk;

	if (ctx->optname != SO_ORIGINAL_DST || (ctx->level != SOL_IP && ctx->level != SOL_IPV6))
		return 1;
	if (!sk || sk->type != SOCK_STREAM)
		return 1;
	settings = settings_get();
	if (!settings)
		return 0;
	target = bpf_sk_storage_get(&mesh_targets, sk, NULL, 0);
	if (target) {
		dst = target->asked;
	} else {
		if (sk->family == AF_INET)
			addr_set4(&dst.ip, sk->src_ip4);
		else
			addr_set6(&dst.ip, sk->src_ip6);
		dst.port = bpf_htons(sk->src_port);
		if (addr_is_loopback(&dst.ip) && dst.port == bpf_htons(settings->outbound_port))
			return 0;
	}
	/* Each family answers at its own level, as with iptables. */
	if (addr_is4(&dst.ip) != (ctx->level == SOL_IP))
		return 0;
	return ctx->level == SOL_IP ? answer4(ctx, dst.ip.word[3], dst.port) : answer6(ctx, &dst.ip, dst.port);
}

char LICENSE[] SEC("license") = "Apache-2.0";
