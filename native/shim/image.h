/* For the files of the shim only. */
#ifndef PYRUNC_IMAGE_H
#define PYRUNC_IMAGE_H

#include <stddef.h>

/* All of it, or -errno. */
int write_all(int fd, const char *data, size_t len);
/* A descriptor of a file with this content that can be executed and that nobody can change, made without a memfd; or
 * -errno.  It takes CAP_SYS_ADMIN. */
int read_only_image(const void *buf, size_t len);

#endif
