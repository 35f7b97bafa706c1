/* The launcher for an interpreter that cannot be embedded: it becomes that interpreter, isolated. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guard.h"

/* -I -S: neither the environment nor the working directory nor a site module is looked at.  The package directory is
 * found from our own place, which comes in as the first argument. */
static const char program[] =
    "import sys, posix\n"
    "sys.path.append(sys.argv[1])\n"
    "from pyrunc.__main__ import run\n"
    "posix._exit(run(sys.argv[2:]))\n";

static void fail(const char *text)
{
    (void)!write(STDERR_FILENO, text, strlen(text));
    _exit(1);
}

static void package_dir(char *buf, size_t size)
{
    static const char *const layouts[] = {"lib/pyrunc", "lib/python" PYTHON_VERSION "/site-packages",
                                          "lib/python" PYTHON_VERSION "/dist-packages", "lib/python3/dist-packages"};
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len <= 0)
        fail("pyrunc: cannot read /proc/self/exe\n");
    self[len] = '\0';
    for (int level = 0; level < 2; level++) {
        char *slash = strrchr(self, '/');
        if (slash)
            *slash = '\0';
    }
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        int n = snprintf(buf, size, "%s/%s/pyrunc/_init", self, layouts[i]);
        if (n > 0 && (size_t)n < size && access(buf, F_OK) == 0) {
            buf[(size_t)n - strlen("/pyrunc/_init")] = '\0';
            return;
        }
    }
    fail("pyrunc: no installed pyrunc package found beside the executable\n");
}

int main(int argc, char **argv)
{
    const char *refusal = guard_process();
    char dir[PATH_MAX];
    if (refusal) {
        fprintf(stderr, "pyrunc: %s\n", refusal);
        return 1;
    }
    package_dir(dir, sizeof dir);
    const char *fixed[] = {"pyrunc", "-I", "-S", "-B", "-X", "utf8", "-c", program, dir};
    size_t nfixed = sizeof fixed / sizeof *fixed;
    char **args = calloc(nfixed + (size_t)argc + 1, sizeof *args);
    if (!args)
        fail("pyrunc: out of memory\n");
    memcpy(args, fixed, sizeof fixed);
    for (int i = 1; i < argc; i++)
        args[nfixed + (size_t)i - 1] = argv[i];
    execv(PYTHON_EXECUTABLE, args);
    perror("pyrunc: " PYTHON_EXECUTABLE);
    return 1;
}
