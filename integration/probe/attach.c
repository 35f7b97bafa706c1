/* A hostile process in a container: it attaches to every process of the runtime that it can see,
 * and reports what it got.
 *
 *     attach SECONDS
 *
 * A process is the runtime's as long as its program is a memfd. The attacker collects everything
 * that CAP_SYS_PTRACE gives access to: copies of descriptors, capabilities, root, namespaces,
 * terminal. It prints one JSON object at the end, whose lists have no duplicates.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NR_pidfd_open  434
#define NR_pidfd_getfd 438
#define MAX_FD         64
#define MAX_SEEN       64
#define SIZE           384

/* The entries of one list of the answer. */
struct seen {
    const char *name;
    int count;
    char items[MAX_SEEN][SIZE];
};

static struct seen fds = {.name = "fds"}, states = {.name = "states"}, places = {.name = "places"},
                   spaces = {.name = "namespaces"}, terminals = {.name = "terminals"};
static unsigned long met, traced, copied;

static void note(struct seen *list, const char *text)
{
    for (int i = 0; i < list->count; i++)
        if (strcmp(list->items[i], text) == 0)
            return;
    if (list->count < MAX_SEEN)
        snprintf(list->items[list->count++], SIZE, "%s", text);
}

static void print_list(const struct seen *list)
{
    printf(", \"%s\": [", list->name);
    for (int i = 0; i < list->count; i++) {
        printf(i ? ", \"" : "\"");
        for (const char *p = list->items[i]; *p; p++)
            printf(*p == '"' || *p == '\\' || *p < ' ' ? "?" : "%c", *p);
        printf("\"");
    }
    printf("]");
}

/* The target of a link in /proc, empty if it cannot be read. */
static const char *link_of(int pid, const char *name, char text[SIZE])
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    ssize_t n = readlink(path, text, SIZE - 1);
    text[n > 0 ? n : 0] = 0;
    return text;
}

static int is_runtime(int pid)
{
    char program[SIZE];

    return strncmp(link_of(pid, "exe", program), "/memfd:", 7) == 0;
}

static void read_file(int pid, const char *name, char *text, size_t size)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, size - 1);
    text[n > 0 ? n : 0] = 0;
    if (fd >= 0)
        close(fd);
}

/* "CapPrm 00000000a80425fb CapEff ... Seccomp 2 NoNewPrivs 1 Uid 0" */
static void look_at_status(int pid)
{
    static const char *const names[] = {"CapInh",     "CapPrm", "CapEff",  "CapBnd",
                                        "NoNewPrivs", "Uid",    "Seccomp", "CapAmb"};
    char text[4096], state[SIZE] = "";

    read_file(pid, "status", text, sizeof(text));
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        size_t len = strlen(names[i]);
        for (char *line = text; line; line = strchr(line, '\n')) {
            line += *line == '\n';
            if (strncmp(line, names[i], len) || line[len] != ':')
                continue;
            char value[32] = "";
            sscanf(line + len + 1, "%31s", value);
            size_t used = strlen(state);
            snprintf(state + used, sizeof(state) - used, "%s%s %s", used ? " " : "", names[i], value);
            break;
        }
    }
    if (is_runtime(pid))
        note(&states, state);
}

/* Copy its descriptors, and record what they are by the kernel's names for our copies. */
static void take_descriptors(int pid)
{
    int pidfd = (int)syscall(NR_pidfd_open, pid, 0);

    for (int fd = 0; pidfd >= 0 && fd < MAX_FD; fd++) {
        int copy = (int)syscall(NR_pidfd_getfd, pidfd, fd, 0);
        if (copy < 0)
            continue;
        char path[64], target[200], text[SIZE];
        struct stat st;
        memset(&st, 0, sizeof(st));
        snprintf(path, sizeof(path), "/proc/self/fd/%d", copy);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = 0;
        if (strncmp(target, "socket:", 7) == 0)
            strcpy(target, "socket");
        fstat(copy, &st);
        snprintf(text, sizeof(text), "%s%s %o", fd < 3 ? "stdio " : "", target, st.st_mode & S_IFMT);
        close(copy);
        if (is_runtime(pid)) { /* otherwise it may be the program's */
            copied++;
            note(&fds, text);
        }
    }
    if (pidfd >= 0)
        close(pidfd);
}

static void look_around(int pid)
{
    static const char *const names[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"};
    char ours[SIZE], theirs[SIZE], name[32], text[2 * SIZE + 32];
    struct stat here, there;

    snprintf(text, sizeof(text), "/proc/%d/root", pid);
    if (stat("/", &here) == 0 && stat(text, &there) == 0 && is_runtime(pid))
        note(&places, here.st_dev == there.st_dev && here.st_ino == there.st_ino ? "root" : "another root");
    link_of(pid, "cwd", theirs);
    if (theirs[0] && is_runtime(pid))
        note(&places, theirs);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        snprintf(name, sizeof(name), "ns/%s", names[i]);
        link_of(getpid(), name, ours);
        link_of(pid, name, theirs);
        if (theirs[0] && strcmp(ours, theirs) && is_runtime(pid))
            note(&spaces, theirs);
    }
    read_file(pid, "stat", text, sizeof(text));
    char *rest = strrchr(text, ')');
    int session = -1, terminal = 0;
    if (rest && sscanf(rest, ") %*c %*d %*d %d %d", &session, &terminal) == 2 && is_runtime(pid)) {
        /* a session that is invisible from here belongs to another process */
        snprintf(name, sizeof(name), "session %s terminal %d", session ? "ours" : "foreign", terminal);
        note(&terminals, name);
    }
}

/* Stop the process during the inspection, so that it cannot go on to drop what it holds. */
static void attach(int pid)
{
    int ours = ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0, stopped = 0;

    /* A process that is not stopped cannot be detached: it would stop later, without a tracer. */
    if (ours && ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0)
        for (int i = 0; i < 100000 && !stopped; i++) {
            int status = 0;
            if (waitpid(pid, &status, __WALL | WNOHANG) == pid && !WIFSTOPPED(status))
                return;
            stopped = WIFSTOPPED(status);
            usleep(20);
        }
    if (is_runtime(pid)) {
        met++;
        traced += (unsigned long)stopped;
    }
    look_at_status(pid);
    take_descriptors(pid);
    look_around(pid);
    if (ours)
        ptrace(PTRACE_DETACH, pid, NULL, NULL);
}

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    double end = now() + (argc > 1 ? strtod(argv[1], NULL) : 1);
    int last = 0, again = 0;

    signal(SIGCHLD, SIG_DFL);
    while (now() < end && access("/stop", F_OK) < 0) {
        DIR *d = opendir("/proc");
        for (struct dirent *e; d && (e = readdir(d));) {
            int pid = atoi(e->d_name);
            if (pid <= 1 || pid == getpid() || !is_runtime(pid))
                continue;
            /* a few times each, at different moments, so that the process makes progress */
            again = pid == last ? again + 1 : 0;
            last = pid;
            if (again < 3)
                attach(pid);
        }
        if (d)
            closedir(d);
        while (waitpid(-1, NULL, __WALL | WNOHANG) > 0)
            ; /* a process killed meanwhile stays a zombie until its tracer waits for it */
    }
    printf("{\"met\": %lu, \"traced\": %lu, \"copied\": %lu", met, traced, copied);
    print_list(&fds);
    print_list(&states);
    print_list(&places);
    print_list(&spaces);
    print_list(&terminals);
    printf("}\n");
    return 0;
}
