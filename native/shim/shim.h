/* Host-side system calls for Python that `posix` lacks, or cannot do without forking Python.
 *
 * Every function returns a value >= 0 or -errno. The GIL is released around each call.
 * build_shim.py and gen_calls.py parse this header, seccomp.h and bus.h: keep them to plain
 * prototypes, the marks of marks.h, integer defines and comments.
 */
#ifndef PYRUNC_SHIM_H
#define PYRUNC_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include "marks.h"

/* Descriptors ---------------------------------------------------------------------------------- */

/* A memfd with `len` bytes of `buf`, sealed against every change. executable: it may be
 * executed. If the host forbids executing memfds, it is a file in a read-only mount instead,
 * which takes CAP_SYS_ADMIN (otherwise -EACCES). */
int pr_memfd_sealed(const char *name, const void *buf, size_t len, int executable) PR_CALL(memfd_create);
/* A SOCK_SEQPACKET pair, both ends close-on-exec and numbered >= min_fd. */
int pr_socketpair(int out[2], int min_fd);
/* close_range(2); flags: 4 = set close-on-exec instead of closing. */
int pr_close_range(unsigned int first, unsigned int last, unsigned int flags);
/* f_type of statfs(2), e.g. 0x63677270 for cgroup2. */
int64_t pr_fs_type(const char *path) PR_CALL(statfs);
int64_t pr_fs_type_fd(int fd) PR_CALL(fstatfs);

/* Messages ------------------------------------------------------------------------------------- */

/* Send one message with up to 250 descriptors; never raises SIGPIPE. Returns the number of bytes
 * sent. */
int pr_send(int sock, const void *msg, size_t len, const int *fds, int nfds) PR_CALL(send);
/* Receive one message; descriptors that come with it are closed.  Returns its size, 0 at EOF; -ETIMEDOUT,
 * -EMSGSIZE if it is longer than `len`, -EINTR if a signal handler ran.  timeout_ms < 0: no limit. */
int pr_recv(int sock, void *msg, size_t len, int timeout_ms);
/* Likewise, with the first descriptor of the message in *fd (close-on-exec; -1: none); others
 * are closed. */
int pr_recv_fd(int sock, void *msg, size_t len, int timeout_ms, int *fd) PR_CALL(recvmsg);
/* Send `len` > 0 bytes with one descriptor (console sockets, seccomp listeners). */
int pr_send_fd(int sock, const void *payload, size_t len, int fd) PR_CALL(sendmsg);
/* How long a program that listens for us (a console, a seccomp agent, a service manager) may
 * take to answer. */
#define PR_PEER_SECONDS 10
/* Connect to a unix stream socket; the path may be longer than sun_path. Returns the socket,
 * which is close-on-exec. After PR_PEER_SECONDS connecting fails with -ETIMEDOUT, and a send
 * with -EAGAIN. */
int pr_connect_unix(const char *path) PR_CALL(connect);
/* Likewise for type 1 (SOCK_STREAM), 2 (SOCK_DGRAM) or 5 (SOCK_SEQPACKET); a leading '@' names an
 * abstract socket. */
int pr_connect_unix_type(const char *path, int type) PR_CALL(connect);
/* Bind a new socket file with this mode and, except for SOCK_DGRAM, listen on it. Returns the
 * socket, which is close-on-exec. */
int pr_listen_unix(const char *path, int type, unsigned int mode) PR_CALL(bind);

/* A NETLINK_ROUTE socket in the network namespace that `netns_fd` refers to; close-on-exec. The
 * calling thread returns to its own namespace; if it cannot, the process aborts. */
int pr_netlink_in(int netns_fd) PR_CALL(setns);

/* Processes ------------------------------------------------------------------------------------ */

/* Execute `exe_fd` as "pyrunc-init <npreserve> [joins]" with an empty environment, default signals
 * and an empty signal mask. `joins`: its plan joins a container. It inherits stdio and the
 * descriptors 3 .. 3+npreserve-1; `sock` becomes 3+npreserve; all others are closed. stdio: NULL,
 * or three descriptors above 2 that replace 0, 1 and 2 (-1: inherited). Returns the pid of the
 * child. -EBADF: a descriptor to preserve is not open. */
