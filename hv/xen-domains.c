/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The part of hv/hv.h that needs libxenctrl.  It is not in hv/xen.c so that
 * workers, which link that, do not load libxenctrl.
 */
#include "hv/hv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xenctrl.h>

#include "lib/util.h"

static const struct {
    uint32_t xen, ours;
} flags[] = {
    {XEN_DOMINF_dying, HV_DOMAIN_DYING},
    {XEN_DOMINF_shutdown, HV_DOMAIN_SHUTDOWN},
    {XEN_DOMINF_paused, HV_DOMAIN_PAUSED},
    {XEN_DOMINF_blocked, HV_DOMAIN_BLOCKED},
    {XEN_DOMINF_running, HV_DOMAIN_RUNNING},
    {XEN_DOMINF_hvm_guest, HV_DOMAIN_HVM},
};

static void
convert(const xc_domaininfo_t *info, struct hv_domain *domain)
{
    BUILD_ASSERT(sizeof info->handle == sizeof domain->uuid);

    memset(domain, 0, sizeof *domain);
    domain->domid = info->domain;
    domain->n_vcpus = info->nr_online_vcpus;
    domain->n_pages = info->tot_pages;
    memcpy(domain->uuid, info->handle, sizeof domain->uuid);
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        if (info->flags & flags[i].xen) {
            domain->flags |= flags[i].ours;
        }
    }
}

int
hv_domains(const char *spec, struct hv_domain **ret_domains, size_t *ret_n)
{
    enum { BATCH = 64 };
    xc_domaininfo_t *infos = NULL;
    struct hv_domain *domains = NULL;
    xc_interface *xch;
    uint32_t first = 0;
    int error = 0, n;
    size_t n_all = 0;

    if (strcmp(spec, "xen")) {
        return EOPNOTSUPP;
    }
    xch = xc_interface_open(NULL, NULL, 0);
    if (!xch) {
        return errno == ENOENT || errno == EACCES ? EOPNOTSUPP : errno;
    }
    infos = calloc(BATCH, sizeof *infos);
    do {
        struct hv_domain *bigger =
            realloc(domains, (n_all + BATCH) * sizeof *domains);

        if (!infos || !bigger) {
            error = ENOMEM;
            break;
        }
        domains = bigger;
        n = xc_domain_getinfolist(xch, first, BATCH, infos);
        if (n < 0) {
            error = errno == EPERM || errno == EACCES ? EOPNOTSUPP : errno;
            break;
        }
        for (int i = 0; i < n; i++) {
            convert(&infos[i], &domains[n_all++]);
            first = infos[i].domain + 1;
        }
    } while (n == BATCH);
    xc_interface_close(xch);
    free(infos);
    if (error) {
        free(domains);
        return error;
    }
    *ret_domains = domains;
    *ret_n = n_all;
    return 0;
}
