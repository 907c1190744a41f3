/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of both families in one form, and the questions we ask about them. */
#ifndef PILLION_ADDRESS_H
#define PILLION_ADDRESS_H

#include "maps.h"

static __always_inline void addr_set4(struct mesh_addr *addr, __be32 ip4)
{
	addr->word[0] = 0;
	addr->word[1] = 0;
	addr->word[2] = bpf_htonl(0xffff);
	addr->word[3] = ip4;
}

#define addr_set6(addr, ip6)                                                                       \
	do {                                                                                       \
		(addr)->word[0] = FIELD((ip6)[0]);                                                 \
		(addr)->word[1] = FIELD((ip6)[1]);                                                 \
		(addr)->word[2] = FIELD((ip6)[2]);                                                 \
		(addr)->word[3] = FIELD((ip6)[3]);                                                 \
	} while (0)

static __always_inline int addr_is4(const struct mesh_addr *addr)
{
	return addr->word[0] == 0 && addr->word[1] == 0 && addr->word[2] == bpf_htonl(0xffff);
}

static __always_inline int addr_is_zero(const struct mesh_addr *addr)
{
	return (addr->word[0] | addr->word[1] | addr->word[2] | addr->word[3]) == 0;
}

/* 127.0.0.0/8 and ::1. */
static __always_inline int addr_is_loopback(const struct mesh_addr *addr)
{
	if (addr_is4(addr))
		return (addr->word[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return (addr->word[0] | addr->word[1] | addr->word[2]) == 0 && addr->word[3] == bpf_htonl(1);
}

/* Dialling 0.0.0.0 or :: reaches the loopback address. */
static __always_inline int addr_is_any(const struct mesh_addr *addr)
{
	return addr_is4(addr) ? addr->word[3] == 0 : addr_is_zero(addr);
}

static __always_inline int addr_is_own(const struct mesh_addr *addr)
{
	return bpf_map_lookup_elem(&mesh_own, addr) != NULL;
}

/* An address inside the pod: connections to or from it never leave the network namespace. */
static __always_inline int addr_is_local(const struct mesh_addr *addr)
{
	return addr_is_loopback(addr) || addr_is_own(addr);
}

static __always_inline int endpoint_equal(const struct mesh_endpoint *a, const struct mesh_endpoint *b)
{
	return a->ip.word[3] == b->ip.word[3] && a->ip.word[2] == b->ip.word[2] &&
	       a->ip.word[1] == b->ip.word[1] && a->ip.word[0] == b->ip.word[0] && a->port == b->port;
}

static __always_inline struct mesh_settings *settings_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&mesh_settings, &zero);
}

/* Does policy let this pass the sidecar by? `other` is the remote address in both directions. */
static __always_inline int is_let_through(__u16 direction, const struct mesh_addr *other, __u16 port)
{
	__u32 by_direction = direction;
	struct mesh_port_set *ports = bpf_map_lookup_elem(&mesh_ports, &by_direction);
	struct mesh_cidr_key by_cidr = {
		.prefix_bits = 160,
		.direction = direction,
		.port = bpf_htons(port),
		.ip = *other,
	};

	if (ports && ports->word[(port >> 6) & (PORT_WORDS - 1)] & (1ull << (port & 63)))
		return 1;
	if (bpf_map_lookup_elem(&mesh_cidrs, &by_cidr))
		return 1;
	by_cidr.port = 0;
	return bpf_map_lookup_elem(&mesh_cidrs, &by_cidr) != NULL;
}

#endif
