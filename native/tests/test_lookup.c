/* Test the passwd scanner, and FIND_EXE in a directory of programs (argv[1], an empty
 * directory). */
#include "sys.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "calls.h"
#include "init.h"
#include "lookup.h"
#include "tap.h"

/* Replaces leave.c: nothing exits here. */
_Noreturn void leave(int status)
{
    exit(status);
}

/* The file used as /etc/passwd, and the error of opening it, if negative. */
static const char *passwd = "passwd";
static int passwd_error;

int open_in_root(int rootfd, const char *path, int flags)
{
    (void)rootfd;
    if (strcmp(path, "/etc/passwd") != 0 || passwd_error)
        return passwd_error ? passwd_error : -EINVAL;
    return (int)sys_ret(open(passwd, flags | O_CLOEXEC));
}

/* Feed pieces of every size, each in a separate block for the sanitizer.  All results must
 * agree. */
static const char *home_of(const char *text, uint32_t uid, size_t size)
{
    static char home[64];
    char first[64] = "";
    size_t len = strlen(text);

    for (size_t piece = 1; piece <= len + 1; piece++) {
        struct passwd_scan scan;
        int found = 0;

        passwd_begin(&scan, uid, home, size);
        for (size_t at = 0; at < len && !found; at += piece) {
            size_t n = len - at < piece ? len - at : piece;
            char *copy = malloc(n);

            memcpy(copy, text + at, n);
            found = passwd_feed(&scan, copy, n);
            free(copy);
        }
        if (!found && !passwd_end(&scan))
            strcpy(home, "(none)");
        if (piece == 1)
            strcpy(first, home);
        else if (strcmp(first, home) != 0)
            return "(the size of the pieces matters)";
    }
    return home;
}

#define HOME(text, uid, want) \
    OK(strcmp(home_of(text, uid, 64), want) == 0, "uid %u: %s", (unsigned)(uid), want)

static void test_passwd(void)
{
    static const char file[] = "root:x:0:0:root:/root:/bin/sh\n"
                               "# a comment\n"
                               "\n"
                               "short:x:5\n"
                               "1000:x:0:0::/trap:\n"
                               "user:x:1000:1000:A: user :/home/user:/bin/sh\n"
                               "user:x:1000:1000:A user:/home/user:/bin/sh\n"
                               "again:x:1000:1000::/home/again:/bin/sh\n"
                               "zero:x:007:7::/home/seven:\n"
                               "empty:x:8:8:::/bin/sh\n"
                               "wrap:x:4294967305:9::/home/wrap:\n"
                               "minus:x:-10:10::/home/minus:\n"
                               "blank:x: 11:11::/home/blank:\n"
                               "none:x::12::/home/none:\n"
                               "max:x:4294967295:1::/home/max:\n"
                               "last:x:99:99::/home/last";

    HOME(file, 0u, "/root");
    HOME(file, 7u, "/home/seven");
    HOME(file, 8u, "");
    HOME(file, 5u, "(none)");
    HOME(file, 9u, "(none)");
    HOME(file, 10u, "(none)");
    HOME(file, 11u, "(none)");
    HOME(file, 12u, "(none)");
    HOME(file, 99u, "/home/last");
    HOME(file, 4294967295u, "/home/max");
    HOME(file, 4242u, "(none)");
    HOME("", 0u, "(none)");
    HOME(":::::::::", 0u, "(none)");
    HOME("a:b:3:d:e:/h", 3u, "/h");
    HOME("a:b:3:d:e", 3u, "(none)");
    HOME("x:x:3:3::/first:\nx:x:3:3::/second:\n", 3u, "/first");
    HOME("x:x:7:7::/seven:\nnone:x::0::/none:\n", 0u, "(none)"); /* the digits of another line */
    HOME("x:x:18446744073709551619:3::/wrap64:\n", 3u, "(none)");
    struct passwd_scan scan;
    char home[64];
    static const char hidden[] = "x:x:3:3::/a\0b:\nx:x:3:3::/c:\n";

    passwd_begin(&scan, 3, home, sizeof(home));
    OK(passwd_feed(&scan, hidden, sizeof(hidden) - 1) == 1 && strcmp(home, "/c") == 0,
       "a home with a NUL is none");
    OK(strcmp(home_of("x:x:3:3::/12345678:\n", 3, 8), "(none)") == 0, "a home that does not fit is none");
    OK(strcmp(home_of("x:x:3:3::/123456:\n", 3, 8), "/123456") == 0, "a home that just fits is one");
}

