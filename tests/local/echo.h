/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * echo.h - a TCP echo server in a thread, the outside world of the tests.
 */
#ifndef TESTS_LOCAL_ECHO_H
#define TESTS_LOCAL_ECHO_H 1

#include <netinet/in.h>

struct echo;

struct echo *echo_start(struct sockaddr_in *ret_address);
void echo_stop(struct echo *);

/* A listener or a connection on the loopback interface. */
int tcp_listen(int backlog, struct sockaddr_in *ret_address);
int tcp_connect(const struct sockaddr_in *);
void tcp_reset(int fd);

#endif /* tests/local/echo.h */
