/* Test plan_check on good plans, on violations of each rule, and on every one-byte corruption of a
 * good plan.
 *
 * After each corruption that passes the check, the test reads everything that a handler would read.
 * Under the address sanitizer this shows whether the check guarantees enough.
 */
#include "sys.h"

#include <stdlib.h>
#include <string.h>

#include "init.h"
#include "plan_load.h"
#include "tap.h"

#define MAX_PLAN 4096

struct builder {
    struct plan_header header;
    struct plan_step steps[8];
    char strings[1024];
    uint32_t used; /* bytes used in strings */
};

static void begin(struct builder *b)
{
    memset(b, 0, sizeof(*b));
    b->header = (struct plan_header){.magic = PLAN_MAGIC, .abi = PLAN_ABI, .nfds = 1};
    b->used = 1;
}

static struct plan_step *add_step(struct builder *b, uint16_t op)
{
    struct plan_step *st = &b->steps[b->header.nsteps++];

    st->op = op;
    return st;
}

static uint32_t add_bytes(struct builder *b, const char *data, size_t len)
{
    uint32_t offset = b->used;

    memcpy(b->strings + offset, data, len);
    b->used += (uint32_t)len;
    b->strings[b->used++] = 0;
    return offset;
}

static uint32_t add_str(struct builder *b, const char *s)
{
    return add_bytes(b, s, strlen(s));
}

static uint32_t add_blob(struct builder *b, const char *data, size_t len)
{
    while ((sizeof(b->header) + b->header.nsteps * sizeof(struct plan_step) + b->used) % 8)
        b->strings[b->used++] = 0;
    return add_bytes(b, data, len);
}

/* Allocate the plan with its exact length: the sanitizer detects a read past the end. */
static char *finish(struct builder *b, size_t *len)
{
    size_t steps = b->header.nsteps * sizeof(struct plan_step);
    char *plan;

    b->header.strings = (uint32_t)(sizeof(b->header) + steps);
    b->header.size = b->header.strings + b->used;
    *len = b->header.size;
    plan = malloc(*len);
    memcpy(plan, &b->header, sizeof(b->header));
    memcpy(plan + sizeof(b->header), b->steps, steps);
    memcpy(plan + b->header.strings, b->strings, b->used);
    return plan;
}

static char *good_plan(size_t *len)
{
    struct builder b;
    struct plan_step *st;

    begin(&b);
    b.header.nsteps = 5; /* blobs are aligned relative to the end of the steps */
    uint32_t host = add_str(&b, "host"), hook = add_str(&b, "/bin/hook");
    uint32_t args = add_str(&b, "hook");
    add_str(&b, "--flag");
    uint32_t env = add_str(&b, "A=1");
    uint32_t state = add_str(&b, "{");
    add_str(&b, "}");
    uint32_t gids = add_blob(&b, "\1\0\0\0\2\0\0\0", 8);
    b.header.nsteps = 0;

    st = add_step(&b, OP_HOSTNAME);
    st->s[S_HOSTNAME_name] = host;
    st = add_step(&b, OP_HOOK);
    st->policy = P_HOOK_IN_CONTAINER;
    st->s[S_HOOK_path] = hook;
    st->s[S_HOOK_args] = args;
    st->n[L_HOOK_args] = 2;
    st->s[S_HOOK_env] = env;
    st->n[L_HOOK_env] = 1;
    st->s[S_HOOK_state] = state;
    st->n[L_HOOK_state] = 2;
    st = add_step(&b, OP_GROUPS);
    st->s[S_GROUPS_gids] = gids;
    st->n[L_GROUPS_gids] = 8;
    st = add_step(&b, OP_PIVOT);
    st = add_step(&b, OP_EXECVE);
    st->s[S_EXECVE_args] = args;
    st->n[L_EXECVE_args] = 2;
    return finish(&b, len);
}

static int check(const char *plan, size_t len)
{
    const char *why = NULL;
    uint32_t step = 0;
    int ret = plan_check(plan, len, &why, &step);

    if (ret < 0 && (!why || !*why))
        abort(); /* an error has a reason */
    return ret;
}

static volatile unsigned sink;

static void read_list(const char *item, uint32_t count)
{
    for (; count; count--, item = list_next(item))
        sink += (unsigned)strlen(item);
}