int pr_spawn_init(int exe_fd, int sock, int npreserve, int joins, const int *stdio) PR_CALL(posix_spawn);
/* The same, but returns before the child has executed; the first call of a process only. If the
 * child fails, it exits, which closes `sock`, and pr_spawn_error has the error. Then signals
 * are not reset. */
int pr_spawn_init_ahead(int exe_fd, int sock, int npreserve, int joins, const int *stdio)
    PR_CALL(posix_spawn);
int pr_spawn_error(void) PR_CALL(posix_spawn);
/* Execute a hook on the host with exactly this argv and envp (NULL-terminated), stdin_fd as
 * stdin and out_fd as stdout and stderr (-1: /dev/null), no other descriptor, and default
 * signals. cwd NULL: unchanged. Returns the pid. On failure *stage is the call: 1 set-up, 2
 * chdir, 3 execve. */
int pr_spawn_hook(const char *path, char *const argv[], char *const envp[], const char *cwd, int stdin_fd,
                  int out_fd, int *stage) PR_CALL(execve);
int pr_pidfd_open(int pid);
int pr_pidfd_getfd(int pidfd, int target_fd);
int pr_pidfd_send_signal(int pidfd, int sig);
/* Wait for a child and reap it. Returns its wait status as waitpid(2) does; -ETIMEDOUT, -ECHILD,
 * -EINTR. */
int pr_wait_pid_timeout(int pidfd, int timeout_ms) PR_CALL(waitid);
/* Wait for a child to end without reaping it: 0, -ETIMEDOUT, -ECHILD, -EINTR. timeout_ms < 0: no
 * limit. */
int pr_await_end(int pid, int timeout_ms) PR_CALL(waitid);
int pr_prlimit(int pid, int resource, uint64_t soft, uint64_t hard);
/* sched_setattr(2) for another process; `attr` is the kernel's struct sched_attr, which starts
 * with its size. */
int pr_sched_setattr(int pid, const void *attr);
int pr_set_child_subreaper(int on) PR_CALL(prctl);

/* User namespaces and mounts for them ---------------------------------------------------------- */

/* Create a user namespace with these maps (lines "INSIDE OUTSIDE SIZE\n"), in a child that lives
 * until this returns. Returns a descriptor of the namespace. On failure *stage is the call: 1
 * clone, 2 uid_map, 3 gid_map, 4 open. */
int pr_userns(const char *uid_map, const char *gid_map, int *stage) PR_CALL(clone);
/* Start a child in a new user namespace without maps, so that newuidmap(1) can write them. It
 * sleeps until it is killed, for at most half a minute. One at a time. Returns its pid. */
int pr_hold_userns(void) PR_CALL(clone);
/* setns(2); type: CLONE_NEW*. */
int pr_setns(int fd, int type);
/* Clone the mount at a path as a detached tree; recursive: with the mounts below it.  Returns its
 * descriptor. */
int pr_open_tree(const char *path, int recursive);
/* Make a detached clone an idmapped mount with the mapping of a user namespace; recursive: also the
 * mounts below it. */
int pr_mount_idmap(int tree, int recursive, int userns_fd) PR_CALL(mount_setattr);
/* mount(2), umount2(2) and unshare(2), for the layers of an image: `data` may be longer than
 * fsconfig(2) accepts. */
int pr_mount(const char *source, const char *target, const char *type, uint64_t flags, const char *data);
int pr_umount(const char *target, int flags) PR_CALL(umount2);
int pr_unshare(int flags);
/* Set MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE on a clone and all mounts below it. */
int pr_mount_propagation(int tree, uint64_t flag) PR_CALL(mount_setattr);

/* Terminals ------------------------------------------------------------------------------------ */

