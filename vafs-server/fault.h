/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Faults on purpose: a file layer that lets chosen calls of the store fail.
 * Only a daemon that was started with --fault has it. */
#ifndef VAFS_FAULT_H
#define VAFS_FAULT_H 1

#include "lib/util.h"

struct file_layer;

/* Puts a layer that passes everything on to 'below', which it owns. */
int fault_layer_create(struct file_layer *below,
                       struct file_layer **ret) NODISCARD;

/* Lets the 'n'-th next call (1: the next one) of 'operation' ("open", "pread",
 * "pwritev", "datasync", "truncate", "allocate", "rename", "sync_dir") fail
 * with 'error', and with 'sticky' all after it.  'n' 0 takes the fault away.
 * EINVAL: no such operation. */
int fault_set(struct file_layer *, const char *operation, unsigned int n,
              int error, bool sticky) NODISCARD;

#endif /* vafs-server/fault.h */
