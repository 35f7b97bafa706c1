/* Scheduling of the container's program: CPUs, scheduling class, I/O priority, memory policy. */
#include "sys.h"

#include <string.h>

#include "init.h"
#include "text.h"

/* sched_setattr(2), <linux/sched/types.h>, with the two clamps that Linux 5.3 added */
struct sched_attributes {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime; /* ns, like the next two */
    uint64_t deadline;
    uint64_t period;
    uint32_t util_min;
    uint32_t util_max;
};
_Static_assert(sizeof(struct sched_attributes) == 56, "SCHED_ATTR_SIZE_VER1");

enum { CLASS_FIFO = 1, CLASS_RR = 2 }; /* SCHED_FIFO and SCHED_RR take a priority */

/* The policy bits of the step are the kernel's flags. */
_Static_assert(P_SCHEDULER_RESET_ON_FORK == 0x01 && P_SCHEDULER_RECLAIM == 0x02 &&
                   P_SCHEDULER_DL_OVERRUN == 0x04 && P_SCHEDULER_KEEP_POLICY == 0x08 &&
                   P_SCHEDULER_KEEP_PARAMS == 0x10 && P_SCHEDULER_UTIL_CLAMP_MIN == 0x20 &&
                   P_SCHEDULER_UTIL_CLAMP_MAX == 0x40,
               "SCHED_FLAG_* of <linux/sched.h>");

/* ioprio_set(2), <linux/ioprio.h> */
#define IOPRIO_WHO_PROCESS 1L
#define IOPRIO_CLASS_SHIFT 13

/* set_mempolicy(2), <linux/mempolicy.h>: the mode's upper bits */
#define MPOL_FLAGS_SHIFT 13
_Static_assert(P_MEMORY_POLICY_NUMA_BALANCING == 1 && P_MEMORY_POLICY_RELATIVE_NODES == 2 &&
                   P_MEMORY_POLICY_STATIC_NODES == 4,
               "MPOL_F_* >> MPOL_FLAGS_SHIFT");

#define CPU_MASK_BYTES 1024 /* 8192 CPUs, the kernel's maximum */

/* Raw call: libc's wrapper may check the mask against its own cpu set. */
static int set_affinity(const void *mask, size_t bytes)
{
    return (int)sys_ret(syscall(SYS_sched_setaffinity, 0L, bytes, mask));
}

/* Since Linux 6.2 the kernel keeps a requested mask across later changes of cpuset.cpus: a
 * caller bound to CPU 0 would bind all of its containers to it (runc issue 3922).  A failure
 * does no harm. */
void all_cpus(void)
{
    unsigned char mask[CPU_MASK_BYTES];

    memset(mask, 0xff, sizeof(mask));
    (void)set_affinity(mask, sizeof(mask));
}

static int cpus(struct init *in, const char *mask, uint32_t bytes)
{
    int ret = set_affinity(mask, bytes);

    if (ret == -EINVAL)
        return fault(in, EINVAL, "sched_setaffinity", -1, 0,
                     "invalid argument: none of these cpus is online and in the cpuset");
    return ret < 0 ? fault(in, -ret, "sched_setaffinity", -1, 0, "") : 0;
}

int op_cpu_initial(struct init *in, const struct plan_step *st)
{
    return cpus(in, step_str(in, st, S_CPU_INITIAL_cpus), st->n[L_CPU_INITIAL_cpus]);
}

int op_cpu_final(struct init *in, const struct plan_step *st)
{
    if (st->n[L_CPU_FINAL_cpus] == 0) {
        all_cpus();
        return 0;
    }
    return cpus(in, step_str(in, st, S_CPU_FINAL_cpus), st->n[L_CPU_FINAL_cpus]);
}

/* Runs while we have CAP_SYS_NICE, which realtime classes need. */
int op_scheduler(struct init *in, const struct plan_step *st)
{
    int32_t level = (int32_t)st->n[N_SCHEDULER_level];
    struct sched_attributes attr = {
        .size = sizeof(attr),
        .policy = st->n[N_SCHEDULER_kind],
        .flags = st->policy,
        .runtime = step_u64(st, N_SCHEDULER_runtime),
        .deadline = step_u64(st, N_SCHEDULER_deadline),
        .period = step_u64(st, N_SCHEDULER_period),
    };

    if (attr.policy == CLASS_FIFO || attr.policy == CLASS_RR)
        attr.priority = (uint32_t)level;
    else
        attr.nice = level;
    int ret = (int)sys_ret(syscall(SYS_sched_setattr, 0L, &attr, 0L));
    return ret < 0 ? fault(in, -ret, "sched_setattr", -1, 0, "") : 0;
}

int op_io_priority(struct init *in, const struct plan_step *st)
{
    long value = (long)(st->n[N_IO_PRIORITY_kind] << IOPRIO_CLASS_SHIFT | st->n[N_IO_PRIORITY_level]);
    int ret = (int)sys_ret(syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0L, value));

    return ret < 0 ? fault(in, -ret, "ioprio_set", -1, 0, "") : 0;
}

/* The policy persists across fork and execve.  Runs after MOUNTED, when cpuset.mems is set: the
 * kernel restricts the policy to it, and adapts the policy to later changes. */
int op_memory_policy(struct init *in, const struct plan_step *st)
{
    uint32_t bytes = st->n[L_MEMORY_POLICY_nodes];
    long mode = (long)(st->n[N_MEMORY_POLICY_mode] | (uint32_t)st->policy << MPOL_FLAGS_SHIFT);
    const char *mask = bytes ? step_str(in, st, S_MEMORY_POLICY_nodes) : NULL;
    long bits = bytes ? (long)bytes * 8 + 1 : 0; /* the kernel uses one bit less than the number */
    int ret = (int)sys_ret(syscall(SYS_set_mempolicy, mode, mask, bits));

    return ret < 0 ? fault(in, -ret, "set_mempolicy", -1, 0, "") : 0;
}