/* out: rows, columns, x pixels, y pixels. */
int pr_get_winsize(int fd, unsigned short out[4]) PR_CALL(ioctl);
int pr_set_winsize(int fd, unsigned short rows, unsigned short cols) PR_CALL(ioctl);
/* Save a terminal's mode in `saved` (`size` >= PR_TERMINAL bytes) and make it raw, as
 * cfmakeraw(3) does, except for its output processing. -ENOTTY: not a terminal. */
#define PR_TERMINAL 64
int pr_terminal_raw(int fd, void *saved, size_t size) PR_CALL(tcsetattr);
/* Restore the mode that pr_terminal_raw saved, once all output is written. */
int pr_terminal_restore(int fd, const void *saved, size_t size) PR_CALL(tcsetattr);
/* Output no carriage return before a newline. */
int pr_terminal_clear_onlcr(int fd) PR_CALL(tcsetattr);

/* Signals of the runtime itself ---------------------------------------------------------------- */

/* Record SIGHUP, SIGINT, SIGQUIT and SIGTERM in a flag instead of ending the process; waits return
 * -EINTR.  _restore undoes it. */
int pr_signals_catch(void) PR_CALL(sigaction);
int pr_signals_caught(void); /* the last one recorded, or 0 */
int pr_signals_restore(void) PR_CALL(sigaction);
/* Block all signals except those of faults, and return a non-blocking signalfd(2) that reports
 * them. */
int pr_signalfd(void);
int pr_signalfd_read(int fd)
    PR_CALL(read); /* the next signal, but no SIGPIPE of our own writes; -EAGAIN: none */

/* Device programs of cgroup v2 ----------------------------------------------------------------- */

/* Load `ninsns` instructions of 8 bytes as BPF_PROG_TYPE_CGROUP_DEVICE.  On failure `log` holds the
 * verifier's messages. */
int pr_bpf_prog_load_device(const void *insns, int ninsns, char *log, int loglen) PR_CALL(bpf(PROG_LOAD));
/* flags: 2 = BPF_F_ALLOW_MULTI, 4 = BPF_F_REPLACE (then replace_fd is the program to replace,
 * else -1). */
int pr_bpf_prog_attach(int cgroup_fd, int prog_fd, unsigned int flags, int replace_fd)
    PR_CALL(bpf(PROG_ATTACH));
int pr_bpf_prog_detach(int cgroup_fd, int prog_fd) PR_CALL(bpf(PROG_DETACH));
/* The ids of the device programs attached to this cgroup itself. Returns their number; -ENOSPC
 * if there are more than `max`. */
int pr_bpf_prog_query(int cgroup_fd, uint32_t *ids, int max) PR_CALL(bpf(PROG_QUERY));
int pr_bpf_prog_get_fd_by_id(uint32_t id) PR_CALL(bpf(PROG_GET_FD_BY_ID));
/* The name a program was loaded with, at most 15 characters and a NUL.  Returns its length. */
int pr_bpf_prog_name(int prog_fd, char *name, size_t room) PR_CALL(bpf(OBJ_GET_INFO_BY_FD));

/* What works here, for `doctor` ---------------------------------------------------------------- */

#define PR_PROBE_NAMESPACES        0
#define PR_PROBE_MOUNT_API         1
#define PR_PROBE_OPENAT2           2
#define PR_PROBE_CLONE_INTO_CGROUP 3
#define PR_PROBE_SECCOMP_NOTIFY    4
#define PR_PROBE_LANDLOCK          5
/* Test a feature in a child, in new namespaces of the types in `flags` (CLONE_NEW*); leaves nothing
 * behind.  Returns 0 if it works (for landlock: its ABI version), or the error of the failed call;
 * -EPIPE: the child was killed; -ETIMEDOUT. */
int pr_probe(int what, int flags);
/* The subordinate ids of a user from libsubid, which includes NSS: one ignored byte, then lines
 * "START COUNT\n".  A child calls the library.  Returns the length; -ENOPKG: libsubid is missing or
 * crashed; -ETIMEDOUT. */
int pr_subids(const char *owner, int groups, char *out, size_t room);

#endif
