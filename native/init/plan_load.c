#include "plan_load.h"

#include <errno.h>
#include <string.h>

#include "init.h"

struct area {
    const char *base;
    size_t size; /* the last byte is NUL, so every string that starts inside ends inside */
};

/* Check that `count` consecutive strings are inside the area. */
static int list_fits(const struct area *a, size_t offset, uint32_t count)
{
    while (count--) {
        if (offset >= a->size)
            return 0;
        offset += strlen(a->base + offset) + 1;
    }
    return 1;
}

static int blob_fits(const struct area *a, size_t offset, uint32_t length)
{
    if (length > a->size - offset)
        return 0;
    /* Filters and group lists are used in place. */
    return length == 0 || ((uintptr_t)(a->base + offset) & 7) == 0;
}

static const char *check_step(const struct plan_step *st, const struct area *a)
{
    const struct plan_op_info *info;

    if (st->op == 0 || st->op > OP_LAST)
        return "unknown op";
    info = &plan_ops[st->op];
    /* A policy bit is a security decision (a fallback, a follow), so an unknown one must not be
     * ignored. */
    if (st->policy & ~info->policy)
        return "unknown policy bit";
    for (int i = 0; i < PLAN_STRINGS; i++) {
        uint32_t offset = st->s[i];
        uint32_t count = st->n[info->count[i]];

        if (offset >= a->size)
            return "string outside the string area";
        switch (info->kind[i]) {
        case KIND_NONE:
            if (offset)
                return "string where the op has none";
            break;
        case KIND_LIST:
            if (!list_fits(a, offset, count))
                return "list outside the string area";
            break;
        case KIND_BLOB:
            if (!blob_fits(a, offset, count))
                return "blob outside the string area or not aligned";
            break;
        default:
            break;
        }
    }
    return NULL;
}

static const char *check_header(const struct plan_header *h, size_t len)
{
    if (h->size != len)
        return "the size in the header differs from the plan's size";
    if (h->nsteps == 0 || h->nsteps > PLAN_MAX_STEPS)
        return "no steps, or too many";
    if (h->nfds == 0 || h->nfds > MAX_FDS)
        return "no descriptors, or too many";
    if (h->npreserve > INT32_MAX - 4)
        return "too many preserved descriptors";
    if (h->flags & ~(PLAN_TRACE | PLAN_AHEAD))
        return "unknown flag";
    if (h->strings >= len || h->strings < sizeof(*h) + h->nsteps * sizeof(struct plan_step))
        return "the string area is outside the plan or inside the steps";
    return NULL;
}

int plan_check(const void *buf, size_t len, const char **why, uint32_t *step)
{
    const struct plan_header *h = buf;
    const struct plan_step *steps = (const void *)(h + 1);
    struct area a;

    *step = NO_SLOT;
    if (len < sizeof(*h) || len > PLAN_MAX_SIZE || (uintptr_t)buf & 7) {
        *why = "size or alignment";
        return -EINVAL;
    }
    if (h->magic != PLAN_MAGIC || h->abi != PLAN_ABI) {
        *why = "not a plan of this build";
        return -EPROTO;
    }
    *why = check_header(h, len);
    if (*why)
        return -EINVAL;
    a.base = (const char *)buf + h->strings;
    a.size = len - h->strings;
    if (a.base[0] || a.base[a.size - 1]) {
        *why = "the string area does not begin and end with NUL";
        return -EINVAL;
    }
    for (uint32_t i = 0; i < h->nsteps; i++) {
        *why = check_step(&steps[i], &a);
        if (*why) {
            *step = i;
            return -EINVAL;
        }
    }
    *step = NO_SLOT;
    return 0;
}
