/* Seccomp: from a flat description of a profile to a BPF program, with libseccomp; for pyrunc/seccomp.py alone.
 * init loads the program with seccomp(2) and knows nothing of libseccomp.
 */
#ifndef PYRUNC_SECCOMP_H
#define PYRUNC_SECCOMP_H

#include <stddef.h>
#include <stdint.h>

/* One entry of `syscalls`: its names and conditions are the next ones of the two lists. */
struct pr_seccomp_rule {
    uint32_t action; /* SECCOMP_RET_* with its data */
    uint32_t names;  /* how many */
    uint32_t args;   /* how many */
    uint32_t either; /* not 0: each condition is a rule of its own */
};

struct pr_seccomp_arg {
    uint32_t index; /* 0 .. 5 */
    uint32_t op;    /* enum scmp_compare: 1 NE, 2 LT, 3 LE, 4 EQ, 5 GE, 6 GT, 7 MASKED_EQ */
    uint64_t value;
    uint64_t value_two;
};

/* What failed: stage 1 making a filter, 2 an architecture, 3 a rule, 4 writing the program; and its place. */
struct pr_seccomp_fault {
    int stage;
    int index; /* of the architecture or the rule */
    int name;  /* within the rule */
};

/* libseccomp's version, major * 65536 + minor * 256 + micro. */
int pr_seccomp_version(void);
/* 1 when this kernel knows SECCOMP_FILTER_FLAG_* bits (which may have to be asked for together). */
int pr_seccomp_flag(unsigned int flag);
/* libseccomp's token of an architecture ("x86_64", "aarch64" ...), "" for the native one; -EINVAL when
 * unknown. */
int64_t pr_seccomp_arch(const char *name);
/* Compile.  `archs`: tokens besides the native one; `names`: all names, each with its NUL; `enosys`: answer
 * ENOSYS to system calls that are newer than any the profile names, instead of the default action.  Returns
 * the size of the program in bytes; with *fault filled in -E2BIG (longer than `size`), -EDOM (an architecture
 * of the other byte order), -EINVAL, -ENOMEM ... */
int pr_seccomp_compile(uint32_t default_action, int enosys, const uint32_t *archs, int narchs,
                       const struct pr_seccomp_rule *rules, int nrules, const char *names,
                       const struct pr_seccomp_arg *args, void *out, size_t size,
                       struct pr_seccomp_fault *fault);

#endif
