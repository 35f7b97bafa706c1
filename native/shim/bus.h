/* A D-Bus client: libsystemd's sd-bus, loaded by the first connection; for pyrunc/native/bus.py.
 * It is not linked: few callers use the systemd driver, and loading it would cost every start a
 * millisecond.
 *
 * A bus and a message are sd-bus's pointers as numbers; 0 is none.  Functions return a value >= 0 or
 * -errno.
 */
#ifndef PYRUNC_BUS_H
#define PYRUNC_BUS_H

#include <stddef.h>
#include <stdint.h>

#include "marks.h"

typedef uint64_t pr_bus;
typedef uint64_t pr_message;

/* Connect to an address in D-Bus's syntax ("unix:path=/run/systemd/private"). `broker`: the peer
 * is a bus daemon, which expects a Hello. -ENOPKG: libsystemd is not installed. */
int pr_bus_open(const char *address, int broker, pr_bus *bus);
int pr_bus_close(pr_bus bus);
/* Create a method call.  The functions below fill it; pr_bus_call sends it. */
int pr_bus_message(pr_bus bus, const char *service, const char *path, const char *interface,
                   const char *member, pr_message *message);
int pr_bus_free(pr_message message);
int pr_bus_add_text(pr_message message, char type, const char *value); /* types s o g */
int pr_bus_add_number(pr_message message, char type,
                      uint64_t value);                 /* types y b n q i u x t, as two's complement */
int pr_bus_add_real(pr_message message, double value); /* type d */
int pr_bus_add_bytes(pr_message message, const void *data, size_t len); /* type ay */
int pr_bus_open_container(pr_message message, char type,
                          const char *contents); /* types a r e v: array, struct, entry, variant */
int pr_bus_close_container(pr_message message);
/* Send a call and wait for the reply. -ETIMEDOUT. If the peer answers with an error, `error`
 * holds its name, a newline and its message; otherwise "". */
int pr_bus_call(pr_bus bus, pr_message message, uint64_t timeout_us, char *error, size_t size,
                pr_message *reply);
/* Read the next value of a reply, of type s o g; -EMSGSIZE if it is longer than `size`. */
int pr_bus_read_text(pr_message reply, char type, char *out, size_t size);
int pr_bus_enter(pr_message reply, char type, const char *contents);
/* Wait for systemd's signal that this job is finished; `out` gets its result ("done", "failed" ...).
 * -ETIMEDOUT; -EINTR after a signal that pr_signals_caught reports. */
int pr_bus_wait_job(pr_bus bus, const char *job, int timeout_ms, char *out, size_t size);

#endif
