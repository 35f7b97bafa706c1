/* See calls.h.  A function missing here or in calls.flags is a linker error. */
#include "calls.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

struct calls calls = {.fail_at = -1};

static const struct {
    long number;
    const char *name;
} numbers[] = {
    {SYS_openat2, "openat2"}, {SYS_open_tree, "open_tree"},         {SYS_move_mount, "move_mount"},
    {SYS_fsopen, "fsopen"},   {SYS_fsconfig, "fsconfig"},           {SYS_fsmount, "fsmount"},
    {SYS_fspick, "fspick"},   {SYS_mount_setattr, "mount_setattr"}, {SYS_pivot_root, "pivot_root"},
    {SYS_statx, "statx"},     {SYS_getdents64, "getdents64"},       {SYS_faccessat2, "faccessat2"},
};

static const char *name_of(const char *name, long number)
{
    for (size_t i = 0; name == NULL && i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (numbers[i].number == number)
            return numbers[i].name;
    return name ? name : "syscall";
}

static void watch(const char *name, int after)
{
    int saved = errno;

    calls.armed = 0;
    if (calls.watch)
        calls.watch(name, after);
    calls.armed = 1;
    errno = saved;
}

/* The numeric arguments with their own meaning: flags, modes, commands, ids.  `a` is the number
 * of a system call without a libc function.  '*': a structure of 64-bit words, whose size is the
 * next argument. */
static const struct {
    const char *name, *words;
} numbered[] = {
    {"openat", "c"},      {"open", "b"},       {"openat2", "d*"},
    {"open_tree", "d"},   {"dup3", "c"},       {"faccessat", "cd"},
    {"faccessat2", "de"}, {"fchmod", "b"},     {"fchmodat", "cd"},
    {"fchown", "bc"},     {"fchownat", "cde"}, {"fcntl", "b"},
    {"fstatat", "d"},     {"ioctl", "b"},      {"lseek", "c"},
    {"mkdirat", "c"},     {"mknodat", "cd"},   {"mount", "d"},
    {"setns", "b"},       {"umount2", "b"},    {"clone", "c"},
    {"unshare", "a"},     {"utimensat", "d"},  {"move_mount", "f"},
    {"fsopen", "c"},      {"fsconfig", "cf"},  {"fsmount", "cd"},
    {"fspick", "d"},      {"statx", "de"},     {"mount_setattr", "de*"},
};

static void log_call(const char *name, const long *args)
{
    const char *words = "";

    for (size_t i = 0; i < sizeof(numbered) / sizeof(numbered[0]); i++)
        if (strcmp(numbered[i].name, name) == 0)
            words = numbered[i].words;
    if (strcmp(name, "ioctl") == 0 && args[1] == TIOCGPTPEER)
        words = "bc";
    fprintf(calls.log, "%s", name);
    for (; *words; words++) {
        long value = args[*words - 'a'];
        if (words[1] != '*') {
            fprintf(calls.log, " %#x", (unsigned)value);
            continue;
        }
        const uint64_t *field = (const uint64_t *)value;
        for (long size = args[*words++ - 'a' + 1]; size > 0; size -= (long)sizeof(*field))
            fprintf(calls.log, " %#lx", (unsigned long)*field++);
    }
    fputc('\x1f', calls.log);
}

typedef long function(long, long, long, long, long, long, long);

static long call(const char *name, function *real, long a, long b, long c, long d, long e, long f, long g)
{
    if (!calls.armed)
        return real(a, b, c, d, e, f, g);
    name = name_of(name, a);
    if (calls.log)
        log_call(name, (long[]){a, b, c, d, e, f, g});
    watch(name, 0);
    long index = calls.count++;
    if (calls.fail_at >= 0 && index >= calls.fail_at && index <= calls.fail_at + calls.more) {
        calls.hit = name;
        errno = calls.error;
        return -1;
    }
    long ret = real(a, b, c, d, e, f, g);
    watch(name, 1);
    return ret;
}

/* All arguments are integers or pointers.  They are passed on unchanged, however many there are. */
#define WRAP_AS(function_name, name)                                                    \
    function __real_##function_name, __wrap_##function_name;                            \
    long __wrap_##function_name(long a, long b, long c, long d, long e, long f, long g) \
    {                                                                                   \
        return call(name, __real_##function_name, a, b, c, d, e, f, g);                 \
    }
#define WRAP(name) WRAP_AS(name, #name)

WRAP(chdir)
WRAP(chroot)
WRAP(clone)
WRAP(dup2)
WRAP(dup3)
WRAP(faccessat)
WRAP(fchdir)
WRAP(fchmod)
WRAP(fchmodat)
WRAP(fchown)
WRAP(fchownat)
WRAP(fcntl)
WRAP(fgetxattr)
WRAP(flistxattr)
WRAP(fsetxattr)
WRAP(fstat)
WRAP(fstatat)
WRAP(fstatfs)
WRAP(ftruncate)
WRAP(futimens)
WRAP(ioctl)
WRAP(lseek)
WRAP(mkdirat)
WRAP(mknodat)
WRAP(mount)
WRAP(open)
WRAP(openat)
WRAP(pread)
WRAP(pwrite)
WRAP(read)
WRAP(readlinkat)
WRAP(sendmsg)
WRAP(setdomainname)
WRAP(sethostname)
WRAP(setns)
WRAP(symlinkat)
WRAP(umount2)
WRAP(unshare)
WRAP(utimensat)
WRAP(write)
WRAP_AS(syscall, NULL)
