/* Run ops of init on a real mount table, for integration/test_native_*.py.
 *
 * Usage: fs_driver [-u] [-N] [-S] [-T] [-F ERRNO,..] < script.  Everything runs in a child with its
 * own mount, pid, uts, ipc and network namespaces; nothing reaches the host.
 *   -u  create a user namespace
 *   -N  keep the caller's network namespace
 *   -S  keep the propagation of mounts, for a caller with its own mount namespace
 *   -T  print the system calls of the last op instead of its result
 *   -F  run the script once for each of the numbers and each system call of its last op, with that
 *       call failing.  Each run prints one line: the errno, the call's number and name, the calls
 *       after it, and the result of the op, separated by tabs
 *
 * Lines of the script, with fields separated by tabs:
 *   op   NAME  policy  "n0 n1 .."  s0  s1 ..   run a handler; 0x1f separates the items of a list.
 *                                              "id" and "unique" are two numbers: those of the
 *                                              last command `ids`
 *   try  NAME  ..                              the same, but continue if it fails
 *   COMMAND  argument ..                       inspect or prepare something: see commands[]
 *
 * Each prints one line: "ok", "fail errno call arg item detail", "left STATUS" if the op exits, or
 * the requested output.
 */
#include "fs_driver.h"

#include "calls.h"

#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define MAX_FIELDS 10
#define MAX_SWEEP  1000
#define MAX_OPS    1000
/* None of the ops sets it. */
#define OTHER_UMASK 077

struct init in;
static struct plan_header header;
static struct plan_step steps[MAX_OPS + 1];
static uint32_t nops;
static jmp_buf left;
static char strings[65536];
static int keep_shared, log_last;
static struct plan_step next; /* a step of the plan if the next line is an op, and nothing otherwise */
int console_end, parent;
struct sys_statx ids[2];
FILE *out;

static const struct {
    const char *name;
    int code;
    int (*run)(struct init *, const struct plan_step *);
} ops[] = {
    {"OPEN_TREE", OP_OPEN_TREE, op_open_tree},
    {"ENTER_ROOT", OP_ENTER_ROOT, op_enter_root},
    {"MAKE_NODE", OP_MAKE_NODE, op_make_node},
    {"PROPAGATION", OP_PROPAGATION, op_propagation},
    {"ROOT", OP_ROOT, op_root},
    {"MOUNT", OP_MOUNT, op_mount},
    {"UNMOUNT", OP_UNMOUNT, op_unmount},
    {"LEAVE", OP_LEAVE, op_leave},
    {"DEV_NODE", OP_DEV_NODE, op_dev_node},
    {"DEV_LINK", OP_DEV_LINK, op_dev_link},
    {"PIVOT", OP_PIVOT, op_pivot},
    {"CONSOLE", OP_CONSOLE, op_console},
    {"REOPEN_NULL", OP_REOPEN_NULL, op_reopen_null},
    {"REMOUNT_RO", OP_REMOUNT_RO, op_remount_ro},
    {"ROOT_RO", OP_ROOT_RO, op_root_ro},
    {"ROOT_PROPAGATION", OP_ROOT_PROPAGATION, op_root_propagation},
    {"HOSTNAME", OP_HOSTNAME, op_hostname},
    {"DOMAINNAME", OP_DOMAINNAME, op_domainname},
    {"SYSCTL", OP_SYSCTL, op_sysctl},
    {"READONLY_PATH", OP_READONLY_PATH, op_readonly_path},
    {"MASK_PATH", OP_MASK_PATH, op_mask_path},
    {"STDIO_OWNER", OP_STDIO_OWNER, op_stdio_owner},
    {"APPARMOR", OP_APPARMOR, op_apparmor},
    {"SELINUX", OP_SELINUX, op_selinux},
    {"KEY_LABEL", OP_KEY_LABEL, op_key_label},
    {"MOUNT_LABEL", OP_MOUNT_LABEL, op_mount_label},
};

/* Replaces leave.c: the script continues. */
_Noreturn void leave(int status)
{
    longjmp(left, status + 1);
}

static void parse_numbers(uint32_t *to, char *text)
{
    char *word;

    for (int i = 0; i < PLAN_NUMBERS && (word = strsep(&text, " "));) {
        int unique = strcmp(word, "unique") == 0;

        if (!unique && strcmp(word, "id") != 0) {
            to[i++] = (uint32_t)strtoul(word, NULL, 10);
            continue;
        }
        if (i + 2 > PLAN_NUMBERS)
            abort();
        to[i++] = (uint32_t)ids[unique].mnt_id;
        to[i++] = (uint32_t)(ids[unique].mnt_id >> 32);
    }
}