static void make_file(const char *path, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

    if (fd < 0 || fchmod(fd, mode) < 0)
        abort();
    close(fd);
}

static int find(struct init *in, const char *file, const char *path)
{
    static char strings[2 * PATH_BUF];
    struct plan_step st = {.op = OP_FIND_EXE, .s = {1, 0}};

    strcpy(strings + 1, file);
    st.s[S_FIND_EXE_path] = (uint32_t)strlen(file) + 2;
    strcpy(strings + st.s[S_FIND_EXE_path], path);
    in->strings = strings;
    in->exe[0] = 0;
    memset(&in->fault, 0xff, sizeof(in->fault));
    return op_find_exe(in, &st);
}

#define FOUND(file, path, want) \
    OK(find(&in, file, path) == 0 && strcmp(in.exe, want) == 0, "%s in %s is %s", file, path, want)
#define REFUSED(file, path, err, text)                                          \
    OK(find(&in, file, path) == -(err) && strcmp(in.fault.detail, text) == 0 && \
           in.fault.arg == S_FIND_EXE_file && in.fault.item == 0,               \
       "%s in %s is refused: %s", file, path, text)

static void test_find_exe(const char *dir)
{
    static struct init in;
    static const char missing[] = "executable file not found in $PATH";
    char long_name[PATH_BUF + 1];

    if (chdir(dir) < 0 || mkdir("a", 0755) < 0 || mkdir("b", 0755) < 0 || mkdir("b/dir", 0755) < 0)
        abort();
    make_file("a/plain", 0644);
    make_file("a/both", 0644);
    make_file("b/both", 0755);
    make_file("b/prog", 0755);
    make_file("here", 0755);
    if (symlink("loop", "b/loop") < 0 || symlink("prog", "b/link") < 0 || mkfifo("b/fifo", 0755) < 0)
        abort();

    FOUND("prog", "a:b", "b/prog");
    FOUND("both", "a:b", "b/both");
    FOUND("link", "a:b", "b/link");
    FOUND("prog", "missing:a::b", "b/prog");
    FOUND("here", "a:", "./here");
    FOUND("here", ":a", "./here");
    FOUND("here", "a::b", "./here");
    FOUND("here", ":", "./here");
    FOUND("./here", "", "./here");
    FOUND("b/prog", "", "b/prog");
    if (stat("b/prog", &in.self) < 0) /* as if we were executed from it */
        abort();
    REFUSED("b/prog", "", EACCES, "permission denied");
    REFUSED("link", "a:b", EACCES, "permission denied");
    FOUND("both", "a:b", "b/both");
    memset(&in.self, 0, sizeof(in.self));
    REFUSED("plain", "a:b", EACCES, "permission denied");
    REFUSED("plain", "b", ENOENT, missing);
    make_file("plain", 0644);
    REFUSED("plain", "b:", EACCES, "permission denied"); /* a trailing empty element counts */
    REFUSED("plain", ":b", EACCES, "permission denied");
    REFUSED("here", "a:b", ENOENT, missing);
    REFUSED("prog", "", ENOENT, missing);
    REFUSED("", "b", ENOENT, missing);
    REFUSED("dir", "b", ENOENT, missing);
    REFUSED("loop", "b", ENOENT, missing);
    REFUSED("fifo", "b", EACCES, "permission denied");
    REFUSED("b/dir", "", EACCES, "permission denied: is a directory");
    REFUSED("b/", "", EACCES, "permission denied: is a directory");
    REFUSED("a/plain", "", EACCES, "permission denied");
    REFUSED("a/missing", "", ENOENT, "no such file or directory");
    REFUSED("a/plain/x", "", ENOTDIR, "");
    REFUSED("b/loop", "", ELOOP, "");

    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = 0;
    REFUSED(long_name, "a", ENOENT, missing);
    long_name[0] = '/';
    REFUSED(long_name, "a", ENAMETOOLONG, "");
}

