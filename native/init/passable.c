/* Decide whether init could finish its plan under a seccomp filter, without loading it.
 *
 * `exec` loads the filter before processes of the container can see its process, i.e. before
 * CLONE_INIT.  Most filters allow the few system calls that remain then.  The interpreter handles
 * the instructions that seccomp(2) accepts and libseccomp emits.  A filter with any other
 * instruction counts as one that blocks us.
 */
#include "sys.h"

#include <string.h>
#include <sys/ioctl.h>

#include "init.h"

/* <linux/filter.h>, <linux/bpf_common.h> */
struct instruction {
    uint16_t code;
    uint8_t if_true;
    uint8_t if_false;
    uint32_t k;
};

enum code {
    LD_ABS = 0x20, /* BPF_LD | BPF_W | BPF_ABS */
    JMP = 0x05,    /* BPF_JMP | BPF_JA */
    JMP_EQ = 0x15,
    JMP_GT = 0x25,
    JMP_GE = 0x35,
    JMP_SET = 0x45,
    AND = 0x54, /* BPF_ALU | BPF_AND | BPF_K */
    RET = 0x06
};

/* <linux/seccomp.h>, <linux/audit.h> */
#define ACT_ALLOW 0x7fff0000u
#define ACT_LOG   0x7ffc0000u
#define ACTION    0xffff0000u
#if defined(__x86_64__)
#define ARCHITECTURE 0xc000003eu
#else
#define ARCHITECTURE 0xc00000b7u
#endif

/* The input of a filter: struct seccomp_data. */
struct call {
    uint32_t number;
    uint32_t architecture;
    uint64_t address;
    uint64_t args[6];
};
_Static_assert(sizeof(struct call) == 64, "struct seccomp_data of <linux/seccomp.h>");

/* Returns 1 if the jump is taken, 0 if not, -1 for other instructions. */
static int jumps(const struct instruction *at, uint32_t a)
{
    switch (at->code) {
    case JMP_EQ:
        return a == at->k;
    case JMP_GT:
        return a > at->k;
    case JMP_GE:
        return a >= at->k;
    case JMP_SET:
        return (a & at->k) != 0;
    default:
        return -1;
    }
}

/* Returns the filter's action for a call, or 0 (kill) for an unknown instruction.  Jumps only go
 * forward, so the loop ends. */
static uint32_t action_of(const struct instruction *filter, uint32_t count, const struct call *call)
{
    uint32_t a = 0;

    for (uint64_t pc = 0; pc < count; pc++) {
        const struct instruction *at = &filter[pc];
        int taken = jumps(at, a);

        if (taken >= 0)
            pc += taken ? at->if_true : at->if_false;
        else if (at->code == JMP)
            pc += at->k;
        else if (at->code == AND)
            a &= at->k;
        else if (at->code == LD_ABS && at->k % 4 == 0 && at->k < sizeof(*call))
            memcpy(&a, (const char *)call + at->k, sizeof(a));
        else
            return at->code == RET ? at->k & ACTION : 0;
    }
    return 0;
}

static int allowed(const void *filter, uint32_t count, long number, uint64_t first, uint64_t second)
{
    const struct call call = {
        .number = (uint32_t)number, .architecture = ARCHITECTURE, .args = {first, second}};
    uint32_t action = action_of(filter, count, &call);

    return action == ACT_ALLOW || action == ACT_LOG;
}

int filter_allows(const struct init *in, long number, uint64_t first, uint64_t second)
{
    if (!in->filtered)
        return 1;
    for (uint32_t i = 0; i < in->plan->nsteps; i++) {
        const struct plan_step *st = &in->steps[i];

        if (st->op == OP_SECCOMP) /* if there are two, they have the same filter */
            return allowed(step_str(in, st, S_SECCOMP_filter),
                           st->n[L_SECCOMP_filter] / sizeof(struct instruction), number, first, second);
    }
    return 0;
}

/* Addresses are passed as 0: a filter cannot use them in a meaningful way. */
int filter_passable(const struct init *in, const void *filter, uint32_t count)
{
    uint64_t sock = (uint64_t)in->sock;
    int ok = in->at_cwd && in->exe[0] && allowed(filter, count, SYS_read, sock, 0) &&
             allowed(filter, count, SYS_write, sock, 0) && allowed(filter, count, SYS_exit_group, 0, 0);

    for (uint32_t i = in->step; ok && i < in->plan->nsteps; i++) {
        const struct plan_step *st = &in->steps[i];

        switch (st->op) {
        case OP_SECCOMP:
            ok = !(st->policy & P_SECCOMP_LISTENER) || allowed(filter, count, SYS_close, 0, 0);
            break;
        case OP_DROP_ADMIN:
            ok = !in->admin || allowed(filter, count, SYS_capset, 0, 0);
            break;
        case OP_CLONE_INIT:
            ok = allowed(filter, count, SYS_clone, CLONE_PARENT, 0);
            break;
        case OP_SETSID:
            ok = allowed(filter, count, SYS_setsid, 0, 0) &&
                 (!(st->policy & P_SETSID_TERMINAL) || allowed(filter, count, SYS_ioctl, 0, TIOCSCTTY));
            break;
        case OP_RLIMIT:
            ok = allowed(filter, count, SYS_prlimit64, 0, st->n[N_RLIMIT_resource]);
            break;
        default:
            break;
        }
    }
    return ok;
}
