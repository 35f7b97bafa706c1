/* Shared by the files of init: the loaded plan, the state, the fault record, and the op handlers.
 *
 * init is our only program that runs inside a container's namespaces.  It is static, allocates no
 * memory, parses no text but /etc/passwd, and executes the steps of the plan in order.
 */
#ifndef PYRUNC_INIT_H
#define PYRUNC_INIT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "plan.h"

#define MAX_FDS  250 /* the kernel's SCM_MAX_FD is 253; OPEN_TREE uses the slots after the plan's own */
#define PATH_BUF 4096
#define HOME_BUF (sizeof("HOME=") + PATH_BUF)

/* The location of a failure, for the FAIL record; filled in by fault(). */
struct fault {
    const char *call;        /* "fsconfig" */
    int arg;                 /* string slot (S_OP_name) of the failed argument, or -1 */
    uint32_t item;           /* index into a list argument */
    char detail[MSG_DETAIL]; /* the kernel's message or ours; empty if errno is enough */
};

struct init {
    const struct plan_header *plan; /* mapped read-only, checked by plan_load() */
    const struct plan_step *steps;
    const char *strings;
    uint32_t step;       /* index of the current step */
    int sock;            /* handshake socket; -1 once closed */
    int error_fd;        /* the error fifo, from WAIT_START on */
    int start_fd;        /* the start fifo, from WAIT_START on */
    int fds[MAX_FDS];    /* slots; fds[0] is the plan */
    int procfd;          /* O_PATH of the host's /proc, for every write to procfs (CVE-2025-52881), or -1 */
    int rootfd;          /* O_PATH of the root filesystem (bind mount); -1 without ROOT */
    int nullfd;          /* O_PATH of the host's /dev/null, verified to be 1:3; opened with procfd */
    struct stat self;    /* the memfd we were executed from: never the container's program */
    int timensfd;        /* timens_offsets of this process, for TIME_OFFSETS; -1 if unused or closed */
    char home[PATH_BUF]; /* the result of FIND_HOME */
    char exe[PATH_BUF];  /* the result of FIND_EXE */
    void (*undo)(struct init *); /* what a failure undoes, or NULL */
    struct fault fault;
    char **pointers; /* space for the largest argv + envp: a filter may forbid mmap */
    int filtered;    /* a seccomp filter is loaded: make only essential system calls */
    uint32_t joined; /* CLONE_NEW* of the namespaces joined ahead of their step */
    int alone;       /* UNSHARE created a pid namespace, so CLONE_INIT creates its first process */
    int pid;         /* our pid as the container sees it; read before a filter may forbid it */
    int early_cwd;   /* chdir to the working directory succeeded before SET_IDS */
    int at_cwd;      /* CHDIR has run */
    int hidden;      /* DUMPABLE 0: repeat it when ids or capabilities change */
    int admin;       /* CAPS kept CAP_SYS_ADMIN for the filter, until DROP_ADMIN */
    int traced;      /* record a time stamp for each step */
    char released;   /* the byte that `start` wrote into its fifo: START_*; 0 before that */
};

/* Returns a string argument, the first item of a list (the others follow, each after a NUL), or
 * the first byte of a blob. */
static inline const char *step_str(const struct init *in, const struct plan_step *st, int slot)
{
    return in->strings + st->s[slot];
}

/* Returns the item after `item` in a list argument. */
static inline const char *list_next(const char *item)
{
    while (*item)
        item++;
    return item + 1;
}

/* Returns the descriptor in a slot of the plan, or -1 if there is none or it was closed. */
static inline int slot_fd(const struct init *in, uint32_t slot)
{
    return slot > 0 && slot < MAX_FDS ? in->fds[slot] : -1;
}

/* Returns a u64 argument: two number slots, low half first. */
static inline uint64_t step_u64(const struct plan_step *st, int slot)
{
    return st->n[slot] | (uint64_t)st->n[slot + 1] << 32;
}

/* report.c ------------------------------------------------------------------------------------- */

/* Record a failure and return -err.  `err` is a positive errno: `return fault(in, errno, "open",
 * S_X_path, 0, "")`.  `detail` may be NULL or empty. */
int fault(struct init *in, int err, const char *call, int arg, uint32_t item, const char *detail);
/* Send the fault as a WARN record; the step continues.  `ret` is the result of fault(). */
void warn_fault(struct init *in, int ret);
/* Send FAIL for the current step (to the socket, or to the error fifo after WAIT_START) and exit
 * with status 1.  `ret` is the result of fault(). */
