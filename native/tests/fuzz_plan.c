/* F3: any bytes as a plan.  libFuzzer, with the address and the undefined-behaviour sanitizer
 * (`make fuzz`).
 *
 * A plan that passes plan_check is read like the handlers read it; every read must stay inside the
 * block.  Three of four inputs get a correct size, magic and ABI, so that the fuzzer need not guess
 * them.
 */
#include <stdlib.h>
#include <string.h>

#include "init.h"
#include "plan_load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned sink;

static void read_list(const struct init *in, const struct plan_step *st, int slot, uint32_t count,
                      char **room)
{
    const char *item = step_str(in, st, slot);

    if (count < 4096) {
        char **end = pointer_list(room, item, count);
        if (end != room + count + 1 || end[-1])
            abort();
    }
    while (count--) {
        sink += (unsigned)strlen(item);
        item = list_next(item);
    }
}

static void read_step(const struct init *in, const struct plan_step *st, char **room)
{
    const struct plan_op_info *info = &plan_ops[st->op];

    for (int i = 0; i < PLAN_STRINGS; i++) {
        uint32_t count = st->n[info->count[i]];

        if (info->kind[i] == KIND_LIST)
            read_list(in, st, i, count, room);
        else if (info->kind[i] == KIND_BLOB)
            for (uint32_t at = 0; at < count; at++)
                sink += (unsigned char)step_str(in, st, i)[at];
        else
            sink += (unsigned)strlen(step_str(in, st, i));
    }
    for (int i = 0; i < PLAN_NUMBERS; i++)
        sink += (unsigned)slot_fd(in, st->n[i]);
    for (int i = 0; i + 1 < PLAN_NUMBERS; i++)
        sink += (unsigned)step_u64(st, i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char *room[4097];
    static struct init in;
    const char *why = NULL;
    uint32_t step = 0;
    int correct = size > 0 && (data[0] & 3) != 0;
    char *plan;

    if (size == 0)
        return 0;
    data++;
    size--;
    plan = malloc(size ? size : 1); /* of the exact length: the sanitizer detects a read past the end */
    memcpy(plan, data, size);
    struct plan_header *h = (void *)plan;
    if (correct && size >= sizeof(*h)) {
        h->magic = PLAN_MAGIC;
        h->abi = PLAN_ABI;
        h->size = (uint32_t)size;
        h->flags &= PLAN_TRACE;
    }
    int ret = plan_check(plan, size, &why, &step);
    if (ret == 0) {
        in.plan = h;
        in.steps = (const void *)(h + 1);
        in.strings = plan + h->strings;
        for (uint32_t i = 0; i < h->nsteps; i++)
            read_step(&in, &in.steps[i], room);
    } else if (!why || !*why || (step != NO_SLOT && step >= h->nsteps)) {
        abort(); /* an error has a reason and a location */
    }
    free(plan);
    return 0;
}
