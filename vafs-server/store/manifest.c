/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The manifest of the index; see manifest.h and format.h.  It is small (16
 * bytes for each run and segment) and is written anew as a whole. */

#include "vafs-server/store/manifest.h"

#include <errno.h>
#include <stdlib.h>

#include "vafs-server/store/codec.h"

#define MANIFEST_NAME "idx/manifest"
#define MANIFEST_TEMPORARY "idx/manifest.new"

void
manifest_destroy(struct manifest *m)
{
    free(m->runs);
    free(m->segments);
    memset(m, 0, sizeof *m);
}

static uint64_t
manifest_sum__(const uint8_t *data, size_t size)
{
    return codec_sum(data + MAN_HEADER_SIZE, size - MAN_HEADER_SIZE,
                     codec_sum(data, MAN_OFS_SUM, 0));
}

static int
manifest_decode__(const uint8_t *data, size_t size, const uint8_t uuid[16],
                  struct manifest *m)
{
    const uint8_t *p = data + MAN_HEADER_SIZE;

    if (size < MAN_HEADER_SIZE || get_le64(data) != MAN_MAGIC ||
        data[MAN_OFS_FORMAT] != MAN_FORMAT ||
        memcmp(data + MAN_OFS_UUID, uuid, 16)) {
        return EBADMSG;
    }
    m->n_runs = get_le32(data + MAN_OFS_N_RUNS);
    m->n_segments = get_le32(data + MAN_OFS_N_SEGMENTS);
    m->next_run = get_le64(data + MAN_OFS_NEXT_RUN);
    if (size != MAN_HEADER_SIZE + (uint64_t) m->n_runs * MAN_RUN_SIZE +
                    (uint64_t) m->n_segments * MAN_SEGMENT_SIZE ||
        manifest_sum__(data, size) != get_le64(data + MAN_OFS_SUM)) {
        return EBADMSG;
    }
    m->runs = calloc(m->n_runs + 1, sizeof *m->runs);
    m->segments = calloc(m->n_segments + 1, sizeof *m->segments);
    if (!m->runs || !m->segments) {
        manifest_destroy(m);
        return ENOMEM;
    }
    for (uint32_t i = 0; i < m->n_runs; i++, p += MAN_RUN_SIZE) {
        m->runs[i].number = get_le64(p);
        m->runs[i].tier = get_le32(p + 8);
    }
    for (uint32_t i = 0; i < m->n_segments; i++, p += MAN_SEGMENT_SIZE) {
        m->segments[i].pack = get_le64(p);
        m->segments[i].covered = get_le32(p + 8);
        m->segments[i].class = p[12];
        m->segments[i].sealed = p[13];
        m->segments[i].generation = p[14] < 3 ? p[14] : 0;
    }
    return 0;
}

int
manifest_read(struct file_layer *files, const uint8_t uuid[16],
              struct manifest *ret)
{
    uint8_t *data = NULL;
    struct manifest m = {.n_runs = 0};
    uint64_t size;
    int error, file;

    error = files->ops->open(files, MANIFEST_NAME, 0, &file);
    if (error) {
        return error;
    }
    error = files->ops->size(files, file, &size);
    if (!error) {
        error = size > (256u << 20) ? EBADMSG : 0;
    }
    if (!error) {
        data = malloc(size + 1);
        error = data ? file_pread_all(files, file, data, size, 0) : ENOMEM;
    }
    files->ops->close(files, file);
    if (!error) {
        error = manifest_decode__(data, size, uuid, &m);
    }
    free(data);
    if (!error) {
        *ret = m;
    }
    return error;
}

static void
manifest_encode__(uint8_t *data, size_t size, const uint8_t uuid[16],
                  const struct manifest *m)
{
    uint8_t *p = data + MAN_HEADER_SIZE;

    put_le64(data, MAN_MAGIC);
    data[MAN_OFS_FORMAT] = MAN_FORMAT;
    memcpy(data + MAN_OFS_UUID, uuid, 16);
    put_le32(data + MAN_OFS_N_RUNS, m->n_runs);
    put_le32(data + MAN_OFS_N_SEGMENTS, m->n_segments);
    put_le64(data + MAN_OFS_NEXT_RUN, m->next_run);
    for (uint32_t i = 0; i < m->n_runs; i++, p += MAN_RUN_SIZE) {
        put_le64(p, m->runs[i].number);
        put_le32(p + 8, m->runs[i].tier);
    }
    for (uint32_t i = 0; i < m->n_segments; i++, p += MAN_SEGMENT_SIZE) {
        put_le64(p, m->segments[i].pack);
        put_le32(p + 8, m->segments[i].covered);
        p[12] = m->segments[i].class;
        p[13] = m->segments[i].sealed;
        p[14] = m->segments[i].generation;
    }
    put_le64(data + MAN_OFS_SUM, manifest_sum__(data, size));
}

int
manifest_write(struct file_layer *files, const uint8_t uuid[16],
               const struct manifest *m)
{
    size_t size = MAN_HEADER_SIZE + (size_t) m->n_runs * MAN_RUN_SIZE +
                  (size_t) m->n_segments * MAN_SEGMENT_SIZE;
    uint8_t *data = calloc(1, size);
    int error, file;

    if (!data) {
        return ENOMEM;
    }
    manifest_encode__(data, size, uuid, m);
    error = files->ops->open(files, MANIFEST_TEMPORARY,
                             FILE_WRITE | FILE_CREATE, &file);
    if (!error) {
        error = files->ops->truncate(files, file, 0);
        if (!error) {
            error = file_pwrite(files, file, data, size, 0);
        }
        if (!error) {
            error = files->ops->datasync(files, file);
        }
        files->ops->close(files, file);
    }
    free(data);
    if (!error) {
        /* The runs' own names become durable here too. */
        error = files->ops->sync_dir(files, "idx");
    }
    if (!error) {
        error = files->ops->rename(files, MANIFEST_TEMPORARY, MANIFEST_NAME);
    }
    return error ? error : files->ops->sync_dir(files, "idx");
}

const struct manifest_segment *
manifest_find(const struct manifest *m, uint64_t pack)
{
    uint32_t low = 0, high = m->n_segments;

    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (m->segments[mid].pack == pack) {
            return &m->segments[mid];
        }
        if (m->segments[mid].pack < pack) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return NULL;
}
