/* The program that the integration tests run inside containers.
 *
 *     probe ACTION [ARG...] [-- ACTION [ARG...]]...
 *
 * Actions run in order; each prints one JSON object on one line, so that a test reads what the
 * container saw instead of guessing from exit codes. An errno is printed as a number (0:
 * success); Python knows the names. Static, no libc feature that opens files behind our back: it
 * must work without /proc, /etc or /dev.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#include "facts.h"

/* The result of one call: `ok` is the return value of a call that sets errno. */
static void result(long ok)
{
    num("errno", ok < 0 ? errno : 0);
}

/* ---- report ---------------------------------------------------------------------------------- */

static void report_misc(void)
{
    report_names();
    num("personality", personality(0xffffffff));
    num("oom_score_adj_readable", access("/proc/self/oom_score_adj", R_OK) == 0);
    file_member("oom_score_adj", "/proc/self/oom_score_adj");
    file_member("mountinfo", "/proc/self/mountinfo");
    file_member("cgroup", "/proc/self/cgroup");
    file_member("status", "/proc/self/status");
    file_member("timens_offsets", "/proc/self/timens_offsets");
    file_member("attr", "/proc/self/attr/current");
    file_member("stat", "/proc/self/stat");
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    num("cpus", sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : -1);

    report_keyring();
    char label[4096];
    long size = syscall(SYS_keyctl, 17 /* KEYCTL_GET_SECURITY */, -3 /* KEY_SPEC_SESSION_KEYRING */, label,
                        sizeof(label) - 1);
    key("keyring_label");
    quoted(size > 1 ? label : "");
    report_network();
}

static void report(int argc, char **argv, int whole_argc, char **whole_argv)
{
    begin("report");
    open_with("argv", '[');
    for (int i = 0; i < whole_argc; i++)
        comma(), quoted(whole_argv[i]);
    close_with(']');
    open_with("env", '[');
    for (char **e = environ; *e; e++)
        comma(), quoted(*e);
    close_with(']');
    report_links("fds", "/proc/self/fd"); /* before any descriptor of ours can be open */
    report_ids();
    report_caps();
    report_limits();
    report_signals();
    open_with("devices", '{');
    walk("/dev", 3);
    close_with('}');
    report_links("ns", "/proc/self/ns");
    report_tty();
    report_misc();
    open_with("sysctl", '{'); /* arguments: names with dots */
    for (int i = 0; i < argc; i++) {
        char path[4096];
        snprintf(path, sizeof(path), "/proc/sys/%s", argv[i]);
        for (char *p = path + 10; *p; p++)
            if (*p == '.')
                *p = '/';
        file_member(argv[i], path);
    }
    close_with('}');
    end();
}

/* ---- actions --------------------------------------------------------------------------------- */

static volatile sig_atomic_t got_signal;

static void on_signal(int number)
{
    got_signal = number;
}

static long number_of(const char *text)
{
    return (long)strtoull(text, NULL, 0);
}

static void say_errno(const char *action, const char *about, long ok)
{
    int saved = errno;
    begin(action);
    str("about", about);
    errno = saved;
    result(ok);
    end();
}

static void act_open(const char *path, const char *how)
{
    int flags = strchr(how, 'w') ? (strchr(how, 'r') ? O_RDWR : O_WRONLY) : O_RDONLY;
    if (strchr(how, 'c'))
        flags |= O_CREAT | O_EXCL;
    int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644);
    say_errno("open", path, fd);
    if (fd >= 0)
        close(fd);
}

static void act_write(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));
    say_errno("write", path, n);
    if (fd >= 0)
        close(fd);
}

static void act_read(const char *path)
{
    char *text = slurp(path);
    int saved = errno;
    begin("read");
    str("about", path);
    num("errno", text ? 0 : saved);
    str("text", text ? text : "");
    end();
}

static void act_stat(const char *path, int follow)
{
    struct stat st;
    int rc = follow ? stat(path, &st) : lstat(path, &st);
    int saved = errno;
    begin("stat");
    str("about", path);
    num("errno", rc ? saved : 0);
    if (rc == 0)
        stat_members(path, &st);
    end();
}

static void act_ls(const char *path)
{
    DIR *d = opendir(path);
    int saved = errno;
    begin("ls");
    str("about", path);
    num("errno", d ? 0 : saved);
    open_with("names", '[');
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            comma(), quoted(e->d_name);
    close_with(']');
    if (d)
        closedir(d);
    end();
}

static void act_mknod(char **argv)
{
    mode_t type = argv[1][0] == 'b' ? S_IFBLK : argv[1][0] == 'p' ? S_IFIFO : S_IFCHR;
    long rc = mknod(argv[0], type | 0600,
                    makedev((unsigned)number_of(argv[2]), (unsigned)number_of(argv[3])));
    say_errno("mknod", argv[0], rc);
}

