/* What a process can see of itself: ids, capabilities, limits, signals, files, links,
 * names, network interfaces.  Shared by the test programs. */
#ifndef INTEGRATION_FACTS_H
#define INTEGRATION_FACTS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <termios.h>
#include <unistd.h>

#include "json.h"

/* <linux/capability.h>, which musl-gcc does not see */
struct cap_header {
    uint32_t version;
    int pid;
};
struct cap_data {
    uint32_t effective, permitted, inheritable;
};
#define CAP_VERSION_3 0x20080522

static char *slurp(const char *path)
{
    static char buffer[1 << 20];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t used = 0;
    if (fd < 0)
        return NULL;
    for (;;) {
        ssize_t n = read(fd, buffer + used, sizeof(buffer) - 1 - used);
        if (n < 0) {
            int saved = errno;
            close(fd);
            errno = saved;
            return NULL;
        }
        if (n == 0)
            break;
        used += (size_t)n;
    }
    close(fd);
    buffer[used] = 0;
    return buffer;
}

static void file_member(const char *name, const char *path)
{
    char *text = slurp(path);
    key(name);
    if (text)
        quoted(text);
    else
        fputs("null", out);
}

static void report_ids(void)
{
    uid_t u[3] = {0};
    gid_t g[3] = {0};
    static gid_t groups[65536];
    getresuid(&u[0], &u[1], &u[2]);
    getresgid(&g[0], &g[1], &g[2]);
    open_with("uid", '[');
    for (int i = 0; i < 3; i++)
        comma(), fprintf(out, "%u", u[i]);
    close_with(']');
    open_with("gid", '[');
    for (int i = 0; i < 3; i++)
        comma(), fprintf(out, "%u", g[i]);
    close_with(']');
    open_with("groups", '[');
    int n = getgroups(65536, groups);
    for (int i = 0; i < n; i++)
        comma(), fprintf(out, "%u", groups[i]);
    close_with(']');
    mode_t mask = umask(0);
    umask(mask);
    num("umask", mask);
    num("pid", getpid());
    num("ppid", getppid());
    num("sid", getsid(0));
    num("pgid", getpgrp());
}

static void report_caps(void)
{
    struct cap_header head = {CAP_VERSION_3, 0};
    struct cap_data data[2] = {{0}};
    uint64_t bounding = 0, ambient = 0;
    syscall(SYS_capget, &head, data);
    for (unsigned long i = 0; i < 64; i++) {
        if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
            bounding |= 1ull << i;
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1)
            ambient |= 1ull << i;
    }
    open_with("caps", '{');
    num("effective", (long long)(data[0].effective | (uint64_t)data[1].effective << 32));
    num("permitted", (long long)(data[0].permitted | (uint64_t)data[1].permitted << 32));
    num("inheritable", (long long)(data[0].inheritable | (uint64_t)data[1].inheritable << 32));
    num("bounding", (long long)bounding);
    num("ambient", (long long)ambient);
    close_with('}');
    num("no_new_privs", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    num("keepcaps", prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0));
    num("securebits", prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
}

static void report_limits(void)
{
    static const char *const names[] = {"CPU",      "FSIZE",  "DATA",    "STACK", "CORE",  "RSS",
                                        "NPROC",    "NOFILE", "MEMLOCK", "AS",    "LOCKS", "SIGPENDING",
                                        "MSGQUEUE", "NICE",   "RTPRIO",  "RTTIME"};
    open_with("rlimits", '{');
    for (int i = 0; i < 16; i++) {
        struct rlimit limit;
        if (getrlimit(i, &limit) < 0)
            continue;
        char name[32];
        snprintf(name, sizeof(name), "RLIMIT_%s", names[i]);
        open_with(name, '[');
        comma(), fprintf(out, "%llu", (unsigned long long)limit.rlim_cur);
        comma(), fprintf(out, "%llu", (unsigned long long)limit.rlim_max);
        close_with(']');
    }
    close_with('}');
}

static void report_signals(void)
{
    sigset_t blocked;
    uint64_t mask = 0, ignored = 0;
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    for (int s = 1; s <= 64; s++) {
        /* raw syscall: libc hides its own two signals, and inherited dispositions of those
         * matter too */
        struct {
            void (*handler)(int);
            unsigned long flags;
            void (*restorer)(void);
            uint64_t mask;
        } old;
        memset(&old, 0, sizeof(old));
        if (sigismember(&blocked, s) == 1)
            mask |= 1ull << (s - 1);
        if (syscall(SYS_rt_sigaction, s, NULL, &old, 8) == 0 && old.handler == SIG_IGN)
            ignored |= 1ull << (s - 1);
    }
    num("sigblk", (long long)mask);
    num("sigign", (long long)ignored);
}

