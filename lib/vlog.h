/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * vlog.h - log lines on standard error, with a level and a rate limit for what
 * a peer can provoke.  A line is one write(2), so that lines of several
 * processes do not mix.
 */
#ifndef LIB_VLOG_H
#define LIB_VLOG_H 1

#include <stdarg.h>
#include <stdint.h>

#include "lib/util.h"

enum vlog_level { VLOG_OFF, VLOG_ERR, VLOG_WARN, VLOG_INFO, VLOG_DBG };

/* A token bucket.  Tokens are in 1/1000. */
struct vlog_rate_limit {
    unsigned int per_minute, burst;
    uint64_t tokens, last_ns;
    unsigned int n_dropped;
};
#define VLOG_RATE_LIMIT_INIT(PER_MINUTE, BURST)                               \
    {                                                                         \
        .per_minute = (PER_MINUTE), .burst = (BURST), .tokens = (BURST) *1000 \
    }

void vlog_init(const char *program);
int vlog_set_level(const char *level) NODISCARD;
const char *vlog_get_level(void);
bool vlog_is_enabled(enum vlog_level);
void vlog_write(enum vlog_level, const char *file, const char *fmt, ...)
    PRINTF_FORMAT(3, 4);
bool vlog_rate_limit_pass(struct vlog_rate_limit *, const char *file);

#define VLOG__(LEVEL, ...)                            \
    do {                                              \
        if (vlog_is_enabled(LEVEL)) {                 \
            vlog_write(LEVEL, __FILE__, __VA_ARGS__); \
        }                                             \
    } while (0)
#define VLOG_RL__(LEVEL, RL, ...)                                           \
    do {                                                                    \
        if (vlog_is_enabled(LEVEL) && vlog_rate_limit_pass(RL, __FILE__)) { \
            vlog_write(LEVEL, __FILE__, __VA_ARGS__);                       \
        }                                                                   \
    } while (0)

#define vlog_err(...) VLOG__(VLOG_ERR, __VA_ARGS__)
#define vlog_warn(...) VLOG__(VLOG_WARN, __VA_ARGS__)
#define vlog_info(...) VLOG__(VLOG_INFO, __VA_ARGS__)
#define vlog_dbg(...) VLOG__(VLOG_DBG, __VA_ARGS__)
#define vlog_err_rl(RL, ...) VLOG_RL__(VLOG_ERR, RL, __VA_ARGS__)
#define vlog_warn_rl(RL, ...) VLOG_RL__(VLOG_WARN, RL, __VA_ARGS__)
#define vlog_info_rl(RL, ...) VLOG_RL__(VLOG_INFO, RL, __VA_ARGS__)

#endif /* lib/vlog.h */
