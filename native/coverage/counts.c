/* `make coverage` builds this into each product (-Dcoverage=DIRECTORY). gcov's counters are in a
 * file shared by all its processes, so the counts survive any end of a process: execve, SIGKILL, an
 * empty root filesystem.
 *
 * counters.ld puts the counters on separate pages.  With PYRUNC_COVERAGE_DUMP=DIRECTORY in the
 * environment, the program only writes gcov's files there and exits.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define QUIET __attribute__((no_profile_instrument_function))

struct gcov_info;
typedef void gcov_write(const void *data, unsigned size, void *to);
/* libgcov; GCC's manual, "Profiling and Test Coverage in Freestanding Environments". */
void __gcov_info_to_gcda(const struct gcov_info *, void (*name)(const char *, void *), gcov_write *,
                         void *(*allocate)(unsigned, void *), void *);

extern const struct gcov_info *const __start_gcov_info[], *const __stop_gcov_info[];
extern char pyrunc_counters[], pyrunc_counters_end[] __attribute__((visibility("hidden")));

/* GCC calls these in an instrumented program.  Only the presence of the first matters. libgcov's
 * versions of the others would write files. */
void __gcov_merge_add(int64_t *counters, unsigned count);
pid_t __gcov_fork(void);
int __gcov_execve(const char *path, char *const argv[], char *const envp[]);

QUIET void __gcov_merge_add(int64_t *counters, unsigned count)
{
    (void)counters;
    (void)count;
}

QUIET pid_t __gcov_fork(void)
{
    return (pid_t)syscall(SYS_clone, 17 /* SIGCHLD */, 0, 0, 0, 0);
}

QUIET int __gcov_execve(const char *path, char *const argv[], char *const envp[])
{
    return (int)syscall(SYS_execve, path, argv, envp);
}

QUIET static void open_file(const char *name, void *to)
{
    char path[4096];
    const char *last = strrchr(name, '/');
    snprintf(path, sizeof path, "%s/%s", getenv("PYRUNC_COVERAGE_DUMP"), last ? last + 1 : name);
    int *fd = to;
    *fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
}

QUIET static void write_file(const void *data, unsigned size, void *to)
{
    const int *fd = to;
    if (write(*fd, data, size) != (ssize_t)size)
        _exit(1);
}

QUIET static void *allocate(unsigned size, void *to)
{
    (void)to;
    return malloc(size);
}

__attribute__((constructor)) QUIET static void share_counters(void)
{
    size_t size = (size_t)(pyrunc_counters_end - pyrunc_counters);
    int fd = open(COVERAGE_FILE, O_RDWR | O_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, (off_t)size) == 0)
        mmap(pyrunc_counters, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (!getenv("PYRUNC_COVERAGE_DUMP"))
        return;
    for (const struct gcov_info *const *info = __start_gcov_info; info < __stop_gcov_info; info++) {
        int out = -1;
        __gcov_info_to_gcda(*info, open_file, write_file, allocate, &out);
        close(out);
    }
    _exit(fd < 0);
}
