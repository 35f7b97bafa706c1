/* The parser of the container's /etc/passwd, the only text that init reads.  It takes pieces of
 * any size. */
#ifndef PYRUNC_LOOKUP_H
#define PYRUNC_LOOKUP_H

#include <stddef.h>
#include <stdint.h>

/* passwd(5): name:password:uid:gid:comment:home:shell */
struct passwd_scan {
    uint32_t uid;   /* find the home of this user */
    int field;      /* index in the current line, from 0 */
    int line_ok;    /* the line can still match */
    uint64_t value; /* value of the uid field */
    int digits;     /* the uid field has digits */
    size_t length;  /* length of the home so far */
    int found;      /* out[] is complete */
    char *out;
    size_t size;
};

void passwd_begin(struct passwd_scan *scan, uint32_t uid, char *out, size_t size);
/* Feed the next bytes.  Returns 1 once the home is in out[]. */
int passwd_feed(struct passwd_scan *scan, const char *data, size_t len);
/* End the file; its last line may lack a newline.  Returns 1 if the home is in out[]. */
int passwd_end(struct passwd_scan *scan);

#endif
