/* From a seccomp profile to a BPF program. */
#include "seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define X32_BIT 0x40000000u
/* Calls of 32-bit ARM that are no system calls: breakpoint, cacheflush, set_tls ...
 * (arch/arm/include/uapi/asm/unistd.h). */
#define ARM_PRIVATE 0x0f0000u
#define MAX_ARCHS   32
#define CHECK_MAX   7
/* libseccomp searches a filter linearly, which shows on every system call of a long profile; its binary tree
 * is for those only (with few rules there is nothing to win, and 2.5 fails on an empty one). */
#define LONG_PROFILE 32u

/* Where the system calls that a profile knows end, per AUDIT_ARCH; x86_64 and x32 share one. */
struct known {
    uint32_t audit_arch;
    uint32_t end; /* the first number that is too new; 0: the profile names nothing of this architecture */
    uint32_t x32_end; /* with X32_BIT */
    int arm;
};

struct profile {
    uint32_t default_action;
    const uint32_t *archs;
    int narchs;
    const struct pr_seccomp_rule *rules;
    int nrules;
    const char *names;
    const struct pr_seccomp_arg *args;
};

int pr_seccomp_flag(unsigned int flag)
{
    /* Without a program: EFAULT when it gets as far as reading it. */
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (unsigned long)flag, NULL) < 0 && errno == EFAULT;
}

int pr_seccomp_version(void)
{
    const struct scmp_version *v = seccomp_version();
    return v ? (int)(v->major << 16 | v->minor << 8 | v->micro) : 0;
}

int64_t pr_seccomp_arch(const char *name)
{
    uint32_t token = name[0] ? seccomp_arch_resolve_name(name) : seccomp_arch_native();
    return token ? (int64_t)token : -EINVAL;
}

/* -- rules ---------------------------------------------------------------------------------------------- */

static int add_architectures(scmp_filter_ctx ctx, const struct profile *p, struct pr_seccomp_fault *fault)
{
    fault->stage = 2;
    for (fault->index = 0; fault->index < p->narchs; fault->index++) {
        int ret = seccomp_arch_add(ctx, p->archs[fault->index]);
        if (ret < 0 && ret != -EEXIST)
            return ret;
    }
    return 0;
}

static int add_rule(scmp_filter_ctx ctx, uint32_t action, int nr, const struct scmp_arg_cmp *cmp,
                    unsigned int count)
{
    int ret = seccomp_rule_add_array(ctx, action, nr, count, cmp);
    /* Engines put their profiles together from pieces, in which a rule may come twice. */
    return ret == -EEXIST ? 0 : ret;
}

/* One name of one entry. */
static int add_call(scmp_filter_ctx ctx, const struct pr_seccomp_rule *rule, int nr,
                    const struct pr_seccomp_arg *args)
{
    struct scmp_arg_cmp cmp[6];
    int ret = 0;
    if (rule->args == 0)
        return add_rule(ctx, rule->action, nr, NULL, 0);
    for (uint32_t i = 0; i < rule->args && ret == 0; i++) {
        struct scmp_arg_cmp one = {.arg = args[i].index,
                                   .op = (enum scmp_compare)args[i].op,
                                   .datum_a = args[i].value,
                                   .datum_b = args[i].value_two};
        if (rule->either)
            ret = add_rule(ctx, rule->action, nr, &one, 1);
        else if (i < 6)
            cmp[i] = one;
        else
            ret = -EINVAL; /* seven different arguments: there are only six */
    }
    if (ret == 0 && !rule->either)
        ret = add_rule(ctx, rule->action, nr, cmp, rule->args);
    return ret;
}

