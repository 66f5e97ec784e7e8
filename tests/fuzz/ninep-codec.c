/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fuzz target: the 9P decoder.  What it accepts, the encoder must give back
 * byte for byte; printing it must end. */

#include <stdlib.h>

#include "lib/ninep/codec.h"
#include "tests/fuzz/fuzz.h"

int
LLVMFuzzerInitialize(int *argc UNUSED, char ***argv UNUSED)
{
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ninep_msg msg;
    char text[256];

    if (!ninep_decode(data, size, &msg, NULL)) {
        uint8_t *again = malloc(size + 4);
        size_t n = 0;

        if (!again || ninep_encode(&msg, again, size + 4, &n)) {
            abort();
        }
        /* Tfsync may come without its last field. */
        if ((n != size && msg.type != NINEP_TFSYNC) ||
            memcmp(again + 4, data + 4, size - 4)) {
            abort();
        }
        free(again);
        ninep_format(&msg, text, sizeof text);
    }
    if (size > 11) {
        struct ninep_data d = {data, size};
        struct ninep_dirent e;
        uint32_t pos = 0;

        while (!ninep_dirent_get(&d, &pos, &e)) {
            continue;
        }
    }
    return 0;
}