_Noreturn void die(struct init *in, int ret);
/* A record about the current step. `ret` is 0, or the result of fault(). */
struct msg make_record(const struct init *in, uint32_t type, int ret);
/* Send a record.  Exits silently if the parent is gone before CREATED was sent. */
void send_msg(struct init *in, uint32_t type, uint32_t value);
/* Send TREE; `text` goes into its field `call`. */
void send_tree(struct init *in, uint32_t value, const char *text);
/* Wait for GO.  Exits silently at EOF: the runtime was killed, and an unfinished container must
 * not outlive it. */
void wait_go(struct init *in);

/* run.c ---------------------------------------------------------------------------------------- */

/* Fill in->pointers with a list argument and a NULL; returns the position after it. */
char **pointer_list(char **at, const char *item, uint32_t count);
/* Append HOME with the result of FIND_HOME to the list that ends before `end`.  `buf` holds the
 * text and must outlive the list. */
void add_home(const struct init *in, char **end, char *buf, size_t size);
/* Close all references to the host: the private procfs, /dev/null, the root, and all slots
 * except the fifos. */
void close_host_fds(struct init *in);

/* wait.c: release the memory that only earlier steps needed. */
void trim_memory(struct init *in);
/* wait.c: send CREATED, close the socket, and wait for the byte of `start`: in->released.  Returns 0,
 * or -errno. Exits silently if the parent is gone. */
int wait_for_start(struct init *in, int start);

/* leave.c: exit, even under a filter that forbids exit_group(2). */
_Noreturn void leave(int status);
/* enter.c: open in->timensfd while we still have the caller's privileges. */
int open_time_offsets(struct init *in);
/* enter.c: become the leader of a session, and set in->pid.  Returns 0, or -errno after fault(). */
int new_session(struct init *in);

/* trace.c: called only if traced, except trace_failed()
 * ----------------------------------------------- */

/* Record the start of the current step.  Send the record early if it cannot be sent after the
 * step. */
void trace_step(struct init *in);
/* Record the end of the current step and send all times, before FAIL.  Does nothing without
 * times. */
void trace_failed(struct init *in);

/* sched.c: undo the caller's taskset, as far as the cgroup allows. */
void all_cpus(void);

/* cred.c: returns 1 if setgroups(2) is denied in this user namespace. */
int groups_denied(struct init *in);
/* cred.c: repeat DUMPABLE 0 if it was requested: a change of ids sets it to fs.suid_dumpable. */
int stay_hidden(struct init *in);

/* passable.c: returns 1 if a filter (`count` of the kernel's struct sock_filter) allows the
 * system calls that remain before EXECVE. */
int filter_passable(const struct init *in, const void *filter, uint32_t count);
/* Returns 1 if no filter is loaded, or if the plan's filter allows this call. */
int filter_allows(const struct init *in, long number, uint64_t first, uint64_t second);

/* path.c: paths inside the root filesystem; no component that the container controls is followed
 * by name */

/* openat2(rootfd, path, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS), with flags like O_PATH |
 * O_DIRECTORY.  Returns -errno on error. */
int open_in_root(int rootfd, const char *path, int flags);
/* The same, but symbolic links are an error (proc and sysfs destinations, CVE-2019-19921). */
int open_in_root_plain(int rootfd, const char *path, int flags);
/* Open `path` with O_PATH and create missing components: directories with mode 0755, and the
 * last component as a directory or (as_file) an empty file with mode 0644.  Each component is
 * opened relative to a descriptor (CVE-2024-45310).  Dangling symbolic links are resolved inside
 * the root.  Returns the descriptor or -errno. */
int create_in_root(int rootfd, const char *path, int as_file);
/* Open the parent directory of `path` (created if missing), and set *name to the last component. */
int parent_in_root(int rootfd, const char *path, const char **name, char buf[PATH_BUF]);
/* Check the magic of the private procfs and open a file below it: openat2(procfd, rel, BENEATH |
 * NO_XDEV | NO_MAGICLINKS). */
int open_proc(struct init *in, const char *rel, int flags);
/* open_proc + one write(2) + close.  Returns 0 or -errno. */
int write_proc(struct init *in, const char *rel, const char *data, size_t len);

/* Op handlers, generated from plan.def.  They return 0, or -errno after fault(). */
#include "handlers.h"

#endif
