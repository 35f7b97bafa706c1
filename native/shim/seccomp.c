/* Compile a seccomp profile to a BPF program: see seccomp.h. */
#include "seccomp.h"
#include "image.h"
#include "sandbox.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define X32_BIT 0x40000000u
/* Private calls of 32-bit ARM: breakpoint, cacheflush, set_tls ...
 * (arch/arm/include/uapi/asm/unistd.h). */
#define ARM_PRIVATE 0x0f0000u
#define MAX_ARCHS   32
#define CHECK_MAX   7
/* libseccomp's default filter is searched linearly, which slows down every system call under a
 * long profile. The binary tree is for those: short ones gain nothing, and 2.5 fails on an empty
 * one. */
#define LONG_PROFILE 32u

/* The end of the system calls that a profile knows, per AUDIT_ARCH; x86_64 and x32 share one. */
struct known {
    uint32_t audit_arch;
    uint32_t end; /* the first number that is too new; 0: the profile names nothing of this architecture */
    uint32_t x32_end; /* with X32_BIT */
    int arm;
};

struct profile {
    struct pr_seccomp_head head;
    const struct pr_seccomp_arg *args;
    const struct pr_seccomp_rule *rules;
    const uint32_t *archs;
    const char *names;
    int nrules;
    int narchs;
};

/* What failed, numbered as in seccomp.h, and where. */
enum { STAGE_FILTER = 1, STAGE_ARCH, STAGE_RULE, STAGE_EXPORT, STAGE_DEATH, STAGE_NONSENSE, STAGE_NO_ANSWER };
struct fault {
    int32_t stage;
    int32_t index; /* of the architecture or the rule */
    int32_t name;  /* within the rule */
};

/* The end of the child's answer, after the program. */
struct tail {
    uint32_t magic;
    int32_t ret;
    struct fault fault;
};
#define TAIL_MAGIC 0x7061636bu

int pr_seccomp_flag(unsigned int flag)
{
    /* Without a program: EFAULT means that the kernel has accepted the flag. */
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

int pr_seccomp_number(uint32_t arch, const char *name)
{
    return seccomp_syscall_resolve_name_arch(arch, name);
}

int pr_seccomp_name(uint32_t arch, int number, void *name, size_t size)
{
    char *found = seccomp_syscall_resolve_num_arch(arch, number);
    size_t length = found ? strlen(found) : 0;
    int ret = !found ? -ENOENT : length > size ? -ENOSPC : (int)length;
    if (ret >= 0)
        memcpy(name, found, length);
    free(found);
    return ret;
}

int pr_seccomp_arch_usable(uint32_t token)
{
    /* In this process: nothing here comes from a profile. */
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int ret = ctx ? seccomp_arch_add(ctx, token) : -ENOMEM;
    seccomp_release(ctx);
    return ret == -ENOMEM ? ret : ret == 0 || ret == -EEXIST;
}

/* -- rules ------------------------------------------------------------------------------------- */

static int add_architectures(scmp_filter_ctx ctx, const struct profile *p, struct fault *fault)
{
    fault->stage = STAGE_ARCH;
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
    /* Engines assemble profiles from parts, which may contain the same rule. */
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
            ret = -EINVAL; /* seven different arguments; there are only six */
    }
    if (ret == 0 && !rule->either)
        ret = add_rule(ctx, rule->action, nr, cmp, rule->args);
    return ret;
}

static int add_rules(scmp_filter_ctx ctx, const struct profile *p, struct fault *fault)
{
    const char *name = p->names;
    const struct pr_seccomp_arg *args = p->args;
    fault->stage = STAGE_RULE;
    for (fault->index = 0; fault->index < p->nrules; fault->index++) {
        const struct pr_seccomp_rule *rule = &p->rules[fault->index];
        for (fault->name = 0; (uint32_t)fault->name < rule->names; fault->name++) {
            int nr = seccomp_syscall_resolve_name(name);
            name += strlen(name) + 1;
            /* libseccomp rejects rules that change nothing. An unknown name belongs to another
             * kernel. */
            if (rule->action == p->head.default_action || nr == __NR_SCMP_ERROR)
                continue;
            int ret = add_call(ctx, rule, nr, args);
            if (ret < 0)
                return ret;
        }
        args += rule->args;
    }
    return 0;
}

