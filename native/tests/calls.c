/* See calls.h.  A function missing here or in calls.flags is a linker error. */
#include "calls.h"

#include "../init/sys.h"

#include <string.h>
#include <sys/ioctl.h>

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

/* The arguments with their own meaning: flags, modes, commands, ids; in capitals strings.  `a` is
 * the number of a system call without a libc function.  '*': a structure of 64-bit words, whose
 * size is the next argument. */
static const struct {
    const char *name, *words;
} arguments[] = {
    {"chdir", "A"},        {"chroot", "A"},      {"clone", "c"},          {"dup2", "b"},
    {"dup3", "bc"},        {"faccessat", "Bcd"}, {"faccessat2", "Cde"},   {"fchmod", "b"},
    {"fchmodat", "Bcd"},   {"fchown", "bc"},     {"fchownat", "Bcde"},    {"fcntl", "bc"},
    {"fgetxattr", "Bd"},   {"flistxattr", "c"},  {"fsconfig", "cDf"},     {"fsetxattr", "Bde"},
    {"fsmount", "cd"},     {"fsopen", "Bc"},     {"fspick", "Cd"},        {"fstatat", "Bd"},
    {"ftruncate", "b"},    {"getdents64", "d"},  {"ioctl", "b"},          {"lseek", "bc"},
    {"mkdirat", "Bc"},     {"mknodat", "Bcd"},   {"mount", "ABCdE"},      {"mount_setattr", "Cde*"},
    {"move_mount", "CEf"}, {"open", "Ab"},       {"open_tree", "Cd"},     {"openat", "Bc"},
    {"openat2", "Cd*"},    {"pivot_root", "BC"}, {"pread", "cd"},         {"pwrite", "cd"},
    {"readlinkat", "Bd"},  {"sendmsg", "c"},     {"setdomainname", "Ab"}, {"sethostname", "Ab"},
    {"setns", "b"},        {"statx", "Cde"},     {"symlinkat", "AC"},     {"umask", "a"},
    {"umount2", "Ab"},     {"unlinkat", "Bc"},   {"unshare", "a"},        {"utimensat", "Bd"},
    {"waitpid", "c"},      {"write", "c"},
};

static const char *words_of(const char *name, const long *args)
{
    if (strcmp(name, "ioctl") == 0 && (args[1] == TIOCGPTPEER || args[1] == TIOCSCTTY))
        return "bc";
    if (strcmp(name, "fcntl") == 0 && (args[1] == F_GETFD || args[1] == F_GETFL))
        return "b";
    if (strcmp(name, "fsconfig") == 0 && args[2] == FSCONFIG_SET_STRING)
        return "cDEf";
    if (strcmp(name, "openat") == 0 && (args[2] & O_CREAT))
        return "Bcd";
    for (size_t i = 0; i < sizeof(arguments) / sizeof(arguments[0]); i++)
        if (strcmp(arguments[i].name, name) == 0)
            return arguments[i].words;
    return "";
}

static void log_call(const char *name, const long *args)
{
    fprintf(calls.log, "%s", name);
    for (const char *words = words_of(name, args); *words; words++) {
        int text = *words < 'a';
        long value = args[*words - (text ? 'A' : 'a')];
        if (text) {
            fprintf(calls.log, value && !*(const char *)value ? " \"\"" : " %s",
                    value ? (const char *)value : "NULL");
            continue;
        }
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

/* Not on the stack, which a hook may share with AddressSanitizer's marks of an earlier one. */
static long kept[7];
#define KEEP (kept[0] = a, kept[1] = b, kept[2] = c, kept[3] = d, kept[4] = e, kept[5] = f, kept[6] = g, kept)

typedef long function(long, long, long, long, long, long, long);

static long call(const char *name, function *real, long a, long b, long c, long d, long e, long f, long g)
{
    if (!calls.armed)
        return real(a, b, c, d, e, f, g);
    name = name_of(name, a);
    if (calls.halves && c > 1 && (strcmp(name, "pread") == 0 || strcmp(name, "pwrite") == 0))
        c /= 2;
    calls.args = KEEP;
    if (calls.log && (calls.fail_at < 0 || calls.hit))
        log_call(name, calls.args);
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

/* These do not fail, or nobody asks whether they do.  They are not counted. */
#define WRAP_LOGGED(name)                                                      \
    function __real_##name, __wrap_##name;                                     \
    long __wrap_##name(long a, long b, long c, long d, long e, long f, long g) \
    {                                                                          \
        if (calls.armed && calls.log && (calls.fail_at < 0 || calls.hit))      \
            log_call(#name, KEEP);                                             \
        return __real_##name(a, b, c, d, e, f, g);                             \
    }

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
WRAP_LOGGED(close)
WRAP_LOGGED(umask)
WRAP_LOGGED(unlinkat)
WRAP_LOGGED(waitpid)
