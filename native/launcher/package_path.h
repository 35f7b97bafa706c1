/* Where the installed package is, and whether root may execute what lies there. */
#ifndef PYRUNC_PACKAGE_PATH_H
#define PYRUNC_PACKAGE_PATH_H

#include <stddef.h>

/* Fill `dir` with the directory that holds the package (.../site-packages), found from the executable's own place.
 * Returns the length of the part that the executable shares (its prefix, with the slash), 0 when there is none:
 * then `dir` is the prefix that was searched. */
size_t package_path_find(char *dir, size_t size);

/* Whether each directory of `path` from index `from` on, and the file, may be changed by root and the executable's
 * owner only.  Not asked for other users: they execute what is theirs.  0, or -1 with `path` cut to the culprit. */
int package_path_check(char *path, size_t from);

/* "; chmod go-w PATH": what makes such a path acceptable; empty when that is not known. */
const char *package_path_hint(const char *path, char *hint, size_t size);

/* The same rule for every command: the executable, the package, and the directories above them.  NULL, or why root
 * must not go on. */
const char *package_path_refusal(void);

#endif