/* The longest path that fits, and one byte more, which is passed over and written nowhere. */
static void test_long_elements(void)
{
    static struct init in;
    static char path[PATH_BUF + 64];
    size_t most = PATH_BUF - sizeof("/prog");
    char *behind = (char *)&in + offsetof(struct init, exe) + PATH_BUF;

    for (size_t more = 0; more < 2; more++) {
        memset(path, '/', sizeof(path));
        path[0] = '.';
        strcpy(path + most + more - 1, "b:a:b");
        in.exe[PATH_BUF - 1] = 0;
        *behind = 0x7f;
        OK(find(&in, "prog", path) == 0 && strlen(in.exe) == (more ? strlen("b/prog") : PATH_BUF - 1),
           "the longest element and %zu: %zu", more, strlen(in.exe));
        OK(*behind == 0x7f, "nothing is written behind the path");
    }
    memset(path, '/', sizeof(path));
    path[0] = '.';
    strcpy(path + PATH_BUF - sizeof("b/prog"), "b/prog");
    OK(find(&in, path, "") == 0 && strlen(in.exe) == PATH_BUF - 1, "the longest path: %zu", strlen(in.exe));
}

/* A filter may return ENOSYS or EPERM for the newer call, or for both. */
static void test_filtered(void)
{
    static struct init in;
    static const int answers[] = {ENOSYS, EPERM};

    for (size_t i = 0; i < 2; i++) {
        calls.error = answers[i];
        for (calls.more = 0; calls.more < 2; calls.more++) {
            calls.armed = 1;
            calls.count = calls.fail_at = 0;
            FOUND("b/prog", "", "b/prog");
            calls.count = 0;
            if (calls.more == 0)
                REFUSED("a/plain", "", EACCES, "permission denied");
            else
                FOUND("a/plain", "", "a/plain"); /* execve decides */
        }
    }
    calls.more = 0;
    calls.error = EIO;
    calls.count = 0;
    REFUSED("b/prog", "", EIO, "");
    calls.armed = 0;
    calls.fail_at = -1;
}

static int home_in(struct init *in, uint32_t uid)
{
    struct plan_step st = {.op = OP_FIND_HOME, .n = {uid}};

    memset(&in->fault, 0, sizeof(in->fault));
    strcpy(in->home, "/before");
    return op_find_home(in, &st);
}

static void write_passwd(const char *text, size_t padding)
{
    FILE *file = fopen("passwd", "w");

    if (!file)
        abort();
    for (size_t i = 0; i < padding; i++)
        fputc(i % 64 == 63 ? '\n' : '#', file);
    fputs(text, file);
    fclose(file);
}

#define HOME_IS(uid, want) \
    OK(home_in(&in, uid) == 0 && strcmp(in.home, want) == 0, "home of %u is %s, not %s", uid, want, in.home)
#define LIMIT (1u << 20)

static void test_find_home(void)
{
    static struct init in;
    static const int lacks[] = {ENOMEM, EMFILE, ENFILE, EIO}, answers[] = {ENOENT, EACCES, ELOOP, ENOTDIR};
    static const char line[] = "a:x:7:7::/home/a:\n", cut[] = "a:x:7:7::/home/a";

    write_passwd(line, 0);
    HOME_IS(7u, "/home/a");
    HOME_IS(8u, "/");
    write_passwd(cut, 0);
    HOME_IS(7u, "/home/a");
    write_passwd("a:x:7:7::::\n", 0);
    HOME_IS(7u, "/");
    write_passwd("", 0);
    HOME_IS(7u, "/");
    /* The size of the file that is read is limited. */
    write_passwd(line, LIMIT - 64);
    HOME_IS(7u, "/home/a");
    write_passwd(cut, LIMIT - 64);
    HOME_IS(7u, "/home/a");
    write_passwd(line, LIMIT);
    HOME_IS(7u, "/");
    write_passwd(cut, LIMIT - 8); /* the limit is in the middle of the line */
    HOME_IS(7u, "/");
    passwd = "b/fifo";
    HOME_IS(7u, "/");
    passwd = "b";
    HOME_IS(7u, "/");
    passwd = "passwd";
    for (size_t i = 0; i < 4; i++) {
        passwd_error = -lacks[i];
        OK(home_in(&in, 7) == -lacks[i] && strcmp(in.fault.call, "read") == 0, "%s is not \"no home\"",
           strerror(lacks[i]));
        passwd_error = -answers[i];
        HOME_IS(7u, "/");
    }
    passwd_error = 0;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    test_passwd();
    test_find_exe(argv[1]);
    test_long_elements();
    test_filtered();
    test_find_home();
    return tap_end();
}
