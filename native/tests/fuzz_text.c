/* Text that init reads besides the plan, and text that it writes: /etc/passwd and $PATH (lookup.c),
 * short texts (text.h), records (report.c).  libFuzzer, with the sanitizers, each compared with an
 * independent model.
 *
 * The first byte selects the target.  FIND_EXE searches the working directory; the caller provides
 * an empty one.
 */
#include "sys.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "init.h"
#include "lookup.h"
#include "text.h"

static jmp_buf stopped;

/* init exits if the parent is gone or sends invalid messages; here that is a result. */
_Noreturn void leave(int status)
{
    longjmp(stopped, status);
}

/* Replaces trace.c: nothing is traced here. */
void trace_failed(struct init *in)
{
    (void)in;
}

#include "../init/report.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define MUST(condition)   \
    do {                  \
        if (!(condition)) \
            abort();      \
    } while (0)

#define HOME_MAX 32

static struct init in;

int open_in_root(int rootfd, const char *path, int flags)
{
    return openat(rootfd, path + strspn(path, "/"), flags | O_CLOEXEC);
}

/* Returns the end of a field or line: the position of `mark`, or `to`. */
static size_t until(const char *text, size_t from, size_t to, char mark)
{
    while (from < to && text[from] != mark)
        from++;
    return from;
}

/* Compare the uid of a line as text. */
static int is_uid(const char *digits, size_t len, uint32_t uid)
{
    char want[12];

    if (len == 0)
        return 0;
    while (len > 1 && *digits == '0') {
        digits++;
        len--;
    }
    snprintf(want, sizeof(want), "%u", uid);
    return len == strlen(want) && memcmp(digits, want, len) == 0;
}

/* Returns the home in the first line with all fields, the uid, and a valid home, or NULL. */
static const char *model_home(const char *text, size_t size, uint32_t uid, size_t *len)
{
    for (size_t at = 0; at <= size;) {
        size_t end = until(text, at, size, '\n'), field = at, begin[6], length[6];
        int n = 0;

        for (; n < 6 && field <= end; n++) {
            begin[n] = field;
            length[n] = until(text, field, end, ':') - field;
            field += length[n] + 1;
        }
        if (n == 6 && is_uid(text + begin[2], length[2], uid) && length[5] < HOME_MAX &&
            !memchr(text + begin[5], 0, length[5])) {
            *len = length[5];
            return text + begin[5];
        }
        at = end + 1;
    }
    return NULL;
}

static void fuzz_passwd(const char *data, size_t size)
{
    char home[HOME_MAX];
    struct passwd_scan scan;
    size_t len = 0;
    int found = 0;

    if (size < 2)
        return;
    uint32_t uid = (uint8_t)data[0] < 200 ? (uint8_t)data[0] : UINT32_MAX - (uint8_t)data[0] % 3;
    size_t piece = (uint8_t)data[1] % 16 + 1u;
    data += 2;
    size -= 2;
    passwd_begin(&scan, uid, home, sizeof(home));
    for (size_t at = 0; at < size && !found; at += piece)
        found = passwd_feed(&scan, data + at, size - at < piece ? size - at : piece);
    if (!found)
        found = passwd_end(&scan);
    const char *want = model_home(data, size, uid, &len);
    MUST(found == (want != NULL));
    if (found)
        MUST(strlen(home) == len && memcmp(home, want, len) == 0);
}

/* Returns 0 if the program can be executed, -EACCES or another error. */
static int model_program(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    return S_ISREG(st.st_mode) && access(path, X_OK) == 0 ? 0 : -EACCES;
}

static int model_search(const char *file, const char *path, char out[PATH_BUF])
{
    int denied = 0;
    size_t at = 0, size = strlen(path);

    while (size && at <= size) {
        size_t len = until(path, at, size, ':') - at;

        snprintf(out, PATH_BUF, "%.*s/%s", len ? (int)len : 1, len ? path + at : ".", file);
        int ret = model_program(out);
        if (ret == 0)
            return 0;
        denied |= ret == -EACCES;
        at += len + 1;
    }
    return denied ? -EACCES : -ENOENT;
}

