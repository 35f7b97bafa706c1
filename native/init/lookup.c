/* Lookups in the container's own files: the home directory, and the path of the program. */
#include "sys.h"

#include <string.h>
#include <sys/stat.h>

#include "init.h"
#include "lookup.h"

#define PASSWD_LIMIT (1u << 20) /* bytes read at most: the image controls the file */
enum { FIELD_UID = 2, FIELD_HOME = 5 };

static void line_begin(struct passwd_scan *scan)
{
    scan->field = 0;
    scan->line_ok = 1;
    scan->value = 0;
    scan->digits = 0;
    scan->length = 0;
}

void passwd_begin(struct passwd_scan *scan, uint32_t uid, char *out, size_t size)
{
    memset(scan, 0, sizeof(*scan));
    scan->uid = uid;
    scan->out = out;
    scan->size = size;
    line_begin(scan);
}

/* End a field.  A number has only digits: no sign, no blank, no wrap-around (CVE-2024-40635). */
static void field_end(struct passwd_scan *scan)
{
    if (scan->field == FIELD_UID && (scan->digits == 0 || scan->value != scan->uid))
        scan->line_ok = 0;
    scan->field++;
}

static void line_end(struct passwd_scan *scan)
{
    field_end(scan);
    /* The first line with the uid wins, as in getpwuid(3).  A line without a home is skipped. */
    if (scan->line_ok && scan->field > FIELD_HOME) {
        scan->out[scan->length] = 0;
        scan->found = 1;
    }
    line_begin(scan);
}

static void take(struct passwd_scan *scan, char c)
{
    if (scan->field == FIELD_UID) {
        if (c < '0' || c > '9' || scan->value > UINT32_MAX)
            scan->line_ok = 0;
        else
            scan->value = scan->value * 10 + (uint64_t)(c - '0');
        scan->digits = 1;
    } else if (scan->field == FIELD_HOME && scan->line_ok) {
        if (c == 0 || scan->length + 1 >= scan->size)
            scan->line_ok = 0; /* not a valid path */
        else
            scan->out[scan->length++] = c;
    }
}

int passwd_feed(struct passwd_scan *scan, const char *data, size_t len)
{
    for (size_t i = 0; i < len && !scan->found; i++) {
        if (data[i] == '\n')
            line_end(scan);
        else if (data[i] == ':')
            field_end(scan);
        else
            take(scan, data[i]);
    }
    return scan->found;
}

int passwd_end(struct passwd_scan *scan)
{
    if (!scan->found)
        line_end(scan);
    return scan->found;
}

/* These errors say nothing about the file: HOME must not depend on a lack of memory. */
static int no_answer(int ret)
{
    return ret == -ENOMEM || ret == -EMFILE || ret == -ENFILE || ret == -EIO;
}

/* Returns 1 if found, 0 if not, or -errno. */
static int read_passwd(int fd, uint32_t uid, char *home)
{
    char buf[1024];
    struct passwd_scan scan;
    size_t total = 0;
    ssize_t n = 0;

    passwd_begin(&scan, uid, home, PATH_BUF);
    while (total < PASSWD_LIMIT) {
        n = sys_read(fd, buf, sizeof(buf));
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        total += (size_t)n;
        if (passwd_feed(&scan, buf, (size_t)n))
            return 1;
    }
    return n == 0 && passwd_end(&scan);
}

/* Only a number is looked up, never a name: a line "1000:x:0:0" must not make uid 1000 root
 * (CVE-2016-3697).  It cannot, because the lookup only returns the value of HOME. */