/* syscall NR [ARG...]: each argument is a number, or text after a colon. */
static void act_syscall(int argc, char **argv)
{
    long a[6] = {0};
    for (int i = 1; i < argc && i < 7; i++)
        a[i - 1] = argv[i][0] == ':' ? (long)(argv[i] + 1) : number_of(argv[i]);
    errno = 0;
    long rc = syscall(number_of(argv[0]), a[0], a[1], a[2], a[3], a[4], a[5]);
    int saved = errno;
    begin("syscall");
    str("about", argv[0]);
    num("ret", rc);
    num("errno", rc < 0 ? saved : 0);
    end();
}

static void act_stdin(void)
{
    static char buffer[1 << 16];
    size_t used = 0;
    for (ssize_t n; used < sizeof(buffer) - 1 && (n = read(0, buffer + used, sizeof(buffer) - 1 - used)) > 0;)
        used += (size_t)n;
    buffer[used] = 0;
    begin("stdin");
    str("text", buffer);
    end();
}

static void act_line(void)
{
    static char buffer[4096];
    ssize_t n = read(0, buffer, sizeof(buffer) - 1);
    int saved = errno;
    buffer[n < 0 ? 0 : n] = 0;
    begin("line");
    num("errno", n < 0 ? saved : 0);
    str("text", buffer);
    end();
}

static void act_sendto(const char *path, const char *text)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path ? path : "", sizeof(address.sun_path) - 1);
    int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ssize_t n = sendto(sock, text, strlen(text), 0, (struct sockaddr *)&address, sizeof(address));
    say_errno("notify", address.sun_path, n);
    close(sock);
}

static void act_fork(int count)
{
    open_with("children", '[');
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        if (child == 0) {
            signal(SIGTERM, SIG_IGN); /* only SIGKILL to the whole cgroup or pid namespace ends it */
            setsid();
            for (;;)
                pause();
        }
        comma(), fprintf(out, "%d", child);
    }
    close_with(']');
}

/* Print the signals that arrive until SIGTERM, or until `seconds` have passed (0: no limit). */
static void act_signals(unsigned seconds)
{
    static const int numbers[] = {SIGHUP,  SIGINT,  SIGQUIT,  SIGUSR1, SIGUSR2,
                                  SIGTERM, SIGCONT, SIGWINCH, SIGALRM};
    sigset_t all, old;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        struct sigaction action;
        memset(&action, 0, sizeof(action));
        action.sa_handler = on_signal;
        sigaction(numbers[i], &action, NULL);
    }
    begin("ready");
    end();
    alarm(seconds);
    for (;;) {
        got_signal = 0;
        while (!got_signal)
            sigsuspend(&old);
        begin("signal");
        num("number", got_signal);
        struct winsize size = {0};
        if (ioctl(0, TIOCGWINSZ, &size) == 0) {
            num("rows", size.ws_row);
            num("cols", size.ws_col);
        }
        end();
        if (got_signal == SIGTERM || got_signal == SIGALRM)
            exit(128 + got_signal);
    }
}

static _Noreturn int wait_for_ever(void *unused)
{
    (void)unused;
    for (;;)
        pause();
}

/* The first thread exits and another one stays, as in a program whose main() calls pthread_exit. */
static void act_headless(void)
{
    static char stack[65536] __attribute__((aligned(16)));
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    if (clone(wait_for_ever, stack + sizeof(stack), flags, NULL) < 0)
        exit(124);
    syscall(SYS_exit, 0);
}

/* Look at every other process for `seconds`: what of the runtime's can be seen from inside?  `names` are the
 * files of /proc/PID that could be read while the process was one of ours. */
static void act_watch(double seconds)
{
    static const char *const files[] = {"exe",  "root", "cwd",  "fd/0", "fd/3",
                                        "fd/4", "fd/5", "fd/6", "fd/8", "fd/12"};
    struct timespec start, now;
    unsigned long looks = 0, seen = 0;
    char found[600] = "";
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        DIR *d = opendir("/proc");
        for (struct dirent *e; d && (e = readdir(d));) {
            char path[300], text[256] = "";
            int pid = atoi(e->d_name);
            if (pid <= 1)
                continue;
            snprintf(path, sizeof(path), "/proc/%d/comm", pid);
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
            if (fd >= 0)
                close(fd);
            if (n <= 0 || strncmp(text, "pyrunc", 6))
                continue;
            looks++;
            for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
                snprintf(path, sizeof(path), "/proc/%d/%s", pid, files[i]);
                memset(text, 0, sizeof(text));
                if (readlink(path, text, sizeof(text) - 1) < 0)
                    continue;
                /* it may have become the container's program since its name was read */
                char exe[64], program[256] = "";
                snprintf(exe, sizeof(exe), "/proc/%d/exe", pid);
                errno = 0;
                if (readlink(exe, program, sizeof(program) - 1) < 0 ? errno != EACCES
                                                                    : strncmp(program, "/memfd:", 7) != 0)
                    continue;
                seen++;
                snprintf(found, sizeof(found), "%s: %s", path, text);
            }
        }
        if (d)
            closedir(d);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9 < seconds &&
             access("/stop", F_OK) < 0);
    begin("watch");
    num("looks", (long long)looks);
    num("seen", (long long)seen);
    str("found", found);
    end();
}

