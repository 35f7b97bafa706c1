/* The program of the containers of the differential test; each mode writes one JSON object a line.
 *
 *     inside [ANYTHING...]               everything a process can see of itself and of its container
 *     inside wait[-fork] [ANYTHING...]   the same, then the signals that arrive, until SIGTERM
 *     inside exit STATUS                 exit
 *     hook-... [TAG [STATUS [SECONDS]]]  what a hook can see, appended to HOOK_LOG; then exit with STATUS
 *
 * Static: it runs without /proc, /etc and /dev, and under filters that deny what it does not need.
 */
#define _GNU_SOURCE
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>

extern char **environ;

#include "../probe/facts.h"

#define HOOK_LOG  "/w/log/hooks" /* the same path on the host and in the container */
#define QUESTIONS "/ask"         /* one question a line: "path P" or "sysctl NAME" */

static void number_or_null(const char *name, long value, int failed)
{
    key(name);
    if (failed)
        fputs("null", out);
    else
        fprintf(out, "%ld", value);
}

static void strings(const char *name, char **list)
{
    open_with(name, '[');
    for (; *list; list++)
        comma(), quoted(*list);
    close_with(']');
}

/* ---- what is seen ---------------------------------------------------------------------------- */

static void see_files(void)
{
    static const char *const names[] = {
        "mountinfo", "cgroup",    "status",       "uid_map",       "gid_map",         "timens_offsets",
        "comm",      "setgroups", "attr/current", "oom_score_adj", "coredump_filter", "loginuid"};
    open_with("files", '{');
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char path[64];
        snprintf(path, sizeof(path), "/proc/self/%s", names[i]);
        file_member(names[i], path);
    }
    close_with('}');
}

/* Whether each descriptor is close-on-exec (it cannot be), and how it was opened. */
static void see_descriptors(void)
{
    open_with("fd_flags", '{');
    for (int fd = 0; fd < 64; fd++) {
        int how = fcntl(fd, F_GETFL);
        if (how < 0)
            continue;
        char name[8];
        snprintf(name, sizeof(name), "%d", fd);
        num(name, how);
    }
    close_with('}');
}

static void see_place(void)
{
    report_names();
    struct stat st;
    open_with("cwd_stat", '{');
    if (stat(".", &st) == 0)
        stat_members(".", &st);
    close_with('}');
}

