/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * p9frame.h - what a carrier of 9P messages must know about them: size limits
 * and the tags in flight.  Knows no ring and no socket, so that it can be
 * fuzzed alone.
 */
#ifndef BACKEND_FILES_P9FRAME_H
#define BACKEND_FILES_P9FRAME_H 1

#include "lib/util.h"

/* Longest head: header and msize. */
#define P9FRAME_HEAD_MAX 11
#define P9FRAME_MAX_RINGS 8

struct p9frame_tag;

struct p9frame {
    uint32_t max;   /* Longest message that can be carried. */
    uint32_t msize; /* Longest message now, <= max. */
    uint32_t n_in_flight;
    uint32_t n_by_ring[P9FRAME_MAX_RINGS]; /* The same by ring. */
    bool is_resetting;                     /* A Tversion is unanswered. */
    uint16_t version_tag;
    struct p9frame_tag *tags; /* 65536 of them. */
};

int p9frame_init(struct p9frame *) NODISCARD;
void p9frame_destroy(struct p9frame *);
void p9frame_set_max(struct p9frame *, uint32_t max);

const char *p9frame_check_size(const struct p9frame *, const uint8_t head[7],
                               uint32_t ring_size, uint32_t *ret_size);
uint32_t p9frame_request_head(const uint8_t head[7], uint32_t size);
const char *p9frame_request(struct p9frame *, uint8_t *head,
                            uint32_t head_size, unsigned int ring);

uint32_t p9frame_response_head(const uint8_t head[7]);
const char *p9frame_response(struct p9frame *, const uint8_t *head,
                             int *ret_ring, uint32_t *ret_size);
int p9frame_only_ring(const struct p9frame *);

static inline bool
p9frame_is_resetting(const struct p9frame *f)
{
    return f->is_resetting;
}

#endif /* backend/files/p9frame.h */
