/* Internal to the shim. */
#ifndef PYRUNC_IMAGE_H
#define PYRUNC_IMAGE_H

#include <stddef.h>

/* Write all of it; 0 or -errno. */
int write_all(int fd, const char *data, size_t len);
/* A descriptor of an executable file with this content that nobody can change, created without a
 * memfd; or -errno. Takes CAP_SYS_ADMIN. */
int read_only_image(const void *buf, size_t len);

#endif
