/* The launcher for an interpreter that cannot be embedded: execute that interpreter, isolated. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guard.h"
#include "package_path.h"

/* -I -S: ignore the environment, the working directory and site modules.  The first argument is
 * the package directory. */
static const char program[] = "import sys, posix\n"
                              "sys.path.append(sys.argv[1])\n"
                              "from pyrunc.__main__ import run\n"
                              "posix._exit(run(sys.argv[2:]))\n";

/* Find the package directory, and check it and cffi's backend like the embedded launcher.  Exits
 * on an error. */
static void find_package(char *dir, size_t size)
{
    static const char file[] = "/_cffi_backend" PYTHON_EXT_SUFFIX;
    char path[PATH_MAX];
    size_t prefix = package_path_find(dir, size);
    if (prefix == 0) {
        fprintf(stderr, "pyrunc: error: no installed pyrunc package found below '%s'\n", dir);
        exit(1);
    }
    size_t len = strlen(dir);
    memcpy(path, dir, len + 1);
    if (len + sizeof file <= sizeof path) {
        memcpy(path + len, file, sizeof file);
        if (access(path, F_OK) < 0)
            path[len] = '\0';
    }
    if (package_path_check(path, prefix) < 0) {
        char hint[PATH_MAX + 32];
        fprintf(stderr,
                "pyrunc: error: refusing to load code from %s: %s can be changed by users other than its "
                "owner%s\n",
                dir, path, package_path_hint(path, hint, sizeof hint));
        exit(1);
    }
}

int main(int argc, char **argv)
{
    char dir[PATH_MAX];
    const char *refusal = guard_process();
    if (!refusal)
        refusal = package_path_refusal();
    if (refusal) {
        fprintf(stderr, "pyrunc: error: %s\n", refusal);
        return 1;
    }
    find_package(dir, sizeof dir);
    const char *fixed[] = {"pyrunc", "-I", "-S", "-B", "-X", "utf8", "-c", program, dir};
    size_t count = sizeof fixed / sizeof *fixed;
    char **args = calloc(count + (size_t)argc + 1, sizeof *args);
    if (!args) {
        fprintf(stderr, "pyrunc: error: out of memory\n");
        return 1;
    }
    memcpy(args, fixed, sizeof fixed);
    for (int i = 1; i < argc; i++)
        args[count + (size_t)i - 1] = argv[i];
    execv(PYTHON_EXECUTABLE, args);
    perror("pyrunc: error: " PYTHON_EXECUTABLE);
    free(args);
    return 1;
}
