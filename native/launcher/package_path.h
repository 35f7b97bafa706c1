/* Find the installed package, and check whether root may execute it. */
#ifndef PYRUNC_PACKAGE_PATH_H
#define PYRUNC_PACKAGE_PATH_H

#include <stddef.h>

/* Set `dir` to the directory that holds the package (.../site-packages), found relative to the
 * executable.  Returns the length of the prefix that they share, including the slash.  Returns 0
 * with `dir` set to the searched prefix if there is no package. */
size_t package_path_find(char *dir, size_t size);

/* Check that only root and the executable's owner can change the file, and each directory of
 * `path` from index `from` on.  Other users are not checked: they execute their own files.
 * Returns 0, or -1 with `path` truncated to the culprit. */
int package_path_check(char *path, size_t from);

/* Returns "; chmod go-w PATH", the command that makes such a path acceptable, or "" if it is
 * unknown. */
const char *package_path_hint(const char *path, char *hint, size_t size);

/* Apply the same rule to every command: the executable, the package, and the directories above
 * them.  Returns NULL, or the reason why root must not continue. */
const char *package_path_refusal(void);

#endif