static void stat_members(const char *path, const struct stat *st)
{
    const char *type = S_ISCHR(st->st_mode)    ? "c"
                       : S_ISBLK(st->st_mode)  ? "b"
                       : S_ISFIFO(st->st_mode) ? "p"
                       : S_ISDIR(st->st_mode)  ? "d"
                       : S_ISLNK(st->st_mode)  ? "l"
                       : S_ISSOCK(st->st_mode) ? "s"
                                               : "f";
    str("type", type);
    num("mode", st->st_mode & 07777);
    num("uid", st->st_uid);
    num("gid", st->st_gid);
    num("major", major(st->st_rdev));
    num("minor", minor(st->st_rdev));
    num("ino", (long long)st->st_ino);
    num("dev", (long long)st->st_dev);
    num("size", (long long)st->st_size);
    if (S_ISLNK(st->st_mode)) {
        char target[4096];
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        target[n < 0 ? 0 : n] = 0;
        str("target", target);
    }
}

static void walk(const char *dir, int depth)
{
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        char path[4096];
        struct stat st;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        if (lstat(path, &st) < 0)
            continue;
        open_with(path, '{');
        stat_members(path, &st);
        close_with('}');
        if (S_ISDIR(st.st_mode) && depth > 0)
            walk(path, depth - 1);
    }
    closedir(d);
}

static void report_links(const char *name, const char *dir)
{
    DIR *d = opendir(dir);
    open_with(name, '{');
    if (d) {
        for (struct dirent *e; (e = readdir(d));) {
            char path[512], target[4096];
            ssize_t n;
            if (e->d_name[0] == '.')
                continue;
            snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
            if (!strcmp(name, "fds") && atoi(e->d_name) == dirfd(d))
                continue;
            n = readlink(path, target, sizeof(target) - 1);
            if (n < 0)
                continue;
            target[n] = 0;
            str(e->d_name, target);
        }
        closedir(d);
    }
    close_with('}');
}

static void text_or_null(const char *name, const char *text, long size)
{
    key(name);
    if (size > 0)
        quoted(text);
    else
        fputs("null", out);
}

static void report_names(void)
{
    struct utsname uts;
    uname(&uts);
    str("hostname", uts.nodename);
    str("domainname", uts.domainname);
    str("machine", uts.machine);
    char cwd[4096];
    text_or_null("cwd", cwd, syscall(SYS_getcwd, cwd, sizeof(cwd)));
}

static void report_keyring(void)
{
    char text[4096];
    long size = syscall(SYS_keyctl, 6 /* KEYCTL_DESCRIBE */, -3 /* KEY_SPEC_SESSION_KEYRING */, text,
                        sizeof(text) - 1, 0);
    text_or_null("keyring", text, size);
}

/* Network interfaces: name -> flags. */
static void report_network(void)
{
    open_with("links", '{');
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct if_nameindex *all = if_nameindex();
    for (struct if_nameindex *i = all; sock >= 0 && i && i->if_name; i++) {
        struct ifreq request;
        memset(&request, 0, sizeof(request));
        strncpy(request.ifr_name, i->if_name, IFNAMSIZ - 1);
        if (ioctl(sock, SIOCGIFFLAGS, &request) == 0)
            num(i->if_name, (unsigned short)request.ifr_flags);
    }
    if (all)
        if_freenameindex(all);
    if (sock >= 0)
        close(sock);
    close_with('}');
}

static void report_tty(void)
{
    open_with("tty", '{');
    for (int fd = 0; fd < 3; fd++) {
        char name[8], path[64], target[4096];
        struct stat st;
        snprintf(name, sizeof(name), "%d", fd);
        open_with(name, '{');
        num("isatty", isatty(fd));
        if (fstat(fd, &st) == 0)
            stat_members("", &st);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        if (n >= 0) {
            target[n] = 0;
            str("link", target);
        }
        close_with('}');
    }
    struct winsize size = {0};
    struct termios tio;
    if (ioctl(0, TIOCGWINSZ, &size) == 0) {
        num("rows", size.ws_row);
        num("cols", size.ws_col);
    }
    if (tcgetattr(0, &tio) == 0) {
        num("onlcr", !!(tio.c_oflag & ONLCR));
        num("echo", !!(tio.c_lflag & ECHO));
        num("icanon", !!(tio.c_lflag & ICANON));
    }
    num("foreground_pgrp", tcgetpgrp(0));
    close_with('}');
}

#endif
