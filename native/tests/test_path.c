/* Unit test of init/path.c: paths inside a hostile root filesystem.  Needs no privileges.  Prints
 * TAP.
 *
 * Usage: test_path DIR, an empty directory.  DIR/root is the root filesystem, DIR/outside must stay
 * empty.
 */
#include "../init/fsapi.h"
#include "calls.h"

#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#define SWAP_SECONDS 0.4

static int tests, failed, root;
static struct init in; /* only procfd is used */

static void check(int good, const char *what, long got)
{
    tests++;
    failed += !good;
    printf("%sok %d - %s", good ? "" : "not ", tests, what);
    printf(good ? "\n" : " (got %ld)\n", got);
}

#define EXPECT(call, want)                               \
    do {                                                 \
        long got_ = (call);                              \
        check(got_ == (want), #call " == " #want, got_); \
    } while (0)

/* Close a descriptor.  Returns its file type, or the error. */
static long kind(int fd)
{
    struct stat st;

    if (fd < 0)
        return fd;
    long type = fstat(fd, &st) < 0 ? -errno : (long)(st.st_mode & S_IFMT);
    close(fd);
    return type;
}

/* Returns the mode of a path below DIR (the working directory), 0 if it does not exist. */
static long mode(const char *path)
{
    struct stat st;

    return lstat(path, &st) < 0 ? 0 : (long)st.st_mode;
}

static int entries(const char *path)
{
    DIR *dir = opendir(path);
    int n = 0;

    if (!dir)
        return -1;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static long dir_at(const char *path)
{
    return kind(create_in_root(root, path, 0));
}

static long file_at(const char *path)
{
    return kind(create_in_root(root, path, 1));
}

static void test_create(void)
{
    umask(077); /* the caller's umask must not affect what we create */
    EXPECT(dir_at("/a/b/c"), S_IFDIR);
    EXPECT(mode("root/a/b"), S_IFDIR | 0755);
    EXPECT(mode("root/a/b/c"), S_IFDIR | 0755);
    EXPECT(file_at("a//./b/file"), S_IFREG);
    EXPECT(mode("root/a/b/file"), S_IFREG | 0644);
    EXPECT((long)umask(022), 077);
    EXPECT(dir_at("/a/b/c"), S_IFDIR);
    EXPECT(file_at("/a/b/file"), S_IFREG);
    EXPECT(file_at("/a/b/dot/."), S_IFREG);
    EXPECT(file_at("/a/b/dots/././/./"), S_IFREG);
    EXPECT(file_at("/a/b/.hidden"), S_IFREG);
    EXPECT(mode("root/a/b/.hidden"), S_IFREG | 0644);
    EXPECT(dir_at("/a/.b/c."), S_IFDIR);
    EXPECT(mode("root/a/.b/c."), S_IFDIR | 0755);
    EXPECT(file_at("/a/b"), -EISDIR);
    EXPECT(file_at("/"), -EISDIR);
    EXPECT(file_at("/missing/.."), -EISDIR);
    EXPECT(dir_at("/a/b/file"), -ENOTDIR);
    EXPECT(dir_at("/a/b/file/x"), -ENOTDIR);
    EXPECT(dir_at("/"), S_IFDIR);
    EXPECT(dir_at(""), -ENOENT);
    EXPECT(dir_at("/new/sub/../../other/./"), S_IFDIR);
    EXPECT(mode("root/other"), S_IFDIR | 0755);
    EXPECT(dir_at("../../outside/x"), S_IFDIR);
    EXPECT(mode("root/outside/x"), S_IFDIR | 0755);
}

static void test_long(void)
{
    char path[PATH_BUF + 10];

    memset(path, 'n', sizeof(path));
    path[NAME_MAX + 1] = 0;
    EXPECT(dir_at(path), -ENAMETOOLONG);
    char behind[PATH_BUF]; /* what the kernel does not look at, because something is missing before it */
    snprintf(behind, sizeof(behind), "/missing3/%.300s", path);
    EXPECT(dir_at(behind), -ENAMETOOLONG);
    EXPECT(file_at(behind), -ENAMETOOLONG);
    snprintf(behind, sizeof(behind), "/missing4/%.255s", path);
    EXPECT(dir_at(behind), S_IFDIR);
    for (size_t i = 0; i < sizeof(path) - 1; i++)
        path[i] = i % 2 ? 'd' : '/';
    path[sizeof(path) - 1] = 0;
    EXPECT(dir_at(path), -ENAMETOOLONG);
    /* The longest path that there is, and one that a link makes longer by one byte. */
    char link[PATH_BUF], target[PATH_BUF], longer[PATH_BUF];
    memset(path, 'n', sizeof(path));
    for (size_t i = 0; i < PATH_BUF; i += NAME_MAX + 1)
        path[i] = '/';
    path[PATH_BUF - 1] = 0;
    EXPECT(dir_at(path), S_IFDIR);
    snprintf(link, sizeof(link), "root%.2048s/l", path);
    snprintf(target, sizeof(target), "%.1791s", path + 1); /* seven components */
    EXPECT(symlink(target, link), 0);
    snprintf(longer, sizeof(longer), "%.2048s/l/%.255s", path, path + 1);
    EXPECT(dir_at(longer), -ENAMETOOLONG);
}

/* Absolute and "../" links, dangling or not, in every position: they always resolve inside the
 * root (CVE-2019-18837). */
static void test_links(void)
{
    EXPECT(symlink("/outside", "root/abs"), 0);
    EXPECT(symlink("../../../../outside", "root/a/up"), 0);
    EXPECT(symlink("/nowhere/deep/target", "root/dangling"), 0);
    EXPECT(symlink("dangling", "root/second"), 0);
    EXPECT(symlink("loop2", "root/loop1"), 0);
    EXPECT(symlink("loop1", "root/loop2"), 0);
    EXPECT(symlink("b/file", "root/a/tofile"), 0);
    EXPECT(dir_at("/abs/one"), S_IFDIR);
    EXPECT(mode("root/outside/one"), S_IFDIR | 0755);
    EXPECT(file_at("/a/up/two"), S_IFREG);
    EXPECT(mode("root/outside/two"), S_IFREG | 0644);
    EXPECT(file_at("/second"), S_IFREG);
    EXPECT(mode("root/nowhere/deep/target"), S_IFREG | 0644);
    EXPECT(file_at("/a/tofile"), S_IFREG);
    EXPECT(dir_at("/loop1/x"), -ELOOP);
    EXPECT(dir_at("/missing/../loop1/x"), -ELOOP);
    EXPECT(dir_at("/missing2/../abs/three"), S_IFDIR);
    EXPECT(mode("root/outside/three"), S_IFDIR | 0755);
    EXPECT(entries("outside"), 2);
}

static void make_chain(int length)
{
    char from[64], to[64];

    for (int i = 0; i < length; i++) {
        snprintf(from, sizeof(from), "root/chain%d", i);
        snprintf(to, sizeof(to), "chain%d", i + 1);
        unlink(from);
        if (symlink(to, from) < 0)
            perror(from);
    }
}

static void test_chain(void)
{
    make_chain(40);
    EXPECT(dir_at("chain0"), S_IFDIR);
    EXPECT(rmdir("root/chain40"), 0);
    make_chain(41);
    EXPECT(dir_at("chain0"), -ELOOP);
}

static void test_plain(void)
{
    EXPECT(kind(open_in_root_plain(root, "/a/b/file", O_PATH)), S_IFREG);
    EXPECT(kind(open_in_root_plain(root, "/abs", O_PATH)), -ELOOP);
    EXPECT(kind(open_in_root_plain(root, "/a/up/x", O_PATH)), -ELOOP);
    EXPECT(kind(create_in_root_plain(root, "/plain/dir", 0)), S_IFDIR);
    EXPECT(kind(create_in_root_plain(root, "/abs/dir", 0)), -ELOOP);
    EXPECT(kind(create_in_root_plain(root, "/dangling2/../abs/dir", 0)), -ELOOP);
    EXPECT(mode("root/outside/dir"), 0);
}

/* Magic links lead out of any root.  Their text is harmless. */
static void test_magic(void)
{
    int AUTO_CLOSE slash = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    EXPECT(kind(open_in_root(slash, "/proc/self/root/proc", O_PATH)), -ELOOP);
    EXPECT(kind(open_in_root(slash, "/proc/self/status", O_PATH)), S_IFREG);
}

static long parent_of(const char *path, const char *want)
{
    char buf[PATH_BUF];
    const char *name = "?";
    int fd = parent_in_root(root, path, &name, buf);

    if (fd >= 0 && strcmp(name, want) != 0) {
        printf("# name \"%s\"\n", name);
        close(fd);
        return -1000;
    }
    return kind(fd);
}

static void test_parent(void)
{
    EXPECT(parent_of("/dev/null", "null"), S_IFDIR);
    EXPECT(mode("root/dev"), S_IFDIR | 0755);
    EXPECT(parent_of("top", "top"), S_IFDIR);
    EXPECT(parent_of("/top//", "top"), S_IFDIR);
    EXPECT(parent_of("/abs/p/q", "q"), S_IFDIR);
    EXPECT(mode("root/outside/p"), S_IFDIR | 0755);
    EXPECT(parent_of("/", ""), -EINVAL);
    EXPECT(parent_of("", ""), -EINVAL);
    EXPECT(parent_of("/a/.", ""), -EINVAL);
    EXPECT(parent_of("/a/..", ""), -EINVAL);
    EXPECT(parent_of("/a/b/file/x", "x"), -ENOTDIR);
    EXPECT(entries("outside"), 2);
    char path[PATH_BUF + 1], name[NAME_MAX + 2];
    memset(name, 'n', sizeof(name));
    name[NAME_MAX + 1] = 0;
    EXPECT(parent_of(name, ""), -ENAMETOOLONG);
    name[NAME_MAX] = 0;
    EXPECT(parent_of(name, name), S_IFDIR);
    memset(path, '/', sizeof(path));
    strcpy(path + PATH_BUF - 2, "xx");
    EXPECT(parent_of(path, ""), -ENAMETOOLONG);
    path[PATH_BUF - 1] = 0;
    EXPECT(parent_of(path, "x"), S_IFDIR);
    path[PATH_BUF - 1] = '/'; /* does not count at the end */
    EXPECT(parent_of(path, "x"), S_IFDIR);
}

static long proc_kind(int procfd, const char *rel)
{
    in.procfd = procfd;
    return kind(open_proc(&in, rel, O_RDONLY));
}

/* A write below /proc must not reach another file. */
static void test_proc(void)
{
    char comm[16] = "";
    int AUTO_CLOSE proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int AUTO_CLOSE sub = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

    EXPECT(proc_kind(proc, "self/status"), S_IFREG);
    EXPECT(proc_kind(proc, "self/root/etc"), -ELOOP);
    EXPECT(proc_kind(proc, "self/exe"), -ELOOP);
    EXPECT(proc_kind(proc, "../etc/passwd"), -EXDEV);
    EXPECT(proc_kind(proc, "/etc/passwd"), -EXDEV);
    EXPECT(proc_kind(proc, "self/nope"), -ENOENT);
    EXPECT(proc_kind(sub, "status"), -EXDEV);
    EXPECT(proc_kind(root, "a"), -EXDEV);
    EXPECT(proc_kind(-1, "self/status"), -EBADF);
    in.procfd = proc;
    EXPECT(write_proc(&in, "self/comm", "renamed", 7), 0);
    int fd = open_proc(&in, "self/comm", O_RDONLY);
    EXPECT(read(fd, comm, sizeof(comm) - 1), 8);
    EXPECT(strcmp(comm, "renamed\n"), 0);
    close(fd);
    EXPECT(write_proc(&in, "self/nope", "x", 1), -ENOENT);
}

static void test_descriptors(void)
{
    int AUTO_CLOSE proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int AUTO_CLOSE null = open("/dev/null", O_PATH | O_CLOEXEC);
    int AUTO_CLOSE zero = open("/dev/zero", O_PATH | O_CLOEXEC);
    int AUTO_CLOSE file = create_in_root(root, "/reopened", 1);
    int AUTO_CLOSE other = create_in_root(root, "/another", 1);

    in.procfd = proc;
    EXPECT(is_chr(null, 1, 3), 1);
    EXPECT(is_chr(zero, 1, 3), 0);
    EXPECT(is_chr(file, 1, 3), 0);
    EXPECT(is_chr(-1, 1, 3), -EBADF);
    EXPECT(same_place(file, file), 1);
    EXPECT(same_place(file, other), 0);
    EXPECT(same_place(-1, file), -EBADF);
    EXPECT(same_place(file, -1), -EBADF);
    /* Objects of two mounts may have the same inode number: the roots of procfs and sysfs do. */
    int AUTO_CLOSE sys = open("/sys", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct stat a, b;
    EXPECT(fstat(proc, &a) == 0 && fstat(sys, &b) == 0 && a.st_ino == b.st_ino, 1);
    EXPECT(same_place(proc, sys), 0);
    EXPECT(fs_magic(proc), MAGIC_PROC);
    EXPECT(fs_magic(-1), -EBADF);
    /* The name now refers to another file, the descriptor does not. */
    EXPECT(rename("root/another", "root/reopened"), 0);
    int fd = reopen_fd(&in, file, O_WRONLY);
    EXPECT(write(fd, "x", 1), 1);
    EXPECT(same_place(fd, file), 1);
    close(fd);
    EXPECT(kind(reopen_fd(&in, null, O_RDWR)), S_IFCHR);
}

/* A change of a path between two of our system calls, at the worst moment of a race. */
static const char *moment, *from, *to;
static int moments;

static void move_now(const char *name, int after)
{
    if (after || !moment || strcmp(name, moment) != 0 || moments-- > 0)
        return;
    moment = NULL;
    if (from[0] == '>' ? symlink(from + 1, to) < 0 : rename(from, to) < 0)
        perror(to);
}

/* Before the call `name`, after `skip` others of that name, rename, or (">text") create a link. */
static void at(int skip, const char *name, const char *old, const char *new)
{
    moments = skip;
    moment = name;
    from = old;
    to = new;
    calls.watch = move_now;
    calls.armed = 1;
}

static int outside_is_empty(void)
{
    calls.armed = 0;
    return moment == NULL && entries("outside") == 2;
}

/* CVE-2024-45310 and similar races, at the vulnerable call. */
static void test_moments(void)
{
    EXPECT(dir_at("/m/in/sub"), S_IFDIR);
    /* ".." of a directory that was moved out of the root would be the host's. */
    at(1, "fstat", "root/m/in", "outside/in");
    EXPECT(dir_at("/m/in/../made"), S_IFDIR);
    EXPECT(mode("outside/made"), 0);
    EXPECT(mode("root/m/made"), S_IFDIR | 0755);
    EXPECT(rename("outside/in", "root/m/in"), 0);
    EXPECT(outside_is_empty(), 1);
    /* A link that appears where a file is about to be created: never written through, but
     * followed inside the root. */
    char outside[PATH_MAX], link[PATH_MAX + 16];
    if (!realpath("outside", outside))
        perror("realpath");
    snprintf(link, sizeof(link), ">%s/file", outside);
    EXPECT(dir_at(outside), S_IFDIR);
    at(2, "openat", link, "root/m/file");
    EXPECT(file_at("/m/file"), S_IFREG);
    EXPECT(outside_is_empty(), 1);
    /* The same for a directory. */
    snprintf(link, sizeof(link), ">%s/dir", outside);
    at(0, "mkdirat", link, "root/m/dir");
    EXPECT(dir_at("/m/dir/below"), S_IFDIR);
    EXPECT(outside_is_empty(), 1);
    /* A directory that becomes a link after the check: new files are created in the directory. */
    at(3, "openat", "root/m/in", "root/m/was");
    EXPECT(file_at("/m/in/sub2/x"), S_IFREG);
    EXPECT(mode("root/m/was/sub2/x"), S_IFREG | 0644);
    EXPECT(outside_is_empty(), 1);
}

/* A component that appears and disappears opposite to our checks, but not forever. */
static void come_and_go(const char *name, int after)
{
    if (strcmp(name, "mkdirat") != 0)
        return;
    if (after ? rmdir("root/m/shy") < 0 : mkdir("root/m/shy", 0755) < 0)
        perror("shy");
}

/* A walk ends for any path. */
static void test_ends(void)
{
    static char text[4096], path[PATH_BUF];

    EXPECT(dir_at("/m/steps"), S_IFDIR);
    for (size_t i = 0; i < 3600; i += 9)
        memcpy(text + i, "steps/../", 9);
    EXPECT(symlink(text, "root/m/many"), 0);
    /* each takes 800 of the 4096 steps */
    EXPECT(dir_at("/m/new1/../many/many/many/many/many/last"), S_IFDIR);
    EXPECT(dir_at("/m/new2/../many/many/many/many/many/many/last2"), -ELOOP);
    EXPECT(mode("root/m/last2"), 0);
    /* 4095 components and the end */
    snprintf(path, sizeof(path), "/m/new4/../many/many/many/many/many/%.387slast3", text);
    EXPECT(dir_at(path), S_IFDIR);
    snprintf(path, sizeof(path), "/m/new5/../many/many/many/many/many/%.387ssteps/last4", text);
    EXPECT(dir_at(path), -ELOOP);
    /* a target and what follows the link are too long together */
    snprintf(path, sizeof(path), "/m/new6/../many/%.540slast5", text);
    EXPECT(dir_at(path), -ENAMETOOLONG);
    EXPECT(mode("root/m/last5"), 0);
    snprintf(path, sizeof(path), "/m/new3/../%.3600s", text);
    EXPECT(dir_at(path), S_IFDIR);
    calls.watch = come_and_go;
    calls.armed = 1;
    EXPECT(dir_at("/m/shy"), -EAGAIN);
    calls.armed = 0;
    calls.watch = NULL;
}

/* Every failing call of a walk ends it with that error, and no descriptor leaks. */
static void test_errors(void)
{
    char path[64];
    int before = entries("/proc/self/fd"), hits = 0;

    calls.watch = NULL;
    calls.error = EIO;
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof(path), "/errors%d/../link/a/b", i);
        if (symlink("errors", "root/link") < 0 && errno != EEXIST)
            perror("link");
        calls.count = 0;
        calls.fail_at = i;
        calls.hit = NULL;
        calls.armed = 1;
        long got = i % 2 ? dir_at(path) : file_at(path);
        calls.armed = 0;
        if (calls.hit && got != -EIO)
            printf("# %s: %ld\n", calls.hit, got);
        EXPECT(got, calls.hit ? -EIO : i % 2 ? S_IFDIR : S_IFREG);
        hits += calls.hit != NULL;
        EXPECT(entries("/proc/self/fd"), before);
        /* Removed, because each round creates it. */
        rmdir("root/errors/a/b");
        unlink("root/errors/a/b");
        rmdir("root/errors/a");
        rmdir("root/errors");
    }
    EXPECT(hits >= 20, 1);
    calls.fail_at = -1;
}

/* Exchange root/race/dir and root/race/link (to ../../../outside) until killed. */
static pid_t start_swapper(void)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    for (;;)
        syscall(SYS_renameat2, (long)AT_FDCWD, "root/race/dir", (long)AT_FDCWD, "root/race/link", 2L);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* CVE-2021-30465, CVE-2024-45310: a directory becomes a link and back while we create files
 * below it. */
static void test_race(void)
{
    char path[64], outside[PATH_MAX];
    int made = 0, errors = 0;

    EXPECT(dir_at("/race/dir"), S_IFDIR);
    if (!realpath("outside", outside))
        perror("realpath");
    /* As text this path is DIR/root/DIR/outside inside the root, and the real one is outside. */
    EXPECT(symlink(outside, "root/race/link"), 0);
    EXPECT(dir_at(outside), S_IFDIR);
    pid_t pid = start_swapper();
    double end = now() +
                 SWAP_SECONDS; /* longer on a loaded machine: the test needs 100 paths to be meaningful */
    for (; now() < end || (made <= 100 && now() < end + 30); made++) {
        snprintf(path, sizeof(path), "/race/dir/%c%d/sub", made & 1 ? 'd' : 'f', made % 5000);
        long got = made & 1 ? dir_at(path) : file_at(path);
        errors += got < 0 && got != -EAGAIN && got != -ENOTDIR && got != -ENOENT;
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    printf("# %d paths made while swapping\n", made);
    EXPECT(made > 100, 1);
    EXPECT(errors, 0);
    EXPECT(entries("outside"), 2);
}

int main(int argc, char **argv)
{
    if (argc != 2 || chdir(argv[1]) < 0 || mkdir("root", 0755) < 0 || mkdir("outside", 0755) < 0)
        return 2;
    root = open("root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int before = entries("/proc/self/fd");
    test_create();
    test_long();
    test_links();
    test_chain();
    test_plain();
    test_magic();
    test_parent();
    test_proc();
    test_descriptors();
    test_moments();
    test_ends();
    test_errors();
    test_race();
    EXPECT(entries("/proc/self/fd"), before);
    printf("1..%d\n", tests);
    return failed ? 1 : 0;
}
