/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to a connection that an application opens, whatever its address family. */
#ifndef PILLION_OUTBOUND_H
#define PILLION_OUTBOUND_H

#include "service.h"

#define OUTBOUND_DENY 0
#define OUTBOUND_AS_ASKED 1    /* leave the destination alone */
#define OUTBOUND_TRANSLATED 2  /* `dst` now holds a backend */
#define OUTBOUND_PROXIED 3     /* to the sidecar */
#define OUTBOUND_REFUSED 4     /* a Service with nobody ready: the application shall see "connection refused" */
#define OUTBOUND_UNREACHABLE 5 /* the pod has no address of this family */

static __always_inline int target_keep(struct bpf_sock_addr *ctx, const struct mesh_endpoint *asked, __u32 kind)
{
	struct mesh_target *target =
		bpf_sk_storage_get(&mesh_targets, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!target)
		return 0;
	target->asked = *asked;
	target->kind = kind;
	return 1;
}

static __always_inline int outbound_decide(struct bpf_sock_addr *ctx, struct mesh_settings *settings,
					   struct mesh_endpoint *dst)
{
	struct mesh_endpoint asked = *dst;
	int translated;

	/* A socket may be connected again after a failure; what it was meant for before does not count. */
	bpf_sk_storage_delete(&mesh_targets, ctx->sk);

	if (ctx->type == SOCK_DGRAM) {
		if (ctx->protocol != IPPROTO_UDP || !udp_translate(ctx, dst))
			return ctx->protocol == IPPROTO_UDP ? OUTBOUND_DENY : OUTBOUND_AS_ASKED;
		if (endpoint_equal(dst, &asked))
			return OUTBOUND_AS_ASKED;
		return target_keep(ctx, &asked, TARGET_TRANSLATED) ? OUTBOUND_TRANSLATED : OUTBOUND_DENY;
	}
	/* Streams of every protocol number: an MPTCP socket dials like a TCP one. */
	if (ctx->type != SOCK_STREAM)
		return OUTBOUND_AS_ASKED;
	if (addr_is_any(&dst->ip) || addr_is_local(&dst->ip))
		return OUTBOUND_AS_ASKED;

	if (settings->mode == MODE_MESHED &&
	    !is_let_through(DIRECTION_OUTBOUND, &dst->ip, bpf_ntohs(dst->port))) {
		/* Without this, a program that tries IPv6 first would meet our sidecar and never fall back to IPv4. */
		if (addr_is_zero(addr_is4(&dst->ip) ? &settings->source4 : &settings->source6))
			return OUTBOUND_UNREACHABLE;
		return target_keep(ctx, &asked, TARGET_PROXIED) ? OUTBOUND_PROXIED : OUTBOUND_DENY;
	}

	translated = service_translate(dst, IPPROTO_TCP, bpf_get_prandom_u32());
	if (translated == NO_BACKEND)
		return OUTBOUND_REFUSED;
	if (translated == NOT_A_SERVICE)
		return OUTBOUND_AS_ASKED;
	return target_keep(ctx, &asked, TARGET_TRANSLATED) ? OUTBOUND_TRANSLATED : OUTBOUND_DENY;
}

/*
 * A socket tied to a device could not reach the sidecar over loopback: its connect would hang. The tie is undone; it
 * has no meaning for a connection that the sidecar makes. Returns 0 when the kernel does not let us.
 */
static __always_inline int untie_from_device(struct bpf_sock_addr *ctx)
{
	char none[4] = {};

	if (!ctx->sk->bound_dev_if)
		return 1;
	return bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTODEVICE, none, sizeof(none)) == 0;
}

#endif
