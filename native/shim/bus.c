/* libsystemd's sd-bus, loaded on demand: see bus.h. The prototypes are those of sd-bus(3); their
 * ABI is stable. */
#include "bus.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "shim.h"

struct sd_error {
    const char *name;
    const char *message;
    int need_free;
};

static struct {
    int (*bus_new)(void **bus);
    int (*set_address)(void *bus, const char *address);
    int (*set_bus_client)(void *bus, int yes);
    int (*start)(void *bus);
    void *(*flush_close_unref)(void *bus);
    int (*new_method_call)(void *bus, void **m, const char *service, const char *path, const char *interface,
                           const char *member);
    void *(*message_unref)(void *m);
    int (*append_basic)(void *m, char type, const void *value);
    int (*append_array)(void *m, char type, const void *data, size_t len);
    int (*open_container)(void *m, char type, const char *contents);
    int (*close_container)(void *m);
    int (*call)(void *bus, void *m, uint64_t usec, struct sd_error *error, void **reply);
    void (*error_free)(struct sd_error *error);
    int (*read_basic)(void *m, char type, void *value);
    int (*enter_container)(void *m, char type, const char *contents);
    int (*process)(void *bus, void **m);
    int (*wait)(void *bus, uint64_t usec);
    int (*is_signal)(void *m, const char *interface, const char *member);
} sd;

static int load(void)
{
    static void *library;
    if (library)
        return 0;
    static const struct {
        void *slot;
        const char *name;
    } symbols[] = {
        {&sd.bus_new, "sd_bus_new"},
        {&sd.set_address, "sd_bus_set_address"},
        {&sd.set_bus_client, "sd_bus_set_bus_client"},
        {&sd.start, "sd_bus_start"},
        {&sd.flush_close_unref, "sd_bus_flush_close_unref"},
        {&sd.new_method_call, "sd_bus_message_new_method_call"},
        {&sd.message_unref, "sd_bus_message_unref"},
        {&sd.append_basic, "sd_bus_message_append_basic"},
        {&sd.append_array, "sd_bus_message_append_array"},
        {&sd.open_container, "sd_bus_message_open_container"},
        {&sd.close_container, "sd_bus_message_close_container"},
        {&sd.call, "sd_bus_call"},
        {&sd.error_free, "sd_bus_error_free"},
        {&sd.read_basic, "sd_bus_message_read_basic"},
        {&sd.enter_container, "sd_bus_message_enter_container"},
        {&sd.process, "sd_bus_process"},
        {&sd.wait, "sd_bus_wait"},
        {&sd.is_signal, "sd_bus_message_is_signal"},
    };
    void *opened = dlopen("libsystemd.so.0", RTLD_LAZY | RTLD_LOCAL);
    if (!opened)
        return -ENOPKG;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *found = dlsym(opened, symbols[i].name);
        if (!found) {
            dlclose(opened);
            return -ENOPKG;
        }
        memcpy(symbols[i].slot, &found, sizeof found);
    }
    library = opened;
    return 0;
}

static void *opaque(uint64_t handle)
{
    return (void *)(uintptr_t)handle;
}

int pr_bus_open(const char *address, int broker, pr_bus *bus)
{
    int r = load();
    if (r < 0)
        return r;
    void *made;
    r = sd.bus_new(&made);
    if (r < 0)
        return r;
    r = sd.set_address(made, address);
    if (r >= 0)
        r = sd.set_bus_client(made, broker);
    if (r >= 0)
        r = sd.start(made);
    if (r < 0) {
        sd.flush_close_unref(made);
        return r;
    }
    *bus = (uintptr_t)made;
    return 0;
}

int pr_bus_close(pr_bus bus)
{
    if (bus)
        sd.flush_close_unref(opaque(bus));
    return 0;
}

int pr_bus_message(pr_bus bus, const char *service, const char *path, const char *interface,
                   const char *member, pr_message *message)
{
    void *made = NULL;
    int r = sd.new_method_call(opaque(bus), &made, service, path, interface, member);
    *message = (uintptr_t)made;
    return r;
}

int pr_bus_free(pr_message message)
{
    if (message)
        sd.message_unref(opaque(message));
    return 0;
}

int pr_bus_add_text(pr_message message, char type, const char *value)
{
    return sd.append_basic(opaque(message), type, value);
}