static void see_scheduling(void)
{
    struct sched_param param = {0};
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    open_with("scheduling", '{');
    num("policy", sched_getscheduler(0));
    sched_getparam(0, &param);
    num("priority", param.sched_priority);
    errno = 0;
    num("nice", getpriority(PRIO_PROCESS, 0));
    num("io_priority", syscall(SYS_ioprio_get, 1, 0));
    num("cpus", sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : -1);
    close_with('}');
    num("personality", personality(0xffffffff));
    num("dumpable", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
    int death = 0;
    prctl(PR_GET_PDEATHSIG, &death, 0, 0, 0);
    num("death_signal", death);
    num("subreaper", prctl(37 /* PR_GET_CHILD_SUBREAPER */, &death, 0, 0, 0) == 0 ? death : -1);
    num("thp_disable", prctl(42 /* PR_GET_THP_DISABLE */, 0, 0, 0, 0));
    num("timer_slack", prctl(30 /* PR_GET_TIMERSLACK */, 0, 0, 0, 0));
}

/* ---- what can be done ------------------------------------------------------------------------ */

/* Harmless calls whose results show a filter or a capability; each runs in its own process, because
 * a filter may kill it. */
static const struct {
    const char *name;
    long number, args[6];
} calls[] = {
    {"mkdirat", SYS_mkdirat, {-100, 0, 0}},
    {"fchmodat", SYS_fchmodat, {-100, 0, 0}},
    {"getpriority", SYS_getpriority, {0, 0}},
    {"getppid", SYS_getppid, {0}},
    {"sched_yield", SYS_sched_yield, {0}},
    {"sethostname", SYS_sethostname, {0, -1}},
    {"setdomainname", SYS_setdomainname, {0, -1}},
    {"ptrace", SYS_ptrace, {-1, -1}},
    {"personality-1", SYS_personality, {0xffffffff}},
    {"keyctl", SYS_keyctl, {-1}},
    {"add_key", SYS_add_key, {0, 0, 0, 0, 0}},
    {"bpf", SYS_bpf, {-1, 0, 0}},
    {"setns", SYS_setns, {-1, 0}},
    {"unshare-0", SYS_unshare, {0}},
    {"unshare-uts", SYS_unshare, {CLONE_NEWUTS}},
    {"unshare-user", SYS_unshare, {CLONE_NEWUSER}},
    {"mount", SYS_mount, {0, 0, 0, 0, 0}},
    {"umount2", SYS_umount2, {0, 0}},
    {"chroot", SYS_chroot, {0}},
    {"clone3", SYS_clone3, {0, 0}},
    {"socket-netlink", SYS_socket, {AF_NETLINK, SOCK_RAW, 9}},
    {"socket-raw", SYS_socket, {AF_INET, SOCK_RAW, 1}},
    {"socket-vsock", SYS_socket, {40, SOCK_STREAM, 0}},
    {"userfaultfd", SYS_userfaultfd, {0}},
    {"open_by_handle_at", SYS_open_by_handle_at, {-1, 0, 0}},
    {"syslog", SYS_syslog, {10, 0, 0}},
    {"setuid-7", SYS_setuid, {7}},
    {"setgroups", SYS_setgroups, {0, 0}},
    {"perf_event_open", SYS_perf_event_open, {0, 0, 0, 0, 0}},
    {"io_uring_setup", SYS_io_uring_setup, {0, 0}},
    {"mlock", SYS_mlock, {0, 0}},
    {"setpriority", SYS_setpriority, {0, 0, -1}},
    {"quotactl", SYS_quotactl, {-1, 0, 0, 0}},
    {"newest", 700, {0}},
};

static void try_calls(void)
{
    open_with("calls", '{');
    fflush(out);
    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
        const long *a = calls[i].args;
        pid_t child = fork();
        if (child < 0) {
            num(calls[i].name, -errno - 1000);
            continue;
        }
        if (child == 0) {
            long rc = syscall(calls[i].number, a[0], a[1], a[2], a[3], a[4], a[5]);
            syscall(SYS_exit_group, rc < 0 ? errno & 0xff : 0);
        }
        int status = 0;
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
        num(calls[i].name, WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
    }
    close_with('}');
}

/* Which nodes can be created and opened: this shows the capability, the device rules of the cgroup,
 * and the mount's nodev. */
static void try_devices(void)
{
    static const struct {
        const char *name;
        mode_t type;
        unsigned major, minor;
    } nodes[] = {
        {"null", S_IFCHR, 1, 3},   {"mem", S_IFCHR, 1, 1},     {"full", S_IFCHR, 1, 7},
        {"kmsg", S_IFCHR, 1, 11},  {"tty", S_IFCHR, 5, 0},     {"ptmx", S_IFCHR, 5, 2},
        {"tun", S_IFCHR, 10, 200}, {"fuse", S_IFCHR, 10, 229}, {"pts0", S_IFCHR, 136, 0},
        {"ttyS7", S_IFCHR, 4, 71}, {"loop9", S_IFBLK, 7, 9},   {"ram3", S_IFBLK, 1, 3},
        {"random", S_IFCHR, 1, 8},
    };
    open_with("nodes", '{');
    for (size_t i = 0; i < sizeof(nodes) / sizeof(*nodes); i++) {
        char path[64];
        snprintf(path, sizeof(path), "/dev/.node-%s", nodes[i].name);
        int made = mknod(path, nodes[i].type | 0600, makedev(nodes[i].major, nodes[i].minor)) ? errno : 0;
        open_with(nodes[i].name, '[');
        comma(), fprintf(out, "%d", made);
        for (int how = O_RDONLY; made == 0 && how <= O_RDWR; how++) {
            int fd = open(path, how | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
            comma(), fprintf(out, "%d", fd < 0 ? errno : 0);
            if (fd >= 0)
                close(fd);
        }
        close_with(']');
        unlink(path);
    }
    close_with('}');
}

static void try_path(const char *path)
{
    struct stat st;
    char inner[4200];
    open_with(path, '{');
    if (lstat(path, &st) < 0) {
        num("errno", errno);
        close_with('}');
        return;
    }
    stat_members(path, &st);
    int is_dir = S_ISDIR(st.st_mode);
    if (is_dir || S_ISREG(st.st_mode) || S_ISCHR(st.st_mode)) {
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        num("read", fd < 0 ? errno : 0);
        char buffer[64];
        if (fd >= 0 && !is_dir)
            number_or_null("bytes", (long)read(fd, buffer, sizeof(buffer)), S_ISCHR(st.st_mode));
        if (fd >= 0)
            close(fd);
    }
    if (is_dir) {
        int names = 0;
        DIR *d = opendir(path);
        while (d && readdir(d))
            names++;
        if (d)
            closedir(d);
        number_or_null("names", names, !strncmp(path, "/proc", 5) || !strncmp(path, "/sys", 4));
        snprintf(inner, sizeof(inner), "%s/.new", path);
        int rc = mkdir(inner, 0700);
        num("write", rc < 0 ? errno : 0);
        if (rc == 0)
            rmdir(inner);
    } else if (S_ISREG(st.st_mode)) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        num("write", fd < 0 ? errno : 0);
        if (fd >= 0)
            close(fd);
    }
    num("execute", access(path, X_OK) < 0 ? errno : 0);
    close_with('}');
}

static void answer(const char *name, const char *word, void (*one)(const char *))
{
    char *text = slurp(QUESTIONS);
    char *copy = text ? strdup(text) : NULL;
    open_with(name, '{');
    for (char *line = copy ? strtok(copy, "\n") : NULL; line; line = strtok(NULL, "\n"))
        if (!strncmp(line, word, strlen(word)))
            one(line + strlen(word));
    close_with('}');
    free(copy);
}

static void see_sysctl(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "/proc/sys/%s", name);
    file_member(name, path);
}