/* Read a plan that passed like the handlers do. */
static void use(const char *plan)
{
    const struct plan_header *h = (const void *)plan;
    const struct plan_step *steps = (const void *)(h + 1);
    struct init in = {.plan = h, .steps = steps, .strings = plan + h->strings};

    for (uint32_t i = 0; i < h->nsteps; i++) {
        const struct plan_op_info *info = &plan_ops[steps[i].op];

        for (int slot = 0; slot < PLAN_STRINGS; slot++) {
            const char *data = step_str(&in, &steps[i], slot);
            uint32_t count = steps[i].n[info->count[slot]];

            if (info->kind[slot] == KIND_LIST)
                read_list(data, count);
            else if (info->kind[slot] == KIND_BLOB)
                for (uint32_t at = 0; at < count; at++)
                    sink += (unsigned char)data[at];
            else
                sink += (unsigned)strlen(data);
        }
    }
}

static void test_every_byte(void)
{
    size_t len, passed = 0;
    char *plan = good_plan(&len);

    for (size_t at = 0; at < len; at++) {
        char old = plan[at];

        for (int value = 0; value < 256; value++) {
            plan[at] = (char)value;
            if (check(plan, len) == 0) {
                use(plan);
                passed++;
            }
        }
        plan[at] = old;
    }
    OK(check(plan, len) == 0, "the plan is good again after every byte was every value");
    OK(passed > len && passed < 256 * len, "some corruptions are other good plans (%zu)", passed);
    free(plan);
}

static void test_every_length(void)
{
    size_t len;
    char *plan = good_plan(&len);
    int refused = 1;

    for (size_t shorter = 0; shorter < len; shorter++) {
        char *copy = malloc(shorter ? shorter : 1);

        memcpy(copy, plan, shorter);
        refused &= check(copy, shorter) < 0;
        if (shorter >= sizeof(struct plan_header)) {
            /* a header that matches the cut: the strings end too early, or without a NUL */
            ((struct plan_header *)(void *)copy)->size = (uint32_t)shorter;
            if (check(copy, shorter) == 0)
                use(copy);
        }
        free(copy);
    }
    OK(refused, "a plan that was cut off is refused");
    free(plan);
}

static void test_random(void)
{
    size_t len;
    char *plan = good_plan(&len), *copy = malloc(len);
    unsigned seed = 12345;
    int passed = 0;

    for (int round = 0; round < 50000; round++) {
        memcpy(copy, plan, len);
        for (int i = 0; i < 4; i++) {
            seed = seed * 1103515245u + 12345u;
            size_t at = 8 + (seed >> 8) % (len - 8); /* keep magic and abi, or nothing else is checked */
            seed = seed * 1103515245u + 12345u;
            copy[at] = (char)(seed >> 16);
        }
        if (check(copy, len) == 0) {
            use(copy);
            passed++;
        }
    }
    OK(passed < 50000, "random corruptions do not crash (%d are plans)", passed);
    free(copy);
    free(plan);
}

struct rule {
    const char *name;
    size_t offset; /* offset of a u32 */
    uint32_t value;
    int err;
};

#define STEP(i, member) \
    (sizeof(struct plan_header) + (i) * sizeof(struct plan_step) + offsetof(struct plan_step, member))