static int add_rules(scmp_filter_ctx ctx, const struct profile *p, struct pr_seccomp_fault *fault)
{
    const char *name = p->names;
    const struct pr_seccomp_arg *args = p->args;
    fault->stage = 3;
    for (fault->index = 0; fault->index < p->nrules; fault->index++) {
        const struct pr_seccomp_rule *rule = &p->rules[fault->index];
        for (fault->name = 0; (uint32_t)fault->name < rule->names; fault->name++) {
            int nr = seccomp_syscall_resolve_name(name);
            name += strlen(name) + 1;
            /* libseccomp refuses rules that change nothing.  A name that it does not know is of another
             * kernel. */
            if (rule->action == p->default_action || nr == __NR_SCMP_ERROR)
                continue;
            int ret = add_call(ctx, rule, nr, args);
            if (ret < 0)
                return ret;
        }
        args += rule->args;
    }
    return 0;
}

/* -- ENOSYS for what the profile cannot know ------------------------------------------------------------ */

/* A profile lists what was there when it was written.  glibc tries a newer system call and falls back when it
 * gets ENOSYS; with the profile's EPERM it gives up instead (clone3, faccessat2, openat2 were such cases).  So
 * a call with a higher number than any that the profile names, whatever it says about them, is answered as an
 * old kernel would.  Numbers grow over time on every architecture. */
static void remember(struct known *k, uint32_t token, const struct profile *p)
{
    const char *name = p->names;
    for (int r = 0; r < p->nrules; r++) {
        for (uint32_t i = 0; i < p->rules[r].names; i++) {
            int nr = seccomp_syscall_resolve_name_arch(token, name);
            uint32_t *end = token == SCMP_ARCH_X32 ? &k->x32_end : &k->end;
            name += strlen(name) + 1;
            if (nr < 0 ||
                (k->arm && (uint32_t)nr >= ARM_PRIVATE)) /* negative: unknown, or not of this architecture */
                continue;
            if ((uint32_t)nr >= *end)
                *end = (uint32_t)nr + 1;
        }
    }
}

static int find_known(struct known *found, const struct profile *p)
{
    int count = 0;
    for (int i = -1; i < p->narchs && count < MAX_ARCHS; i++) {
        uint32_t token = i < 0 ? seccomp_arch_native() : p->archs[i];
        uint32_t audit_arch = token == SCMP_ARCH_X32 ? SCMP_ARCH_X86_64 : token;
        int at = 0;
        while (at < count && found[at].audit_arch != audit_arch)
            at++;
        if (at == count)
            found[count++] = (struct known){.audit_arch = audit_arch, .arm = token == SCMP_ARCH_ARM};
        remember(&found[at], token, p);
    }
    return count;
}

static struct sock_filter insn(unsigned int code, uint32_t k, int jt, int jf)
{
    return (struct sock_filter){.code = (uint16_t)code, .jt = (uint8_t)jt, .jf = (uint8_t)jf, .k = k};
}

/* The check for one architecture.  Falls out of its end when the call is to be judged by the profile.
 *
 *      ld arch                      every time: an x32 number can look like the AUDIT_ARCH of i386
 *      jeq arch, next, JUDGE
 *      ld nr
 *      (x86_64)  jset X32_BIT, the x32 check, next        (arm)  jge ARM_PRIVATE, JUDGE, next
 *      jge end, DENY, JUDGE
 *      (x86_64)  jge end of x32, DENY, JUDGE
 *  DENY:   ret ERRNO(ENOSYS)
 *  JUDGE:
 */