/* Returns the result of the handler, or 1 plus the status if it has called leave(). */
static int guarded(int (*handler)(struct init *, const struct plan_step *), const struct plan_step *st)
{
    int status = setjmp(left);

    if (status == 0) {
        calls.armed = 1;
        status = handler(&in, st);
    }
    calls.armed = 0;
    return status;
}

static void run_op(char **f, int n, int may_fail)
{
    size_t at = 1;

    if (nops == MAX_OPS)
        abort();
    in.step = nops++;
    struct plan_step *st = &steps[in.step];
    header.nsteps = in.step + (next.op ? 2 : 1);
    memset(st, 0, 2 * sizeof(*st));
    /* The memory after the last step is undefined, whatever it looks like. */
    int masks = strcmp(f[1], "MASK_PATH") == 0;
    st[1].op = next.op ? next.op : masks ? (uint16_t)OP_MASK_PATH : (uint16_t)OP_DEV_NODE;
    st[1].policy = next.op ? next.policy : masks ? 0 : P_DEV_NODE_MADE;
    memset(&in.fault, 0, sizeof(in.fault));
    in.fault.arg = -1;
    st->policy = (uint16_t)atoi(f[2]);
    parse_numbers(st->n, f[3]);
    for (int i = 4; i < n; i++) {
        size_t len = strlen(f[i]);
        if (at + len + 1 > sizeof(strings))
            abort();
        st->s[i - 4] = (uint32_t)at;
        for (size_t c = 0; c <= len; c++)
            strings[at++] = f[i][c] == 0x1f ? 0 : f[i][c];
    }
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        if (strcmp(ops[i].name, f[1]) != 0)
            continue;
        st->op = (uint16_t)ops[i].code;
        int ret = guarded(ops[i].run, st);
        if (ret >= 0) {
            fprintf(out, ret ? "left %d\n" : "ok\n", ret - 1);
            return;
        }
        fprintf(out, "fail\t%s\t%s\t%d\t%u\t%s\n", strerrorname_np(-ret), in.fault.call, in.fault.arg,
                in.fault.item, in.fault.detail);
        if (may_fail)
            return;
        fflush(out);
        _exit(3);
    }
    abort();
}

static void run_line(char *line)
{
    char *f[MAX_FIELDS];
    int n = 0;

    line[strcspn(line, "\n")] = 0;
    for (char *field; (field = strsep(&line, "\t")) && n < MAX_FIELDS;)
        f[n++] = field;
    if (n >= 4 && (strcmp(f[0], "op") == 0 || strcmp(f[0], "try") == 0)) {
        run_op(f, n, f[0][0] == 't' || calls.fail_at >= 0 || calls.log);
        return;
    }
    run_command(f, n);
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        perror(path);
    close(fd);
}

/* Like enter: open files of the host before any unshare. */
static void set_up(int user, int net)
{
    int pair[2];

    for (int i = 0; i < MAX_FDS; i++)
        in.fds[i] = -1;
    in.plan = &header;
    in.steps = steps;
    in.strings = strings;
    in.sock = in.error_fd = in.rootfd = -1;
    in.procfd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    in.nullfd = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        _exit(2);
    in.fds[1] = pair[0];
    console_end = pair[1];
    if (user && unshare(CLONE_NEWUSER) < 0) {
        perror("unshare");
        _exit(77);
    }
    if (user) {
        write_file("/proc/self/setgroups", "deny");
        write_file("/proc/self/uid_map", "0 0 1");
        write_file("/proc/self/gid_map", "0 0 1");
    }
    if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | (net ? CLONE_NEWNET : 0)) < 0 ||
        (keep_shared ? 0 : mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL)) < 0) {
        perror("unshare");
        _exit(77);
    }
}

/* Some handlers check what the next step is. */
static void look_ahead(const char *line)
{
    memset(&next, 0, sizeof(next));
    if (!line || (strncmp(line, "op\t", 3) != 0 && strncmp(line, "try\t", 4) != 0))
        return;
    line = strchr(line, '\t') + 1;
    size_t len = strcspn(line, "\t");
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
        if (strlen(ops[i].name) == len && strncmp(ops[i].name, line, len) == 0)
            next.op = (uint16_t)ops[i].code;
    next.policy = (uint16_t)atoi(line + len);
}