int op_find_home(struct init *in, const struct plan_step *st)
{
    struct stat info;

    in->home[0] = 0;
    int AUTO_CLOSE root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fault(in, errno, "open", -1, 0, "/");
    /* O_NONBLOCK: the image may have a fifo there without a writer. */
    int AUTO_CLOSE fd = open_in_root(root, "/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY);
    int ret = fd;
    if (fd >= 0) {
        if (fstat(fd, &info) < 0)
            return fault(in, errno, "fstat", -1, 0, "/etc/passwd");
        ret = S_ISREG(info.st_mode) ? read_passwd(fd, st->n[N_FIND_HOME_uid], in->home) : 0;
    }
    if (no_answer(ret))
        return fault(in, -ret, "read", -1, 0, "/etc/passwd");
    if (ret <= 0 || !in->home[0])
        memcpy(in->home, "/", 2);
    return 0;
}

static int filtered_out(int ret)
{
    return ret == -ENOSYS || ret == -EPERM;
}

/* Check for execute permission with the effective ids and capabilities, as execve(2) does.  An
 * early filter may allow only the older call (our real ids equal the effective ones here), or
 * none: then execve(2) decides. */
static int may_execute(const char *path)
{
    int ret = sys_faccessat2(AT_FDCWD, path, X_OK, AT_EACCESS);

    if (filtered_out(ret))
        ret = sys_faccessat(AT_FDCWD, path, X_OK);
    return filtered_out(ret) ? 0 : ret;
}

/* Returns 0, -EISDIR, -EACCES, -ENOENT or another -errno. */
static int check_program(const struct init *in, const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (!S_ISREG(st.st_mode))
        return -EACCES;
    /* /proc/self/exe, or a link to it in the image, resolves to our own executable, which the
     * container must not run (CVE-2019-5736 began with that name). */
    if (st.st_dev == in->self.st_dev && st.st_ino == in->self.st_ino)
        return -EACCES;
    return may_execute(path);
}

/* Join one element of $PATH and the name.  An empty element is the working directory (POSIX,
 * Environment Variables). */
static int join_path(char *out, const char *dir, size_t len, const char *file)
{
    size_t more = strlen(file);

    if (len == 0) {
        dir = ".";
        len = 1;
    }
    if (len + 1 + more + 1 > PATH_BUF)
        return -ENAMETOOLONG;
    memcpy(out, dir, len);
    out[len] = '/';
    memcpy(out + len + 1, file, more + 1);
    return 0;
}

/* Use the first executable file, as execvp(3) does.  Remember EACCES: "permission denied" is
 * more precise than "not found".  A trailing colon is followed by an empty element. */
static int search_path(struct init *in, const char *file, const char *path)
{
    int err = -ENOENT, more = *path != 0;

    while (more) {
        size_t len = strcspn(path, ":");
        int ret = join_path(in->exe, path, len, file);

        if (ret == 0)
            ret = check_program(in, in->exe);
        if (ret == 0)
            return 0;
        if (ret == -EACCES)
            err = -EACCES;
        more = path[len] == ':';
        path += len + 1; /* past the NUL at the end */
    }
    in->exe[0] = 0;
    return err;
}

/* Engines search for these words (docs/callers.md): "executable file not found in $PATH" and "no
 * such file or directory" become exit status 127, "permission denied" 126. */
static int find_exe(struct init *in, const struct plan_step *st)
{
    const char *file = step_str(in, st, S_FIND_EXE_file);
    int ret;

    if (!strchr(file, '/')) {
        ret = *file ? search_path(in, file, step_str(in, st, S_FIND_EXE_path)) : -ENOENT;
        if (ret == -ENOENT)
            return fault(in, ENOENT, "execvp", S_FIND_EXE_file, 0, "executable file not found in $PATH");
        return ret < 0 ? fault(in, -ret, "execvp", S_FIND_EXE_file, 0, "permission denied") : 0;
    }
    if (strlen(file) >= PATH_BUF)
        return fault(in, ENAMETOOLONG, "stat", S_FIND_EXE_file, 0, "");
    ret = check_program(in, file);
    if (ret == -ENOENT)
        return fault(in, -ret, "stat", S_FIND_EXE_file, 0, "no such file or directory");
    if (ret == -EISDIR)
        return fault(in, EACCES, "stat", S_FIND_EXE_file, 0, "permission denied: is a directory");
    if (ret < 0)
        return fault(in, -ret, "stat", S_FIND_EXE_file, 0, ret == -EACCES ? "permission denied" : "");
    memcpy(in->exe, file, strlen(file) + 1);
    return 0;
}

int op_find_exe(struct init *in, const struct plan_step *st)
{
    if (in->exe[0])
        return 0;
    int ret = find_exe(in, st); /* leaves in->exe empty if it fails */
    return st->policy & P_FIND_EXE_TRY ? 0 : ret;
}