static int check_arch(struct sock_filter *out, const struct known *k)
{
    int x86_64 = k->audit_arch == SCMP_ARCH_X86_64;
    int judge = x86_64 ? 7 : k->arm ? 6 : 5;
    int deny = judge - 1, at = 0;
    out[at++] = insn(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
    out[at] = insn(BPF_JMP | BPF_JEQ | BPF_K, k->audit_arch, 0, judge - at - 1);
    at++;
    out[at++] = insn(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
    if (x86_64) {
        /* Without x32 in the profile, libseccomp's part answers such calls. */
        out[at] = insn(BPF_JMP | BPF_JSET | BPF_K, X32_BIT, k->x32_end ? 1 : judge - at - 1, 0);
        at++;
    } else if (k->arm) {
        out[at] = insn(BPF_JMP | BPF_JGE | BPF_K, ARM_PRIVATE, judge - at - 1, 0);
        at++;
    }
    /* An end of 0 stands for none, and 0 >= 0 would deny everything. */
    out[at] = insn(BPF_JMP | BPF_JGE | BPF_K, k->end, (k->end ? deny : judge) - at - 1, judge - at - 1);
    at++;
    if (x86_64) {
        out[at] = insn(BPF_JMP | BPF_JGE | BPF_K, k->x32_end, deny - at - 1, judge - at - 1);
        at++;
    }
    out[at++] = insn(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS, 0, 0);
    return at;
}

/* The checks for all architectures: at most CHECK_MAX * MAX_ARCHS instructions, none when the profile names
 * nothing. */
static int checks(struct sock_filter *out, const struct profile *p)
{
    struct known found[MAX_ARCHS];
    int count = find_known(found, p), at = 0;
    for (int i = 0; i < count; i++)
        if (found[i].end || found[i].x32_end)
            at += check_arch(out + at, &found[i]);
    return at;
}

/* -- the program ---------------------------------------------------------------------------------------- */

/* What libseccomp exports, behind `have` bytes of `out`.  It writes to a descriptor only (before 2.6). */
static int append_export(scmp_filter_ctx ctx, char *out, size_t have, size_t size)
{
    int fd = memfd_create("pyrunc-seccomp", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    int ret = seccomp_export_bpf(ctx, fd);
    off_t length = ret == 0 ? lseek(fd, 0, SEEK_END) : -1;
    if (ret == 0 && length < 0)
        ret = -errno;
    if (ret == 0 && have + (size_t)length > size)
        ret = -E2BIG;
    if (ret == 0) {
        ssize_t got = pread(fd, out + have, (size_t)length, 0);
        ret = got < 0 ? -errno : got != length ? -EIO : (int)(have + (size_t)length);
    }
    close(fd);
    return ret;
}

static int build(scmp_filter_ctx ctx, const struct profile *p, int enosys, char *out, size_t size,
                 struct pr_seccomp_fault *fault)
{
    uint32_t calls = 0;
    int ret = add_architectures(ctx, p, fault);
    if (ret < 0)
        return ret;
    for (int i = 0; i < p->nrules && calls <= LONG_PROFILE; i++)
        calls += p->rules[i].names;
#if SCMP_VER_MAJOR > 2 || (SCMP_VER_MAJOR == 2 && SCMP_VER_MINOR >= 5)
    if (calls > LONG_PROFILE)
        (void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* slower without, not wrong */
#endif
    ret = add_rules(ctx, p, fault);
    if (ret < 0)
        return ret;
    struct sock_filter head[CHECK_MAX * MAX_ARCHS];
    size_t have = enosys ? (size_t)checks(head, p) * sizeof(*head) : 0;
    *fault = (struct pr_seccomp_fault){.stage = 4};
    if (have > size)
        return -E2BIG;
    memcpy(out, head, have);
    return append_export(ctx, out, have, size);
}

int pr_seccomp_compile(uint32_t default_action, int enosys, const uint32_t *archs, int narchs,
                       const struct pr_seccomp_rule *rules, int nrules, const char *names,
                       const struct pr_seccomp_arg *args, void *out, size_t size,
                       struct pr_seccomp_fault *fault)
{
    struct profile p = {default_action, archs, narchs, rules, nrules, names, args};
    *fault = (struct pr_seccomp_fault){.stage = 1};
    scmp_filter_ctx ctx = seccomp_init(default_action);
    if (!ctx)
        return -EINVAL;
    int ret = build(ctx, &p, enosys, out, size, fault);
    seccomp_release(ctx);
    return ret;
}
