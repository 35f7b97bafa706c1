/* A D-Bus client: libsystemd's sd-bus, loaded when the systemd cgroup driver is used; for pyrunc/cgroup/bus.py alone.
 * The library is not linked: few callers use the driver, and looking it up costs every start a millisecond.
 *
 * Messages are `void *`, as sd-bus's own are opaque.  Functions return a value >= 0, or -errno.
 */
#ifndef PYRUNC_BUS_H
#define PYRUNC_BUS_H

#include <stddef.h>
#include <stdint.h>

/* Connect.  `address` as in D-Bus ("unix:path=/run/systemd/private"); `broker`: there is a bus daemon on the other side, which
 * wants to be greeted.  -ENOPKG: there is no libsystemd here. */
int pr_bus_open(const char *address, int broker, void **bus);
void pr_bus_close(void *bus);
/* A method call to fill with the functions below, then for pr_bus_call. */
int pr_bus_message(void *bus, const char *service, const char *path, const char *interface,
                   const char *member, void **message);
void pr_bus_free(void *message);
int pr_bus_add_text(void *message, char type, const char *value); /* types s o g */
int pr_bus_add_number(void *message, char type,
                      uint64_t value);            /* types y b n q i u x t, as two's complement */
int pr_bus_add_real(void *message, double value); /* type d */
int pr_bus_add_bytes(void *message, const void *data, size_t len); /* type ay */
int pr_bus_open_container(void *message, char type,
                          const char *contents); /* types a r e v: array, struct, entry, variant */
int pr_bus_close_container(void *message);
/* Send and wait for the answer.  -ETIMEDOUT.  When the peer answers with an error its name, a newline and its words are in
 * `error`, else that is "". */
int pr_bus_call(void *bus, void *message, uint64_t timeout_us, char *error, size_t size, void **reply);
/* The next value of a reply, of type s o g; -EMSGSIZE when longer than `size`. */
int pr_bus_read_text(void *reply, char type, char *out, size_t size);
int pr_bus_enter(void *reply, char type, const char *contents);
/* Wait for systemd's signal that this job is done; its result ("done", "failed" ...) in `out`.  -ETIMEDOUT; -EINTR after
 * a signal that pr_signals_caught knows. */
int pr_bus_wait_job(void *bus, const char *job, int timeout_ms, char *out, size_t size);

#endif
