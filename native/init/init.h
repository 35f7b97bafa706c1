/* What the files of init share: the loaded plan, the one state record, the fault record, and the op handlers.
 *
 * init is the only program of ours that ever runs inside a container's namespaces.  It is static, allocates
 * nothing, parses no text but /etc/passwd, and does what the plan says in the plan's order.
 */
#ifndef PYRUNC_INIT_H
#define PYRUNC_INIT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "plan.h"

#define MAX_FDS  250 /* SCM_MAX_FD of the kernel is 253; those after the plan's own are for OPEN_TREE */
#define PATH_BUF 4096
#define HOME_BUF (sizeof("HOME=") + PATH_BUF)

/* Where a failure happened, for the FAIL record; filled by fault(). */
struct fault {
    const char *call;        /* "fsconfig" */
    int arg;                 /* string slot (S_OP_name) at fault, or -1 */
    uint32_t item;           /* index into a list argument */
    char detail[MSG_DETAIL]; /* the kernel's words or ours; empty: errno says it all */
};

struct init {
    const struct plan_header *plan; /* mapped read-only, checked by plan_load() */
    const struct plan_step *steps;
    const char *strings;
    uint32_t step;       /* index of the step at work */
    int sock;            /* handshake socket; -1 once closed */
    int error_fd;        /* the error fifo, from WAIT_START on */
    int fds[MAX_FDS];    /* slots; fds[0] is the plan */
    int procfd;          /* O_PATH of the host's /proc, opened before anything was joined: every write below
                           /proc goes through it (CVE-2025-52881); -1 before and after its use */
    int rootfd;          /* O_PATH of the root filesystem (bind mount), -1 without ROOT */
    int nullfd;          /* O_PATH of the host's /dev/null, checked to be 1:3, opened with procfd */
    struct stat self;    /* of the memfd that we were executed from: never the container's program */
    int timensfd;        /* timens_offsets of this process, for TIME_OFFSETS; -1 without, or after its use */
    char home[PATH_BUF]; /* what FIND_HOME found */
    char exe[PATH_BUF];  /* what FIND_EXE found */
    struct fault fault;
    char **pointers; /* room for the largest argv + envp: no mmap may be needed after SECCOMP */
    int filtered;    /* a seccomp filter is loaded: from now on no system call that is not essential */
    uint32_t joined; /* CLONE_NEW* of the namespaces that were joined ahead of their step */
    int pid;         /* our own, as the container sees it; asked for before a filter could forbid it */
    int early_cwd;   /* the working directory could be entered with the rights of before SET_IDS */
    int at_cwd;      /* CHDIR is done */
    int hidden;      /* DUMPABLE 0: to be repeated whenever ids or capabilities change */
    int admin;       /* CAPS kept CAP_SYS_ADMIN beyond what it was to leave, until DROP_ADMIN */
    int traced;      /* each step leaves a stamp */
    char released;   /* what `start` wrote into its fifo: START_*; 0 before that */
};

/* A string argument; a list argument's first item (the others follow, each after a NUL); a blob's first
 * byte. */
static inline const char *step_str(const struct init *in, const struct plan_step *st, int slot)
{
    return in->strings + st->s[slot];
}

/* The item after `item` of a list argument. */
static inline const char *list_next(const char *item)
{
    while (*item)
        item++;
    return item + 1;
}

/* The descriptor in a slot of the plan; -1 when there is none (or it was closed after its last use). */
static inline int slot_fd(const struct init *in, uint32_t slot)
{
    return slot > 0 && slot < MAX_FDS ? in->fds[slot] : -1;
}

/* A u64 argument: two number slots, low half first. */
static inline uint64_t step_u64(const struct plan_step *st, int slot)
{
    return st->n[slot] | (uint64_t)st->n[slot + 1] << 32;
}

/* report.c ------------------------------------------------------------------------------------------- */

/* Note a failure and return -err; `err` is a positive errno: `return fault(in, errno, "open", S_X_path, 0, "")`.
 * `detail` may be NULL or empty. */
