/* F2: read plans from standard input, and write the result of plan_load.c to standard output, until
 * the end of file.
 *
 * In:  u32 size, the plan.  Out: u32 size, then either `-errno` as i32, or i32 0, u32 nfds, u32
 * npreserve, and for each step u16 op, u16 policy, u32 n[8], and its four strings: u32 count, and
 * for each string u32 length, bytes.  A blob is one string.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "init.h"
#include "plan_load.h"

static char *out;
static size_t used, room;

static void put(const void *data, size_t len)
{
    if (used + len > room) {
        room = 2 * (used + len);
        out = realloc(out, room);
        if (!out)
            abort();
    }
    memcpy(out + used, data, len);
    used += len;
}

static void put_number(uint32_t value)
{
    put(&value, sizeof(value));
}

static void put_string(const char *text, size_t len)
{
    put_number((uint32_t)len);
    put(text, len);
}

static void put_step(const struct init *in, const struct plan_step *st)
{
    const struct plan_op_info *info = &plan_ops[st->op];

    put(st, offsetof(struct plan_step, s));
    for (int i = 0; i < PLAN_STRINGS; i++) {
        const char *text = step_str(in, st, i);
        uint32_t count = st->n[info->count[i]];

        put_number(info->kind[i] == KIND_LIST ? count : info->kind[i] == KIND_NONE ? 0 : 1);
        if (info->kind[i] == KIND_STR)
            put_string(text, strlen(text));
        else if (info->kind[i] == KIND_BLOB)
            put_string(text, count);
        else if (info->kind[i] == KIND_LIST)
            for (; count; count--, text = list_next(text))
                put_string(text, strlen(text));
    }
}

static void dump(const char *plan, size_t size)
{
    struct init in = {.plan = (const void *)plan};
    const char *why;
    uint32_t step;
    int ret = plan_check(plan, size, &why, &step);

    used = 0;
    put_number((uint32_t)ret);
    if (ret < 0)
        return;
    in.steps = (const void *)(in.plan + 1);
    in.strings = plan + in.plan->strings;
    put_number(in.plan->nfds);
    put_number(in.plan->npreserve);
    for (uint32_t i = 0; i < in.plan->nsteps; i++)
        put_step(&in, &in.steps[i]);
}

int main(void)
{
    uint32_t size;

    while (fread(&size, sizeof(size), 1, stdin) == 1) {
        char *plan = malloc(size ? size : 1);

        if (!plan || fread(plan, 1, size, stdin) != size)
            return 2;
        dump(plan, size);
        free(plan);
        size = (uint32_t)used;
        fwrite(&size, sizeof(size), 1, stdout);
        fwrite(out, 1, used, stdout);
        fflush(stdout);
    }
    free(out);
    return 0;
}
