/* The location of the installed package: see package_path.h. */
#include "package_path.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARKER "/pyrunc/_init"

/* Where an installation keeps the package, relative to the directory above bin/. */
static const char *const layouts[] = {
    "lib/pyrunc",                                 /* make install */
    "lib/python" PYTHON_VERSION "/site-packages", /* a virtual environment, pip --user */
    "lib64/python" PYTHON_VERSION "/site-packages",
    "lib/python" PYTHON_VERSION "/dist-packages", /* Debian's pip outside a virtual environment */
    "lib/python3/dist-packages",                  /* a Debian package */
};

/* Find the directory above the executable's.  Returns its length including the slash, or 0. */
static size_t prefix_of_self(char *buf, size_t size)
{
    ssize_t len = readlink("/proc/self/exe", buf, size - 1);
    buf[len > 0 ? len : 0] = '\0';
    for (int level = 0; level < 2; level++) {
        char *slash = strrchr(buf, '/');
        if (!slash)
            return 0;
        *slash = '\0';
    }
    size_t end = strlen(buf);
    buf[end] = '/';
    buf[end + 1] = '\0';
    return end + 1;
}

size_t package_path_find(char *dir, size_t size)
{
    struct stat st;
    size_t prefix = prefix_of_self(dir, size - 1);
    for (size_t i = 0; prefix && i < sizeof layouts / sizeof *layouts; i++) {
        int n = snprintf(dir + prefix, size - prefix, "%s" MARKER, layouts[i]);
        if (n < 0 || (size_t)n >= size - prefix || stat(dir, &st) < 0)
            continue;
        dir[prefix + (size_t)n - strlen(MARKER)] = '\0';
        return prefix;
    }
    dir[prefix] = '\0';
    return 0;
}

/* The owner of the executable, or of a directory above it, can change what root runs anyway. */
static uid_t owner_of_self(void)
{
    struct stat st;
    return stat("/proc/self/exe", &st) == 0 ? st.st_uid : 0;
}

/* Members of root's own group are root. */
static int writable_by_others(const struct stat *st)
{
    if (S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX))
        return 0;
    return (st->st_mode & S_IWOTH) || ((st->st_mode & S_IWGRP) && st->st_gid != 0);
}

static int safe(const struct stat *st, uid_t owner)
{
    return (st->st_uid == 0 || st->st_uid == owner) && !writable_by_others(st);
}

int package_path_check(char *path, size_t from)
{
    struct stat st;
    if (geteuid() != 0)
        return 0;
    uid_t owner = owner_of_self();
    size_t len = strlen(path);
    for (size_t end = from + 1; end <= len; end++) {
        char cut = path[end];
        if (cut != '/' && cut != '\0')
            continue;
        path[end] = '\0';
        if (stat(path, &st) < 0 || !safe(&st, owner))
            return -1;
        path[end] = cut;
    }
    return 0;
}

const char *package_path_hint(const char *path, char *hint, size_t size)
{
    struct stat st;
    hint[0] = '\0';
    if (stat(path, &st) < 0)
        return hint;
    const char *what = writable_by_others(&st) ? "chmod go-w" : "chown root";
    (void)snprintf(hint, size, "; %s %s", what, path);
    return hint;
}

const char *package_path_refusal(void)
{
    static char text[2 * PATH_MAX + 128];
    char path[PATH_MAX], hint[PATH_MAX + 32];
    if (geteuid() != 0)
        return NULL;
    /* A replaced executable ("... (deleted)") no longer has a path. */
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - 1);
    path[len > 0 ? len : 0] = '\0';
    if (len <= 0 || access(path, F_OK) < 0 || package_path_check(path, 0) == 0) {
        size_t prefix = package_path_find(path, sizeof path);
        if (prefix == 0 || package_path_check(path, prefix) == 0)
            return NULL;
    }
    (void)snprintf(text, sizeof text,
                   "refusing to run as root: %s can be changed by users other than its owner%s", path,
                   package_path_hint(path, hint, sizeof hint));
    return text;
}
