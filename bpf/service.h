/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual IPs: from a Service's address to one of its ready backends. */
#ifndef PILLION_SERVICE_H
#define PILLION_SERVICE_H

#include "address.h"

#define NOT_A_SERVICE 0
#define TRANSLATED 1
#define NO_BACKEND 2

/*
 * Replaces a virtual IP by a backend. `choice` selects among them: random per TCP connection, the same for all
 * datagrams of one socket.
 *
 * User space writes new backends under a new id before it points the service at them, and removes the old ones after;
 * so a reader that loses that race finds its backend gone, and looks once more.
 */
static __always_inline int service_translate(struct mesh_endpoint *dst, __u16 protocol, __u32 choice)
{
	struct mesh_service_key key = { .ip = dst->ip, .port = dst->port, .protocol = protocol };

#pragma unroll
	for (int attempt = 0; attempt < 2; attempt++) {
		struct mesh_service *service = bpf_map_lookup_elem(&mesh_services, &key);
		struct mesh_backend_key slot = {};
		struct mesh_endpoint *backend;

		if (!service)
			return NOT_A_SERVICE;
		if (service->backends == 0)
			return NO_BACKEND;
		slot.id = service->id;
		slot.slot = choice % service->backends;
		backend = bpf_map_lookup_elem(&mesh_backends, &slot);
		if (backend) {
			*dst = *backend;
			return TRANSLATED;
		}
	}
	return NO_BACKEND;
}

/* Remembers on a UDP socket that `backend` stands for `vip`. */
static __always_inline void udp_remember(struct mesh_udp_pairs *pairs, const struct mesh_endpoint *vip,
					 const struct mesh_endpoint *backend)
{
	__u32 at = 0;

	for (int i = 0; i < UDP_PAIRS_MAX; i++) {
		if (endpoint_equal(&pairs->pair[i].vip, vip) &&
		    endpoint_equal(&pairs->pair[i].backend, backend))
			return;
	}
	at = pairs->next & (UDP_PAIRS_MAX - 1);
	pairs->pair[at].vip = *vip;
	pairs->pair[at].backend = *backend;
	pairs->next = at + 1;
}

/*
 * A datagram's destination: untouched, or translated and remembered. Returns 0 when it must not be sent. One socket
 * stays with one backend per virtual IP while the set of backends does not change.
 */
static __always_inline int udp_translate(struct bpf_sock_addr *ctx, struct mesh_endpoint *dst)
{
	struct mesh_endpoint vip = *dst;
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct mesh_udp_pairs *pairs;

	switch (service_translate(dst, IPPROTO_UDP, (__u32)(cookie * 0x9e3779b97f4a7c15ull >> 32))) {
	case NO_BACKEND:
		return 0;
	case TRANSLATED:
		pairs = bpf_sk_storage_get(&mesh_udp, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
		if (!pairs)
			return 0;
		udp_remember(pairs, &vip, dst);
		return 1;
	}
	return 1;
}

/* The other way round: a datagram from a backend is shown as coming from the virtual IP that the application dialled. */
static __always_inline int udp_restore(struct bpf_sock_addr *ctx, struct mesh_endpoint *src)
{
	struct mesh_udp_pairs *pairs = bpf_sk_storage_get(&mesh_udp, ctx->sk, NULL, 0);

	if (!pairs)
		return 0;
	for (int i = 0; i < UDP_PAIRS_MAX; i++) {
		if (endpoint_equal(&pairs->pair[i].backend, src)) {
			*src = pairs->pair[i].vip;
			return 1;
		}
	}
	return 0;
}

#endif