static void test_rules(void)
{
    static const struct rule rules[] = {
        {"magic", offsetof(struct plan_header, magic), 1, -EPROTO},
        {"abi", offsetof(struct plan_header, abi), 1, -EPROTO},
        {"size", offsetof(struct plan_header, size), 100, -EINVAL},
        {"no steps", offsetof(struct plan_header, nsteps), 0, -EINVAL},
        {"too many steps", offsetof(struct plan_header, nsteps), PLAN_MAX_STEPS + 1, -EINVAL},
        {"steps reach into the strings", offsetof(struct plan_header, nsteps), 6, -EINVAL},
        {"no descriptors", offsetof(struct plan_header, nfds), 0, -EINVAL},
        {"too many descriptors", offsetof(struct plan_header, nfds), MAX_FDS + 1, -EINVAL},
        {"too many preserved", offsetof(struct plan_header, npreserve), 0x7fffffff, -EINVAL},
        {"strings inside the steps", offsetof(struct plan_header, strings), 40, -EINVAL},
        {"strings beyond the end", offsetof(struct plan_header, strings), 0xffffffff, -EINVAL},
        {"unknown flag", offsetof(struct plan_header, flags), 4, -EINVAL},
        {"the most descriptors", offsetof(struct plan_header, nfds), MAX_FDS, 0},
        {"the most preserved", offsetof(struct plan_header, npreserve), INT32_MAX - 4, 0},
        {"one more preserved", offsetof(struct plan_header, npreserve), INT32_MAX - 3, -EINVAL},
        {"trace", offsetof(struct plan_header, flags), PLAN_TRACE, 0},
        {"ahead", offsetof(struct plan_header, flags), PLAN_TRACE | PLAN_AHEAD, 0},
        {"op 0", STEP(0, op), 0, -EINVAL},
        {"op beyond the last", STEP(0, op), OP_LAST + 1, -EINVAL},
        {"policy bit", STEP(1, op), OP_HOOK | 4u << 16, -EINVAL},
        {"policy bit where there is none", STEP(0, op), OP_HOSTNAME | 1u << 16, -EINVAL},
        {"string outside", STEP(0, s), 1 << 20, -EINVAL},
        {"string in a slot the op has not", STEP(3, s), 1, -EINVAL},
        {"list too long", STEP(1, n) + 4 * L_HOOK_args, 1000, -EINVAL},
        {"list longer than memory", STEP(1, n) + 4 * L_HOOK_args, 0xffffffff, -EINVAL},
        {"blob too long", STEP(2, n) + 4 * L_GROUPS_gids, 16, -EINVAL},
        {"blob longer than memory", STEP(2, n) + 4 * L_GROUPS_gids, 0xffffffff, -EINVAL},
        {"blob not aligned", STEP(2, s), 3, -EINVAL},
    };
    size_t len;
    char *plan = good_plan(&len);

    OK(check(plan, len) == 0, "a good plan is good");
    use(plan);
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        uint32_t old;

        memcpy(&old, plan + rules[i].offset, 4);
        memcpy(plan + rules[i].offset, &rules[i].value, 4);
        OK(check(plan, len) == rules[i].err, "refused: %s", rules[i].name);
        memcpy(plan + rules[i].offset, &old, 4);
    }
    plan[len - 1] = 'x';
    OK(check(plan, len) == -EINVAL, "refused: strings that do not end with NUL");
    free(plan);
    plan = malloc(len + 8);
    OK(check(plan + 4, len) == -EINVAL, "refused: not aligned");
    free(plan);
}

static void test_largest(void)
{
    size_t len;
    char *plan = good_plan(&len), *large = calloc(1, PLAN_MAX_SIZE + 8);
    struct plan_header *header = (void *)large;

    memcpy(large, plan, len);
    header->size = PLAN_MAX_SIZE;
    OK(check(large, PLAN_MAX_SIZE) == 0, "the largest plan is good");
    header->size = PLAN_MAX_SIZE + 8;
    OK(check(large, PLAN_MAX_SIZE + 8) == -EINVAL, "refused: larger than any plan");
    free(large);
    free(plan);
}

static void test_step_number(void)
{
    size_t len;
    char *plan = good_plan(&len);
    const char *why = NULL;
    uint32_t step = 0;

    ((struct plan_step *)(void *)(plan + sizeof(struct plan_header)))[2].op = 9999;
    OK(plan_check(plan, len, &why, &step) == -EINVAL && step == 2 && strcmp(why, "unknown op") == 0,
       "the step at fault is told");
    free(plan);
}

static void test_lists(void)
{
    static const char items[] = "one\0\0three";
    const char *second = list_next(items), *third = list_next(second);

    OK(strcmp(second, "") == 0 && strcmp(third, "three") == 0, "a list is walked, empty items too");
    OK(list_next(third) == items + sizeof(items), "the end is after the last NUL");

    char *room[5];
    char **end = pointer_list(room, items, 3);
    OK(end == room + 4 && room[0] == items && room[2] == third && !room[3], "a list becomes pointers, NULL");
    OK(pointer_list(room, items, 0) == room + 1 && !room[0], "an empty list is a NULL");
}

static void test_slots(void)
{
    struct init in = {.fds = {7, 8}};
    struct plan_step st = {.n = {1, 0x80000000u}};

    OK(slot_fd(&in, 1) == 8, "a slot has a descriptor");
    OK(slot_fd(&in, 0) == -1, "slot 0 is the plan's own, for no step");
    OK(slot_fd(&in, MAX_FDS) == -1 && slot_fd(&in, NO_SLOT) == -1, "a slot outside the table has none");
    OK(step_u64(&st, 0) == 0x8000000000000001u, "a u64 is two slots, low half first");
}

int main(void)
{
    test_rules();
    test_largest();
    test_step_number();
    test_every_byte();
    test_every_length();
    test_random();
    test_lists();
    test_slots();
    return tap_end();
}