int fault(struct init *in, int err, const char *call, int arg, uint32_t item, const char *detail);
/* Send the fault as a WARN record and clear it: the step continues.  `ret` is what fault() returned. */
void warn_fault(struct init *in, int ret);
/* Send FAIL for the current step (over the socket, or into the error fifo after WAIT_START) and exit 1.  `ret` is
 * what fault() returned. */
_Noreturn void die(struct init *in, int ret);
/* Send a record; exits silently when the parent is gone before CREATED was sent. */
void send_msg(struct init *in, uint32_t type, uint32_t value);
/* Wait for GO; exits silently at EOF (the runtime was killed: what it began must not live on). */
void wait_go(struct init *in);

/* run.c ------------------------------------------------------------------------------------------------- */

/* Fill in->pointers with a list argument and a NULL; returns the position after it. */
char **pointer_list(char **at, const char *item, uint32_t count);
/* Add what FIND_HOME found to the list that ends before `end`; `buf` holds the text and must stay. */
void add_home(const struct init *in, char **end, char *buf, size_t size);
/* Close everything that refers to the host: the private procfs, /dev/null, the root, all slots but the
 * fifos. */
void close_host_fds(struct init *in);
/* Give back the memory that only the steps so far needed. */
void trim_memory(struct init *in);

/* leave.c: end, also behind a filter that forbids exit_group. */
_Noreturn void leave(int status);
/* enter.c: fill in->timensfd, while there are the rights of before. */
int open_time_offsets(struct init *in);

/* trace.c: what only a traced init calls, but for trace_failed() ---------------------------------------- */

/* Note that the step at work begins; send what there is, when it has to be sent before that. */
void trace_step(struct init *in);
/* Note that the step at work has ended, and send all there is: FAIL follows.  Nothing without stamps. */
void trace_failed(struct init *in);

/* sched.c: undo a caller's taskset, as far as the cgroup allows. */
void all_cpus(void);

/* cred.c: 1 when setgroups(2) is denied in this user namespace. */
int groups_denied(struct init *in);
/* cred.c: DUMPABLE 0 again, if it was asked for: the kernel sets it to fs.suid_dumpable with the ids. */
int stay_hidden(struct init *in);

/* passable.c: 1 when a filter (`count` of the kernel's struct sock_filter) lets through the system calls that are
 * left to do after it and before EXECVE. */
int filter_passable(const struct init *in, const void *filter, uint32_t count);
/* 1 when no filter is loaded, or the plan's lets this call through. */
int filter_allows(const struct init *in, long number, uint64_t first, uint64_t second);

/* path.c: paths inside the root filesystem, never by name through a component the container controls --- */

/* openat2(rootfd, path, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS); flags like O_PATH | O_DIRECTORY. -errno
 * on error. */
int open_in_root(int rootfd, const char *path, int flags);
/* The same, but no symbolic link anywhere on the way (proc and sysfs destinations, CVE-2019-19921). */
int open_in_root_plain(int rootfd, const char *path, int flags);
/* Open `path` O_PATH, creating what is missing: directories 0755, and the last component as a directory or
 * (as_file) an empty file 0644; component by component on descriptors (CVE-2024-45310).  Dangling symbolic
 * links are followed inside the root.  Returns the descriptor or -errno. */
int create_in_root(int rootfd, const char *path, int as_file);
/* Open the parent directory of `path` (created when missing) and point *name at the last component. */
int parent_in_root(int rootfd, const char *path, const char **name, char buf[PATH_BUF]);
/* Open below the private procfs: openat2(procfd, rel, BENEATH | NO_XDEV | NO_MAGICLINKS), after checking
 * the magic. */
int open_proc(struct init *in, const char *rel, int flags);
/* open_proc + one write(2) + close.  Returns 0 or -errno. */
int write_proc(struct init *in, const char *rel, const char *data, size_t len);

/* Op handlers, generated from plan.def: 0, or -errno after fault(). */
#include "handlers.h"

#endif