/* Run the script up to `stop`, or to the end if it is NULL. */
static void run_script(char *rest, const char *stop)
{
    for (char *line; rest != stop && (line = strsep(&rest, "\n"));) {
        look_ahead(rest);
        if (*line)
            run_line(line);
        fflush(out);
    }
    look_ahead(NULL);
}

static char *last_line(char *script)
{
    char *end = strrchr(script, '\n');

    return end ? end + 1 : script;
}

static void run_with_log(char *script)
{
    static char nothing[1 << 16];
    FILE *answers = out;
    char *last = last_line(script);

    run_script(script, last);
    FILE *text = out = fmemopen(nothing, sizeof(nothing), "w");
    umask(OTHER_UMASK);
    calls.log = answers;
    run_line(last);
    fclose(text);
    fputc('\n', answers);
    fflush(answers);
    out = answers;
}

static int open_fds(void)
{
    int n = 0;

    for (int fd = 3; fd < 500; fd++) /* the answers go to a higher one */
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Run the script with one failing call in its last op.  Exits with status 9 if there is no such
 * call.  A handler that fails leaves no descriptor open. */
static _Noreturn void run_with_fault(char *script, long index)
{
    static char nothing[1 << 16], after[1 << 16];
    FILE *answers = out;
    char *last = last_line(script);

    out = fmemopen(nothing, sizeof(nothing), "w");
    run_script(script, last);
    fclose(out);
    out = answers;
    umask(OTHER_UMASK);
    calls.log = fmemopen(after, sizeof(after), "w");
    calls.count = 0;
    calls.fail_at = index;
    if (calls.hit)
        abort(); /* not in the last op */
    FILE *text = out = fmemopen(nothing, sizeof(nothing), "w");
    int before = open_fds();
    run_line(last);
    fclose(text);
    fclose(calls.log);
    if (!calls.hit)
        _exit(9);
    int more = strncmp(nothing, "fail", 4) == 0 && open_fds() > before;
    nothing[strcspn(nothing, "\n")] = 0;
    fprintf(answers, "%d\t%ld\t%s\t%s\t%s%s\n", calls.error, index, calls.hit, after, nothing,
            more ? " (a descriptor stays open)" : "");
    fflush(answers);
    _exit(0);
}

static int status_of(pid_t pid)
{
    int status;

    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return 2;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Run in a child, the first process of the new pid namespace.  `fault` is the failing call, or
 * -1. */
static int run(char *script, long fault, int user, int net)
{
    set_up(user, net);
    parent = getpid();
    pid_t pid = fork();
    if (pid != 0)
        return status_of(pid);
    setsid();
    if (fault >= 0)
        run_with_fault(script, fault);
    if (log_last)
        run_with_log(script);
    else
        run_script(script, NULL);
    _exit(0);
}

static int sweep(char *script, const char *errors, int user, int net)
{
    int ret = 9;

    for (const char *at = errors; ret == 9 && *at; at += strcspn(at, ",") + (strchr(at, ',') != NULL)) {
        calls.error = atoi(at);
        ret = 0;
        for (long i = 0; i < MAX_SWEEP && ret == 0; i++) {
            pid_t pid = fork();
            if (pid == 0)
                _exit(run(script, i, user, net));
            ret = status_of(pid);
        }
    }
    return ret == 9 ? 0 : ret ? ret : 2;
}

int main(int argc, char **argv)
{
    static char script[1 << 20];
    const char *errors = NULL;
    int user = 0, net = 1;

    for (int i = 1; i < argc; i++) {
        user |= strcmp(argv[i], "-u") == 0;
        net &= strcmp(argv[i], "-N") != 0;
        keep_shared |= strcmp(argv[i], "-S") == 0;
        log_last |= strcmp(argv[i], "-T") == 0;
        if (strcmp(argv[i], "-F") == 0)
            errors = argv[++i];
    }
    size_t len = fread(script, 1, sizeof(script) - 1, stdin);
    while (len > 0 && script[len - 1] == '\n')
        script[--len] = 0;
    if (len == 0)
        return 2;
    int copy = fcntl(1, F_DUPFD_CLOEXEC, 500); /* above the descriptors of the ops */
    out = fdopen(copy, "w");
    return errors ? sweep(script, errors, user, net) : run(script, -1, user, net);
}