static int need(int argc, int count, const char *action)
{
    if (argc >= count)
        return 1;
    fprintf(stderr, "probe: %s needs %d arguments\n", action, count);
    exit(125);
}

#define IS(name, count) (!strcmp(action, name) && need(argc, count, action))

static int simple_action(const char *action, int argc, char **argv)
{
    if (IS("open", 2))
        act_open(argv[0], argv[1]);
    else if (IS("write", 2))
        act_write(argv[0], argv[1]);
    else if (IS("read", 1))
        act_read(argv[0]);
    else if (IS("stat", 1))
        act_stat(argv[0], 1);
    else if (IS("lstat", 1))
        act_stat(argv[0], 0);
    else if (IS("ls", 1))
        act_ls(argv[0]);
    else if (IS("mkdir", 1))
        say_errno("mkdir", argv[0], mkdir(argv[0], 0777));
    else if (IS("unlink", 1))
        say_errno("unlink", argv[0], unlink(argv[0]));
    else if (IS("mknod", 4))
        act_mknod(argv);
    else if (IS("chmod", 2))
        say_errno("chmod", argv[0], chmod(argv[0], (mode_t)number_of(argv[1])));
    else if (IS("chown", 3))
        say_errno("chown", argv[0], chown(argv[0], (uid_t)number_of(argv[1]), (gid_t)number_of(argv[2])));
    else if (IS("setuid", 1))
        say_errno("setuid", argv[0], setuid((uid_t)number_of(argv[0])));
    else if (IS("setgid", 1))
        say_errno("setgid", argv[0], setgid((gid_t)number_of(argv[0])));
    else if (IS("chroot", 1))
        say_errno("chroot", argv[0], chroot(argv[0]));
    else if (IS("sethostname", 1))
        say_errno("sethostname", argv[0], sethostname(argv[0], strlen(argv[0])));
    else if (IS("exec", 1))
        say_errno("exec", argv[0], execve(argv[0], argv, environ));
    else
        return 0;
    return 1;
}

static void run_action(const char *action, int argc, char **argv, int whole_argc, char **whole_argv)
{
    if (simple_action(action, argc, argv))
        return;
    if (IS("report", 0)) {
        report(argc, argv, whole_argc, whole_argv);
    } else if (IS("syscall", 1)) {
        act_syscall(argc, argv);
    } else if (IS("stdin", 0)) {
        act_stdin();
    } else if (IS("line", 0)) {
        act_line();
    } else if (IS("say", 1)) {
        fputs(argv[0], out);
        fputc('\n', out);
        fflush(out);
    } else if (IS("fork", 1)) {
        begin("fork");
        act_fork((int)number_of(argv[0]));
        end();
    } else if (IS("notify", 1)) {
        act_sendto(getenv("NOTIFY_SOCKET"), argv[0]);
    } else if (IS("signals", 1)) {
        act_signals((unsigned)number_of(argv[0]));
    } else if (IS("watch", 1)) {
        act_watch(strtod(argv[0], NULL));
    } else if (IS("sleep", 1)) {
        usleep((useconds_t)(strtod(argv[0], NULL) * 1e6));
    } else if (IS("headless", 0)) {
        act_headless();
    } else if (IS("kill", 1)) {
        raise((int)number_of(argv[0]));
    } else if (IS("exit", 1)) {
        fflush(out);
        _exit((int)number_of(argv[0]));
    } else {
        fprintf(stderr, "probe: unknown action %s\n", action);
        exit(125);
    }
}

int main(int argc, char **argv)
{
    out = stdout;
    for (int i = 1; i < argc;) {
        int stop = i + 1;
        while (stop < argc && strcmp(argv[stop], "--"))
            stop++;
        run_action(argv[i], stop - i - 1, argv + i + 1, argc, argv);
        i = stop + 1;
    }
    return 0;
}
