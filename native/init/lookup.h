/* The only text that init reads: /etc/passwd of the container, fed in pieces of any size. */
#ifndef PYRUNC_LOOKUP_H
#define PYRUNC_LOOKUP_H

#include <stddef.h>
#include <stdint.h>

/* passwd(5): name:password:uid:gid:comment:home:shell */
struct passwd_scan {
    uint32_t uid;   /* whose home is looked for */
    int field;      /* of the line at work, from 0 */
    int line_ok;    /* the line's uid field, as far as it was seen, can be right */
    uint64_t value; /* of the uid field */
    int digits;     /* in the uid field */
    size_t length;  /* of the home found so far */
    int found;      /* out[] is complete */
    char *out;
    size_t size;
};

void passwd_begin(struct passwd_scan *scan, uint32_t uid, char *out, size_t size);
/* Feed the next bytes.  Returns 1 as soon as the answer is in out[]. */
int passwd_feed(struct passwd_scan *scan, const char *data, size_t len);
/* The end of the file: the last line may lack its newline.  Returns 1 when out[] holds the answer. */
int passwd_end(struct passwd_scan *scan);

#endif
