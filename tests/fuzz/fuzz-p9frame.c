/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz-p9frame.c - the 9P framing of a worker: a stream of heads, each a
 * request (from one of two rings) or a response, against a simple model of
 * what is in flight.
 *
 * Input: records of 12 bytes: kind[1] head[11].
 */
#include <stdlib.h>

#include "backend/files/p9frame.h"
#include "tests/fuzz/fuzz.h"
#include "wire/ninep.h"

#define MSIZE (64 * 1024)

static uint8_t in_flight[65536]; /* Ring + 1. */

int
LLVMFuzzerInitialize(int *argc UNUSED, char ***argv UNUSED)
{
    return 0;
}

static void
request(struct p9frame *f, const uint8_t record[12])
{
    uint8_t head[P9FRAME_HEAD_MAX];
    uint32_t size, n;
    uint16_t tag;

    memcpy(head, record + 1, sizeof head);
    if (p9frame_is_resetting(f) || p9frame_check_size(f, head, MSIZE, &size)) {
        return;
    }
    if (size < 7 || size > f->msize || size > MSIZE) {
        abort();
    }
    n = p9frame_request_head(head, size);
    if (n < 7 || n > sizeof head || n > size) {
        abort();
    }
    tag = get_le16(head + 5);
    if (!p9frame_request(f, head, n, record[0] >> 1 & 1)) {
        if (in_flight[tag]) {
            abort();
        }
        in_flight[tag] = (record[0] >> 1 & 1) + 1;
        if (head[4] == NINEP_TVERSION && n == 11 &&
            get_le32(head + 7) > MSIZE) {
            abort();
        }
    } else if (!in_flight[tag]) {
        abort();
    }
}

static void
response(struct p9frame *f, const uint8_t record[12])
{
    bool was_resetting = f->is_resetting;
    const uint8_t *head = record + 1;
    uint16_t tag = get_le16(head + 5);
    uint32_t size;
    int ring;

    if (p9frame_response_head(head) > P9FRAME_HEAD_MAX) {
        abort();
    }
    if (p9frame_response(f, head, &ring, &size)) {
        return;
    }
    if (size < 7 || size > MSIZE || ring != in_flight[tag] - 1) {
        abort();
    }
    in_flight[tag] = 0;
    if (was_resetting && !f->is_resetting) {
        memset(in_flight, 0, sizeof in_flight);
    }
    if (f->msize < 7 || f->msize > MSIZE) {
        abort();
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct p9frame f;
    bool flushed = false;

    if (p9frame_init(&f)) {
        return 0;
    }
    p9frame_set_max(&f, MSIZE);
    memset(in_flight, 0, sizeof in_flight);
    for (; size >= 12; data += 12, size -= 12) {
        /* Rflush frees another tag, which the model does not follow. */
        flushed |= data[5] == NINEP_TFLUSH;
        if (flushed && data[0] & 1) {
            break;
        }
        if (data[0] & 1) {
            response(&f, data);
        } else {
            request(&f, data);
        }
    }
    p9frame_destroy(&f);
    return 0;
}
