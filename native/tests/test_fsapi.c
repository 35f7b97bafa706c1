/* Test fs_message on handwritten messages: few filesystems of a kernel report more than one. */
#include "sys.h"

#include <string.h>

#include "calls.h"
#include "fsapi.h"
#include "tap.h"
#include "text.h"

static int first_error; /* of the first read; 0: none */

/* A pipe that keeps packets apart returns one message for each read, as the kernel does, and
 * EAGAIN after the last. */
static void test(const char *const messages[], const char *expected)
{
    char text[MSG_DETAIL] = "left over";
    int fds[2] = {-1, -1};
    int made = pipe2(fds, O_DIRECT | O_NONBLOCK | O_CLOEXEC) == 0;

    for (size_t i = 0; made && messages[i]; i++)
        made = write(fds[1], messages[i], strlen(messages[i])) == (ssize_t)strlen(messages[i]);
    calls.fail_at = first_error ? 0 : -1;
    calls.error = first_error;
    calls.count = 0;
    calls.armed = 1;
    fs_message(fds[0], text);
    calls.armed = 0;
    OK(made && strcmp(text, expected) == 0, "%s", messages[0] ? messages[0] : "none");
    close(fds[0]);
    close(fds[1]);
}

#define TEST(expected, ...) test((const char *const[]){__VA_ARGS__, NULL}, expected)

static void test_kinds(void)
{
    test((const char *const[]){NULL}, "");
    TEST("wrong", "e wrong");
    TEST("wrong", "e wrong\n");
    TEST("wrong", "e wrong\n\n");
    TEST("odd", "w odd");
    TEST("", "i read");
    TEST("odd", "i read", "w odd");
    TEST("odd", "w odd", "i read");
    TEST("wrong", "i read", "e wrong");
}

static void test_order(void)
{
    TEST("wrong", "w odd", "e wrong");
    TEST("wrong", "e wrong", "w odd");
    TEST("wrong", "e wrong", "e worse");
    TEST("odder", "w odd", "w odder");
    TEST("", "e ", "e wrong");
    TEST("", "e \n", "e wrong");
    TEST("w", "w w");
}

/* The eighth is read, the ninth is not. */
static void test_bound(void)
{
    TEST("last", "i 1", "i 2", "i 3", "i 4", "i 5", "i 6", "i 7", "e last");
    TEST("", "i 1", "i 2", "i 3", "i 4", "i 5", "i 6", "i 7", "i 8", "e last");
}

/* One that is too long is skipped; any other error ends the messages. */
static void test_failing_reads(void)
{
    first_error = EMSGSIZE;
    TEST("wrong", "e wrong");
    first_error = EIO;
    TEST("", "e wrong");
    first_error = 0;
}

static void test_long_message(void)
{
    char message[MSG_DETAIL + 64];

    memset(message, 'x', sizeof(message));
    memcpy(message, "e ", 2);
    message[sizeof(message) - 1] = 0;
    char expected[MSG_DETAIL];
    struct text t = text_in(expected, sizeof(expected));

    text_str(&t, message + 2);
    TEST(expected, message);
}

int main(void)
{
    test_kinds();
    test_order();
    test_bound();
    test_failing_reads();
    test_long_message();
    return tap_end();
}