/* -- ENOSYS for what the profile cannot know --------------------------------------------------- */

/* A profile lists the system calls that existed when it was written. glibc tries newer ones and
 * falls back on ENOSYS, but fails on the profile's EPERM (clone3, faccessat2 and openat2 were
 * such cases). Therefore a call with a higher number than every one that the profile names gets
 * ENOSYS, as from an older kernel. Numbers grow over time on every architecture. */
static void remember(struct known *k, uint32_t token, const struct profile *p)
{
    const char *name = p->names;
    for (int r = 0; r < p->nrules; r++) {
        for (uint32_t i = 0; i < p->rules[r].names; i++) {
            int nr = seccomp_syscall_resolve_name_arch(token, name);
            uint32_t *end = token == SCMP_ARCH_X32 ? &k->x32_end : &k->end;
            name += strlen(name) + 1;
            if (nr < 0 ||
                (k->arm &&
                 (uint32_t)nr >= ARM_PRIVATE)) /* negative: unknown, or missing on this architecture */
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

/* The check for one architecture.  It falls through to the profile's own rules.
 *
 *      ld arch                      every time: an x32 number can equal the AUDIT_ARCH of i386
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
        /* If the profile lacks x32, libseccomp's code answers such calls. */
        out[at] = insn(BPF_JMP | BPF_JSET | BPF_K, X32_BIT, k->x32_end ? 1 : judge - at - 1, 0);
        at++;
    } else if (k->arm) {
        out[at] = insn(BPF_JMP | BPF_JGE | BPF_K, ARM_PRIVATE, judge - at - 1, 0);
        at++;
    }
    /* An end of 0 means none; 0 >= 0 would deny everything. */
    out[at] = insn(BPF_JMP | BPF_JGE | BPF_K, k->end, (k->end ? deny : judge) - at - 1, judge - at - 1);
    at++;
    if (x86_64) {
        out[at] = insn(BPF_JMP | BPF_JGE | BPF_K, k->x32_end, deny - at - 1, judge - at - 1);
        at++;
    }
    out[at++] = insn(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS, 0, 0);
    return at;
}

/* The checks for all architectures: at most CHECK_MAX * MAX_ARCHS instructions, none if the
 * profile names no system call. */
static int checks(struct sock_filter *out, const struct profile *p)
{
    struct known found[MAX_ARCHS];
    int count = find_known(found, p), at = 0;
    for (int i = 0; i < count; i++)
        if (found[i].end || found[i].x32_end)
            at += check_arch(out + at, &found[i]);
    return at;
}

/* -- the child --------------------------------------------------------------------------------- */

/* Find the parts of a profile.  Returns 0, or -EINVAL if they are inconsistent. */
static int parse(struct profile *p, const void *data, size_t length)
{
    uint64_t names = 0, args = 0, ends = 0;
    if (length < sizeof p->head)
        return -EINVAL;
    memcpy(&p->head, data, sizeof p->head);
    const struct pr_seccomp_head *h = &p->head;
    if ((uint64_t)h->args_size + h->rules_size + h->archs_size + h->names_size != length - sizeof *h ||
        h->args_size % sizeof *p->args || h->rules_size % sizeof *p->rules ||
        h->archs_size % sizeof *p->archs)
        return -EINVAL;
    p->args = (const void *)((const char *)data + sizeof *h);
    p->rules = (const void *)((const char *)p->args + h->args_size);
    p->archs = (const void *)((const char *)p->rules + h->rules_size);
    p->names = (const char *)p->archs + h->archs_size;
    p->nrules = (int)(h->rules_size / sizeof *p->rules);
    p->narchs = (int)(h->archs_size / sizeof *p->archs);
    for (int i = 0; i < p->nrules; i++) {
        names += p->rules[i].names;
        args += p->rules[i].args;
    }
    for (uint32_t i = 0; i < h->names_size; i++)
        ends += p->names[i] == '\0';
    return names == ends && args == h->args_size / sizeof *p->args ? 0 : -EINVAL;
}

static int add_everything(scmp_filter_ctx ctx, const struct profile *p, struct fault *fault)
{
    uint32_t calls = 0;
    int ret = add_architectures(ctx, p, fault);
    if (ret < 0)
        return ret;
    for (int i = 0; i < p->nrules && calls <= LONG_PROFILE; i++)
        calls += p->rules[i].names;
#if SCMP_VER_MAJOR > 2 || (SCMP_VER_MAJOR == 2 && SCMP_VER_MINOR >= 5)
    if (calls > LONG_PROFILE)
        (void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* only slower without it */
#endif
    return add_rules(ctx, p, fault);
}

static int compile(const void *data, size_t length, int out, struct fault *fault)
{
    struct profile p;
    struct sock_filter head[CHECK_MAX * MAX_ARCHS];
    fault->stage = STAGE_FILTER;
    int ret = parse(&p, data, length);
    scmp_filter_ctx ctx = ret == 0 ? seccomp_init(p.head.default_action) : NULL;
    if (!ctx)
        return -EINVAL;
    ret = add_everything(ctx, &p, fault);
    if (ret < 0)
        return ret;
    *fault = (struct fault){.stage = STAGE_EXPORT};
    if (p.head.enosys)
        ret = write_all(out, (const char *)head, (size_t)checks(head, &p) * sizeof *head);
    /* Before 2.6 it can only write to a descriptor.  The memory is freed with the process. */
    return ret < 0 ? ret : seccomp_export_bpf(ctx, out);
}

static void work(const void *data, size_t length, int out)
{
    struct tail tail = {.magic = TAIL_MAGIC};
    tail.ret = compile(data, length, out, &tail.fault);
    (void)write_all(out, (const char *)&tail, sizeof tail);
}

/* -- the parent -------------------------------------------------------------------------------- */

static int report_fault(int report[3], int stage, int index, int err)
{
    report[0] = stage;
    report[1] = index;
    return err;
}

/* The size of the program in an answer of `got` bytes, or -errno. Only its form is checked: the
 * kernel checks every instruction when it loads the program, and the profile's author decides
 * what it allows. */
static int judge(const struct sandbox *c, size_t got, int report[3])
{
    struct tail tail;
    if (WIFSIGNALED(c->status) || got < sizeof tail)
        return report_fault(report, STAGE_DEATH, c->status, -ECHILD);
    memcpy(&tail, (const char *)c->answer + got - sizeof tail, sizeof tail);
    size_t size = got - sizeof tail;
    int success = tail.ret == 0 && size > 0 && size % sizeof(struct sock_filter) == 0;
    int failure = tail.ret < 0 && tail.ret >= -4095 && tail.fault.stage >= STAGE_FILTER &&
                  tail.fault.stage <= STAGE_EXPORT;
    if (tail.magic != TAIL_MAGIC || (!success && !failure))
        return report_fault(report, STAGE_NONSENSE, 0, -EBADMSG);
    if (success)
        return (int)size;
    report[2] = tail.fault.name;
    return report_fault(report, tail.fault.stage, tail.fault.index, tail.ret);
}

int pr_seccomp_compile(const void *profile, size_t length, void *program, size_t size, int report[3])
{
    size_t room = size + sizeof(struct tail) + 1; /* one more than the longest answer */
    struct sandbox c = {
        .work = work, .input = profile, .length = length, .answer = malloc(room), .room = room};
    memset(report, 0, 3 * sizeof *report);
    c.failed = "malloc";
    int ret = c.answer ? sandbox_run(&c) : -ENOMEM;
    if (ret >= 0)
        ret = judge(&c, (size_t)ret, report);
    else if (c.failed)
        report[0] = STAGE_NO_ANSWER;
    else
        report[0] = ret == -E2BIG ? STAGE_EXPORT : STAGE_DEATH;
    if (ret > 0)
        memcpy(program, c.answer, (size_t)ret);
    else if (report[0] == STAGE_NO_ANSWER && strlen(c.failed) < size)
        memcpy(program, c.failed, strlen(c.failed) + 1);
    free(c.answer);
    return ret;
}