int pr_bus_add_number(pr_message message, char type, uint64_t value)
{
    uint8_t byte = (uint8_t)value;
    uint16_t half = (uint16_t)value;
    uint32_t word = (uint32_t)value;
    int boolean = value != 0;
    switch (type) {
    case 'y':
        return sd.append_basic(opaque(message), type, &byte);
    case 'b':
        return sd.append_basic(opaque(message), type, &boolean);
    case 'n':
    case 'q':
        return sd.append_basic(opaque(message), type, &half);
    case 'i':
    case 'u':
        return sd.append_basic(opaque(message), type, &word);
    case 'x':
    case 't':
        return sd.append_basic(opaque(message), type, &value);
    default:
        return -EINVAL;
    }
}

int pr_bus_add_real(pr_message message, double value)
{
    return sd.append_basic(opaque(message), 'd', &value);
}

int pr_bus_add_bytes(pr_message message, const void *data, size_t len)
{
    return sd.append_array(opaque(message), 'y', data, len);
}

int pr_bus_open_container(pr_message message, char type, const char *contents)
{
    return sd.open_container(opaque(message), type, contents);
}

int pr_bus_close_container(pr_message message)
{
    return sd.close_container(opaque(message));
}

int pr_bus_call(pr_bus bus, pr_message message, uint64_t timeout_us, char *error, size_t size,
                pr_message *reply)
{
    struct sd_error failed = {NULL, NULL, 0};
    void *answer = NULL;
    error[0] = '\0';
    int r = sd.call(opaque(bus), opaque(message), timeout_us, &failed, &answer);
    *reply = (uintptr_t)answer;
    /* Without an answer the library invents an error. */
    int lost = r == -ETIMEDOUT || r == -ECONNRESET || r == -ENOTCONN || r == -EPIPE;
    if (r < 0 && failed.name && !lost)
        (void)snprintf(error, size, "%s\n%s", failed.name, failed.message ? failed.message : "");
    sd.error_free(&failed);
    return r;
}

int pr_bus_read_text(pr_message reply, char type, char *out, size_t size)
{
    const char *text = NULL;
    int r = sd.read_basic(opaque(reply), type, &text);
    if (r < 0)
        return r;
    if (r == 0 || !text)
        return -ENODATA;
    return (size_t)snprintf(out, size, "%s", text) >= size ? -EMSGSIZE : 0;
}

int pr_bus_enter(pr_message reply, char type, const char *contents)
{
    int r = sd.enter_container(opaque(reply), type, contents);
    return r == 0 ? -ENODATA : r;
}

static int64_t now_ms(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* JobRemoved(u id, o job, s unit, s result), org.freedesktop.systemd1(5). Returns 1 if it is our
 * job. */
static int is_about(void *m, const char *job, char *out, size_t size)
{
    uint32_t id;
    const char *path = NULL, *unit = NULL, *result = NULL;
    if (sd.is_signal(m, "org.freedesktop.systemd1.Manager", "JobRemoved") <= 0)
        return 0;
    if (sd.read_basic(m, 'u', &id) <= 0 || sd.read_basic(m, 'o', &path) <= 0 || strcmp(path, job) != 0)
        return 0;
    if (sd.read_basic(m, 's', &unit) <= 0 || sd.read_basic(m, 's', &result) <= 0)
        return -EBADMSG;
    return (size_t)snprintf(out, size, "%s", result) >= size ? -EMSGSIZE : 1;
}

int pr_bus_wait_job(pr_bus bus, const char *job, int timeout_ms, char *out, size_t size)
{
    int64_t limit = now_ms() + timeout_ms;
    for (;;) {
        void *m = NULL;
        int r = sd.process(opaque(bus), &m);
        if (r < 0)
            return r;
        int found = m ? is_about(m, job, out, size) : 0;
        if (m)
            sd.message_unref(m);
        if (found)
            return found < 0 ? found : 0;
        if (r > 0)
            continue;
        int64_t left = limit - now_ms();
        if (left <= 0)
            return -ETIMEDOUT;
        r = sd.wait(opaque(bus), (uint64_t)left * 1000);
        if (r < 0 && (r != -EINTR || pr_signals_caught()))
            return r;
    }
}