/* Use a small alphabet for names and lists of directories, so that many of them exist. */
static void fuzz_exe(const char *data, size_t size)
{
    static const char letters[] = "ab:/.px:";
    static char strings[1024];
    char want[PATH_BUF];
    struct plan_step st = {.op = OP_FIND_EXE, .s = {1, 0}};
    size_t at = 1, split = size ? (uint8_t)data[0] % 8 + 1u : 1;

    strings[0] = 0;
    for (size_t i = 1; i < size && i < 500; i++) {
        if (i == split) {
            strings[at++] = 0;
            st.s[S_FIND_EXE_path] = (uint32_t)at;
        }
        strings[at++] = letters[(uint8_t)data[i] % (sizeof(letters) - 1)];
    }
    strings[at] = 0;
    if (!st.s[S_FIND_EXE_path])
        st.s[S_FIND_EXE_path] = (uint32_t)at;
    in.strings = strings;
    in.exe[0] = 0;
    memset(&in.fault, 0, sizeof(in.fault));
    const char *file = strings + 1, *path = strings + st.s[S_FIND_EXE_path];
    int ret = op_find_exe(&in, &st);
    if (strchr(file, '/')) {
        int plain = model_program(file);
        MUST((ret == 0) == (plain == 0));
        MUST(ret < 0 || strcmp(in.exe, file) == 0);
        return;
    }
    MUST(ret == (*file ? model_search(file, path, want) : -ENOENT));
    MUST(ret < 0 || strcmp(in.exe, want) == 0);
}

/* Append pieces of text and numbers, truncated at the end of the buffer. */
static void fuzz_append(const char *data, size_t size)
{
    char all[4096] = "", piece[64];
    size_t room = size ? (uint8_t)data[0] % 64 + 1u : 1, length = 0;
    char *buf = malloc(room);
    struct text t = text_in(buf, room);

    for (size_t at = 1; at + 9 < size && length < sizeof(all) - 64; at += 9) {
        if (data[at] & 1) {
            uint64_t number;
            memcpy(&number, data + at + 1, sizeof(number));
            text_num(&t, number);
            snprintf(piece, sizeof(piece), "%llu", (unsigned long long)number);
        } else {
            memcpy(piece, data + at + 1, 8);
            piece[8] = 0;
            text_str(&t, piece);
        }
        memcpy(all + length, piece, strlen(piece) + 1);
        length += strlen(piece);
    }
    if (length > room - 1)
        length = room - 1;
    MUST(strlen(buf) == length && memcmp(buf, all, length) == 0 && t.at == buf + length);
    free(buf);
}

static int same_cut(const char *got, size_t size, const char *want)
{
    size_t len = strnlen(want, size - 1);

    return strnlen(got, size) == len && memcmp(got, want, len) == 0;
}

/* A fault with any text becomes one terminated record.  Any message from the parent but GO ends
 * init. */
static void fuzz_record(const char *data, size_t size)
{
    char words[512] = "", call[64] = "";
    struct msg m;
    int pair[2], ended;
    volatile int go = 0;

    if (size < 4 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return;
    in.sock = pair[0];
    in.error_fd = -1;
    in.steps = NULL;
    memcpy(words, data, size < sizeof(words) ? size : sizeof(words) - 1);
    memcpy(call, data + size / 2, size / 2 < sizeof(call) ? size / 2 : sizeof(call) - 1);
    fault(&in, data[0], call, data[1] & 3, (uint32_t)(uint8_t)data[2] << (data[3] & 31), words);
    ended = setjmp(stopped);
    if (!ended) {
        warn_fault(&in, -(uint8_t)data[0]);
        MUST(read(pair[1], &m, sizeof(m)) == sizeof(m));
        MUST(m.type == MSG_WARN && m.err == (uint8_t)data[0] && m.arg == (data[1] & 3) + 1);
        MUST(same_cut(m.call, sizeof(m.call), call) && same_cut(m.detail, sizeof(m.detail), words));
        memset(&m, 0, sizeof(m));
        memcpy(&m, data, size < sizeof(m) ? size : sizeof(m));
        size_t sent = size < sizeof(m) && data[3] & 1 ? size : sizeof(m);
        MUST(write(pair[1], &m, sent) == (ssize_t)sent);
        go = m.type == MSG_GO && sent == sizeof(m);
        wait_go(&in);
        MUST(go);
    } else {
        MUST(!go && read(pair[1], &m, sizeof(m)) == sizeof(m) && m.type == MSG_FAIL && m.err == EPROTO);
    }
    close(pair[0]);
    close(pair[1]);
}

static void make(const char *path, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, mode);

    MUST(fd >= 0 && fchmod(fd, mode) == 0);
    close(fd);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    MUST(mkdir("a", 0755) == 0 && mkdir("b", 0755) == 0);
    make("p", 0755);
    make("x", 0644);
    make("a/p", 0644);
    make("b/p", 0755);
    make("b/x", 0755);
    MUST(mkdir("a/b", 0755) == 0 && mkfifo("b/a", 0755) == 0 && symlink("p", "a/x") == 0);
    in.fault.arg = -1;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(const char *, size_t) = {fuzz_passwd, fuzz_exe, fuzz_append, fuzz_record};
    char *copy;

    if (size == 0)
        return 0;
    copy = malloc(size); /* of the exact length, and signed like init's buffers */
    memcpy(copy, data + 1, size - 1);
    targets[data[0] % 4](copy, size - 1);
    free(copy);
    return 0;
}