static void see_all(char **argv)
{
    begin("inside");
    report_links("fds", "/proc/self/fd"); /* before any descriptor of ours can be open */
    see_descriptors();
    strings("argv", argv);
    strings("env", environ);
    char target[4096];
    ssize_t n = readlink("/proc/self/exe", target, sizeof(target) - 1);
    target[n < 0 ? 0 : n] = 0;
    str("exe", target);
    report_ids();
    report_caps();
    report_limits();
    report_signals();
    report_links("ns", "/proc/self/ns");
    report_tty();
    see_place();
    see_scheduling();
    report_keyring();
    report_network();
    see_files();
    open_with("devices", '{');
    walk("/dev", 3);
    close_with('}');
    answer("sysctl", "sysctl ", see_sysctl);
    answer("paths", "path ", try_path);
    try_devices();
    try_calls();
    end();
}

/* ---- waiting --------------------------------------------------------------------------------- */

static volatile sig_atomic_t arrived;

static void on_signal(int number)
{
    arrived = number;
}

static void wait_for_signals(int with_child)
{
    sigset_t all, old;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old);
    for (int s = 1; s < 65; s++) {
        struct sigaction action;
        memset(&action, 0, sizeof(action));
        action.sa_handler = on_signal;
        if (s != SIGCHLD)
            sigaction(s, &action, NULL);
    }
    if (with_child && fork() == 0) {
        signal(SIGTERM, SIG_IGN); /* only SIGKILL to the cgroup or the end of the pid namespace ends it */
        setsid();
        for (;;)
            pause();
    }
    begin("ready");
    end();
    sigemptyset(&old);
    for (;;) {
        arrived = 0;
        while (!arrived)
            sigsuspend(&old);
        begin("signal");
        num("number", arrived);
        end();
        if (arrived == SIGTERM)
            _exit(0);
    }
}

/* ---- hooks ----------------------------------------------------------------------------------- */

static int run_as_hook(const char *name, int argc, char **argv)
{
    static char input[1 << 16];
    size_t used = 0;
    for (ssize_t n; used < sizeof(input) - 1 && (n = read(0, input + used, sizeof(input) - 1 - used)) > 0;)
        used += (size_t)n;
    char *text = NULL;
    size_t size = 0;
    out = open_memstream(&text, &size);
    begin("hook");
    str("hook", name);
    strings("argv", argv);
    strings("env", environ);
    report_links("fds", "/proc/self/fd");
    str("stdin", input);
    report_ids();
    report_caps();
    report_signals();
    report_links("ns", "/proc/self/ns");
    see_place();
    file_member("cgroup", "/proc/self/cgroup");
    file_member("oom_score_adj", "/proc/self/oom_score_adj");
    num("in_container", access(QUESTIONS, F_OK) == 0);
    struct pollfd stdio[2] = {{.fd = 1}, {.fd = 2}};
    num("stdout", fcntl(1, F_GETFL) & O_ACCMODE);
    num("stderr", fcntl(2, F_GETFL) & O_ACCMODE);
    poll(stdio, 2, 0);
    num("broken", ((stdio[0].revents | stdio[1].revents) & POLLERR) != 0);
    fputs("}\n", out);
    fclose(out);
    int fd = open(HOOK_LOG, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, text, size) != (ssize_t)size)
        fprintf(stderr, "hook: %s: %s\n", HOOK_LOG, strerror(errno));
    if (argc > 3)
        usleep((useconds_t)(strtod(argv[3], NULL) * 1e6));
    printf("output of a hook\n");
    fflush(stdout);
    return argc > 2 ? atoi(argv[2]) : 0;
}

int main(int argc, char **argv)
{
    char name[4096];
    ssize_t n = readlink("/proc/self/exe", name, sizeof(name) - 1);
    name[n < 0 ? 0 : n] = 0;
    const char *base = strrchr(name, '/');
    if (base && !strncmp(base, "/hook-", 6))
        return run_as_hook(base + 1, argc, argv);
    out = stdout;
    if (argc > 2 && !strcmp(argv[1], "exit"))
        return atoi(argv[2]);
    see_all(argv);
    if (argc > 1 && !strncmp(argv[1], "wait", 4))
        wait_for_signals(!strcmp(argv[1], "wait-fork"));
    return 0;
}
