/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * p9frame.c - see p9frame.h and the theory in p9dev.c.
 *
 * Requests are the guest's and everything about them is doubted; responses
 * are vafsd's and are checked so that its mistake cannot become a write
 * outside of a ring.
 */
#include "backend/files/p9frame.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/coverage.h"
#include "wire/ninep.h"
#include "wire/xen9pfs.h"

COVERAGE_DEFINE(p9_bad_size);
COVERAGE_DEFINE(p9_duplicate_tag);
COVERAGE_DEFINE(p9_unknown_tag);
COVERAGE_DEFINE(p9_version);
COVERAGE_DEFINE(p9_flush);

/* What waits for an answer.  In 4 bytes, so that the table of all tags is
 * 256 KiB of which a guest with few tags touches a page. */
struct p9frame_tag {
    uint8_t ring1;   /* Ring that brought it, plus 1; 0: not in flight. */
    uint8_t type;    /* T message. */
    uint16_t oldtag; /* Tflush. */
};

#define N_TAGS 65536

int
p9frame_init(struct p9frame *f)
{
    memset(f, 0, sizeof *f);
    f->tags = calloc(N_TAGS, sizeof *f->tags);
    return f->tags ? 0 : ENOMEM;
}

void
p9frame_destroy(struct p9frame *f)
{
    free(f->tags);
    f->tags = NULL;
}

/* 'max' is the longest message that every ring can carry. */
void
p9frame_set_max(struct p9frame *f, uint32_t max)
{
    f->max = f->msize = max;
}

/* Checks the size in the header 'head' of a request from a ring with
 * 'ring_size' bytes and stores it in '*ret_size'.  Returns NULL or what is
 * wrong with it. */
const char *
p9frame_check_size(const struct p9frame *f, const uint8_t head[7],
                   uint32_t ring_size, uint32_t *ret_size)
{
    uint32_t size = get_le32(head);

    *ret_size = size;
    if (size < XEN9PFS_HEADER_SIZE) {
        COVERAGE_INC(p9_bad_size);
        return "shorter than a header";
    }
    if (size > f->msize) {
        COVERAGE_INC(p9_bad_size);
        return "longer than msize";
    }
    if (size > ring_size) {
        COVERAGE_INC(p9_bad_size);
        return "longer than the ring";
    }
    return NULL;
}

/* How many bytes of a request with header 'head' and checked 'size' must be
 * copied out for p9frame_request(): 7 to P9FRAME_HEAD_MAX, at most 'size'. */
uint32_t
p9frame_request_head(const uint8_t head[7], uint32_t size)
{
    uint32_t n = XEN9PFS_HEADER_SIZE;

    if (head[4] == NINEP_TVERSION) {
        n += 4;
    } else if (head[4] == NINEP_TFLUSH) {
        n += 2;
    }
    /* Too short for its kind: vafsd will say so. */
    return n <= size ? n : XEN9PFS_HEADER_SIZE;
}

/* Takes note of a request with 'head' (the private copy, which is what will be
 * sent, and in which the msize of a Tversion is lowered) from ring number
 * 'ring'.  Returns NULL or what is wrong with it. */
const char *
p9frame_request(struct p9frame *f, uint8_t *head, uint32_t head_size,
                unsigned int ring)
{
    uint16_t tag = get_le16(head + 5);
    struct p9frame_tag *t = &f->tags[tag];

    if (t->ring1) {
        COVERAGE_INC(p9_duplicate_tag);
        return "the tag is in flight already";
    }
    t->ring1 = ring + 1;
    t->type = head[4];
    t->oldtag = tag;
    f->n_in_flight++;
    f->n_by_ring[ring]++;
    if (head[4] == NINEP_TVERSION) {
        COVERAGE_INC(p9_version);
        f->is_resetting = true;
        f->version_tag = tag;
        if (head_size >= 11 && get_le32(head + 7) > f->max) {
            put_le32(head + 7, f->max);
        }
    } else if (head[4] == NINEP_TFLUSH && head_size >= 9) {
        COVERAGE_INC(p9_flush);
        t->oldtag = get_le16(head + 7);
    }
    return NULL;
}

/* How many bytes of a response with header 'head' p9frame_response() needs. */
uint32_t
p9frame_response_head(const uint8_t head[7])
{
    return head[4] == NINEP_RVERSION && get_le32(head) >= 11 ? 11 : 7;
}

static void
p9frame_release__(struct p9frame *f, uint16_t tag)
{
    if (f->tags[tag].ring1) {
        f->n_by_ring[f->tags[tag].ring1 - 1]--;
        f->tags[tag].ring1 = 0;
        f->n_in_flight--;
    }
}

/* The session begins anew: nothing else will be answered. */
static void
p9frame_reset__(struct p9frame *f, const uint8_t *head)
{
    for (uint32_t i = 0; f->n_in_flight && i < N_TAGS; i++) {
        p9frame_release__(f, i);
    }
    f->is_resetting = false;
    f->msize = f->max;
    if (head[4] == NINEP_RVERSION && get_le32(head) >= 11) {
        uint32_t msize = get_le32(head + 7);

        f->msize = MIN(MAX(msize, XEN9PFS_HEADER_SIZE), f->max);
    }
}

/* Matches a response with 'head' (of p9frame_response_head() bytes) with its
 * request: stores the ring that brought that in '*ret_ring' and the length of
 * the response in '*ret_size', and takes the tag out of flight.  Returns NULL
 * or what is wrong with it. */
const char *
p9frame_response(struct p9frame *f, const uint8_t *head, int *ret_ring,
                 uint32_t *ret_size)
{
    uint32_t size = get_le32(head);
    uint16_t tag = get_le16(head + 5);
    struct p9frame_tag t = f->tags[tag];

    if (size < XEN9PFS_HEADER_SIZE) {
        return "shorter than a header";
    }
    if (size > f->max) {
        return "longer than msize";
    }
    if (!t.ring1) {
        COVERAGE_INC(p9_unknown_tag);
        return "a tag that is not in flight";
    }
    p9frame_release__(f, tag);
    if (t.type == NINEP_TFLUSH && head[4] == NINEP_RFLUSH) {
        p9frame_release__(f, t.oldtag);
    }
    if (f->is_resetting && tag == f->version_tag) {
        p9frame_reset__(f, head);
    }
    *ret_ring = t.ring1 - 1;
    *ret_size = size;
    return NULL;
}

/* Returns the ring whose request is the only one in flight, so that the next
 * bytes from vafsd can be nothing but its answer, with a head of 7 bytes; or
 * -1. */
int
p9frame_only_ring(const struct p9frame *f)
{
    if (f->n_in_flight == 1 && !f->is_resetting) {
        for (int i = 0; i < P9FRAME_MAX_RINGS; i++) {
            if (f->n_by_ring[i]) {
                return i;
            }
        }
    }
    return -1;
}
