/* Compile a flat description of a seccomp profile to a BPF program with libseccomp; for
 * pyrunc/seccomp.py. init loads the program with seccomp(2) and does not use libseccomp.
 */
#ifndef PYRUNC_SECCOMP_H
#define PYRUNC_SECCOMP_H

#include <stddef.h>
#include <stdint.h>

#include "marks.h"

/* A profile in one buffer: the head, then conditions, rules, architectures (uint32_t tokens of
 * libseccomp other than the native one) and names (NUL-terminated). Sizes are in bytes.
 *
 * enosys, if not 0: system calls newer than every one that the profile names get ENOSYS instead
 * of the default action. The first two fields are not read; they are part of the cache key. */
struct pr_seccomp_head {
    uint32_t format;
    uint32_t version;
    uint32_t default_action; /* SECCOMP_RET_* with its data */
    uint32_t enosys;
    uint32_t args_size;
    uint32_t rules_size;
    uint32_t archs_size;
    uint32_t names_size;
};

struct pr_seccomp_arg {
    uint32_t index; /* 0 .. 5 */
    uint32_t op;    /* enum scmp_compare: 1 NE, 2 LT, 3 LE, 4 EQ, 5 GE, 6 GT, 7 MASKED_EQ */
    uint64_t value;
    uint64_t value_two;
};

/* One entry of `syscalls`; its names and conditions come next in the two lists. */
struct pr_seccomp_rule {
    uint32_t action; /* SECCOMP_RET_* with its data */
    uint32_t names;  /* how many */
    uint32_t args;   /* how many */
    uint32_t either; /* not 0: each condition is a separate rule */
};

/* libseccomp's version, major * 65536 + minor * 256 + micro. */
int pr_seccomp_version(void);
/* 1 if this kernel supports SECCOMP_FILTER_FLAG_* bits; some must be tested together. */
int pr_seccomp_flag(unsigned int flag);
/* libseccomp's token of an architecture ("x86_64", "aarch64" ...), "" for the native one;
 * -EINVAL if it is unknown. */
int64_t pr_seccomp_arch(const char *name);
/* 1 if a filter for this machine can include this architecture, 0 if not; -ENOMEM if that cannot be
 * determined. */
int pr_seccomp_arch_usable(uint32_t token);
/* The number of a system call; negative if this architecture lacks it, -1 if libseccomp does not
 * know the name. */
int pr_seccomp_number(uint32_t arch, const char *name) PR_VALUE;
/* The name of a system call.  Returns its length, or -ENOENT; -ENOSPC if `size` is too small. */
int pr_seccomp_name(uint32_t arch, int number, void *name, size_t size);
/* Compile a profile in a sandboxed child (sandbox.h): libseccomp is not safe for hostile profiles.
 * Returns the size of the program in bytes, a multiple of 8; its content is not checked.  On failure
 * -errno, and report[0] is what failed:
 *   1 creating the filter, 2 architecture report[1], 3 name report[2] of rule report[1], 4 writing the
 *     program (-E2BIG: longer than `size`), with libseccomp's errno;
 *   5 the child: -ECHILD, its wait status is report[1]; -ETIMEDOUT; -EINTR, a signal was recorded;
 *   6 the child's answer: -EBADMSG, it is malformed;
 *   7 creating the child or reading its answer: `program` holds the name of the failed call. */
int pr_seccomp_compile(const void *profile, size_t length, void *program, size_t size, int report[3]);

#endif
