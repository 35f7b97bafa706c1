/* Test filter_passable on handwritten programs: each instruction, each return value, and each
 * call that init still has to make. */
#include "sys.h"

#include <string.h>
#include <sys/ioctl.h>

#include "init.h"
#include "tap.h"

struct instruction {
    uint16_t code;
    uint8_t if_true;
    uint8_t if_false;
    uint32_t k;
};

#define ALLOW    0x7fff0000u
#define LOG      0x7ffc0000u
#define TRACE    0x7ff00000u
#define NOTIFY   0x7fc00000u
#define FAIL_(n) (0x00050000u | (n))
#define KILL     0x80000000u
#define LOAD(at)       \
    {                  \
        0x20, 0, 0, at \
    }
#define EQ(k, t, f)   \
    {                 \
        0x15, t, f, k \
    }
#define GT(k, t, f)   \
    {                 \
        0x25, t, f, k \
    }
#define GE(k, t, f)   \
    {                 \
        0x35, t, f, k \
    }
#define SET(k, t, f)  \
    {                 \
        0x45, t, f, k \
    }
#define GO_TO(n)      \
    {                 \
        0x05, 0, 0, n \
    }
#define MASK(k)       \
    {                 \
        0x54, 0, 0, k \
    }
#define RETURN(k)     \
    {                 \
        0x06, 0, 0, k \
    }
#define NUMBER     0
#define ARCH       4
#define FIRST_LOW  16
#define FIRST_HIGH 20
#define SECOND_LOW 24

static struct init in;
static struct plan_header plan;
static struct plan_step steps[8];

/* Set up a plan of these ops after the current SECCOMP. */
static void have(const uint16_t *ops, uint32_t count)
{
    memset(steps, 0, sizeof(steps));
    steps[0].op = OP_SECCOMP;
    for (uint32_t i = 0; i < count; i++)
        steps[i + 1].op = ops[i];
    plan.nsteps = count + 1;
    in = (struct init){.plan = &plan, .steps = steps, .sock = 9, .at_cwd = 1, .exe = "/x"};
}
#define HAVE(...)                                            \
    do {                                                     \
        const uint16_t ops[] = {__VA_ARGS__};                \
        have(ops, (uint32_t)(sizeof(ops) / sizeof(ops[0]))); \
    } while (0)

#define PASSES(...)                                                  \
    (filter_passable(&in, (const struct instruction[]){__VA_ARGS__}, \
                     (uint32_t)(sizeof((const struct instruction[]){__VA_ARGS__}) / 8)))

/* Check a filter that returns `answer` for one call and allows all others. */
static int without(long number, uint32_t answer)
{
    return PASSES(LOAD(NUMBER), EQ((uint32_t)number, 0, 1), RETURN(answer), RETURN(ALLOW));
}

static void answers(void)
{
    HAVE(OP_CLONE_INIT, OP_SETSID, OP_EXECVE);
    OK(PASSES(RETURN(ALLOW)), "what allows all is passable");
    OK(PASSES(RETURN(LOG)), "so is what logs all");
    OK(!PASSES(RETURN(TRACE)), "a tracer decides otherwise");
    OK(!PASSES(RETURN(NOTIFY)), "an agent is not there yet");
    OK(!PASSES(RETURN(FAIL_(1))) && !PASSES(RETURN(FAIL_(0))),
       "an error is none, nor is a call that is left out");
    OK(!PASSES(RETURN(KILL)) && !PASSES(RETURN(0)), "what kills is not");
    OK(PASSES(RETURN(ALLOW | 5)), "the action's data does not count");
}

static void instructions(void)
{
    HAVE(OP_SETSID);
    OK(PASSES(LOAD(ARCH), EQ(0xc000003e, 1, 0), EQ(0xc00000b7, 0, 1), RETURN(ALLOW), RETURN(0)),
       "the architecture");
    OK(!PASSES(LOAD(ARCH), EQ(0x40000003, 0, 1), RETURN(ALLOW), RETURN(0)), "and no other");
    OK(PASSES(LOAD(NUMBER), GT(0xffff, 0, 1), RETURN(0), RETURN(ALLOW)), "greater");
    OK(!PASSES(LOAD(NUMBER), GT((uint32_t)SYS_setsid - 1, 0, 1), RETURN(0), RETURN(ALLOW)), "greater by one");
    OK(!PASSES(LOAD(NUMBER), GE((uint32_t)SYS_setsid, 0, 1), RETURN(0), RETURN(ALLOW)), "greater or equal");
    OK(PASSES(LOAD(NUMBER), SET(0x40000000, 0, 1), RETURN(0), RETURN(ALLOW)), "bits that are not set");
    OK(!PASSES(LOAD(NUMBER), SET(0xffff, 0, 1), RETURN(0), RETURN(ALLOW)), "one of many bits");
    OK(PASSES(LOAD(NUMBER), MASK(0), EQ(0, 0, 1), RETURN(ALLOW), RETURN(0)), "and");
    OK(PASSES(GO_TO(1), RETURN(0), RETURN(ALLOW)), "a jump");
    OK(!PASSES(GO_TO(0), RETURN(0), RETURN(ALLOW)), "a jump to the next");
    OK(!PASSES(GO_TO(0xffffffff), RETURN(ALLOW)), "a jump beyond the end");
    OK(!PASSES(EQ(0, 9, 9), RETURN(ALLOW)), "a conditional jump beyond the end");
    OK(!PASSES(LOAD(NUMBER)), "no end");
    OK(!filter_passable(&in, NULL, 0), "nothing");
    OK(!PASSES(LOAD(62), RETURN(ALLOW)) && !PASSES(LOAD(64), RETURN(ALLOW)) &&
           !PASSES(LOAD(2), RETURN(ALLOW)),
       "what lies outside of the call, or across");
    OK(!PASSES({0x61, 0, 0, 0}, RETURN(ALLOW)) && !PASSES({0x16, 0, 0, 0}), "other instructions");
}

static void arguments(void)
{
    HAVE(OP_CLONE_INIT);
    OK(PASSES(LOAD(NUMBER), EQ((uint32_t)SYS_clone, 0, 4), LOAD(FIRST_LOW), MASK(0x7e020000), EQ(0, 1, 0),
              RETURN(0), RETURN(ALLOW)),
       "a clone that makes no namespace is allowed by engines");
    OK(!PASSES(LOAD(NUMBER), EQ((uint32_t)SYS_clone, 0, 3), LOAD(FIRST_LOW), SET(CLONE_PARENT, 0, 1),
               RETURN(0), RETURN(ALLOW)),
       "its flags are those of CLONE_INIT");
    OK(PASSES(LOAD(NUMBER), EQ((uint32_t)SYS_clone, 0, 3), LOAD(FIRST_HIGH), EQ(0, 1, 0), RETURN(0),
              RETURN(ALLOW)),
       "and no others, in the upper half either");
    OK(!PASSES(LOAD(NUMBER), EQ((uint32_t)SYS_write, 0, 3), LOAD(FIRST_LOW), EQ(9, 0, 1), RETURN(0),
               RETURN(ALLOW)),
       "what is written to is the socket");
    HAVE(OP_SETSID);
    steps[1].policy = P_SETSID_TERMINAL;
    OK(!PASSES(LOAD(NUMBER), EQ((uint32_t)SYS_ioctl, 0, 3), LOAD(SECOND_LOW), EQ(TIOCSCTTY, 0, 1), RETURN(0),
               RETURN(ALLOW)),
       "the ioctl is the one for the terminal");
    HAVE(OP_RLIMIT);
    steps[1].n[N_RLIMIT_resource] = 6;
    OK(!PASSES(LOAD(NUMBER), EQ((uint32_t)SYS_prlimit64, 0, 3), LOAD(SECOND_LOW), EQ(6, 0, 1), RETURN(0),
               RETURN(ALLOW)),
       "the limit is the plan's");
}

static void calls(void)
{
    static const struct {
        uint16_t op;
        long number;
        const char *name;
    } needs[] = {{OP_CLONE_INIT, SYS_clone, "clone"},     {OP_SETSID, SYS_setsid, "setsid"},
                 {OP_RLIMIT, SYS_prlimit64, "prlimit64"}, {OP_EXECVE, SYS_read, "read"},
                 {OP_EXECVE, SYS_write, "write"},         {OP_EXECVE, SYS_exit_group, "exit_group"}};

    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
        HAVE(needs[i].op);
        OK(!without(needs[i].number, FAIL_(1)), "%s is needed", needs[i].name);
        OK(without(SYS_mkdirat, FAIL_(1)), "and mkdirat is not");
    }
    HAVE(OP_EXECVE);
    OK(without(SYS_clone, 0) && without(SYS_setsid, 0) && without(SYS_ioctl, 0) && without(SYS_capset, 0) &&
           without(SYS_close, 0) && without(SYS_prlimit64, 0),
       "what the plan has no step for may be forbidden");
    HAVE(OP_DROP_ADMIN);
    OK(without(SYS_capset, 0), "nothing was kept");
    in.admin = 1;
    OK(!without(SYS_capset, 0), "CAP_SYS_ADMIN has to go");
    HAVE(OP_EXECVE);
    steps[0].policy = P_SECCOMP_LISTENER;
    OK(!without(SYS_close, 0), "the notify descriptor is closed");
    in.step = 1;
    OK(without(SYS_close, 0), "steps that are done do not count");
}

static void not_found(void)
{
    HAVE(OP_EXECVE);
    in.at_cwd = 0;
    OK(!PASSES(RETURN(ALLOW)), "the working directory is still to be entered: anything may be needed for it");
    in.at_cwd = 1;
    in.exe[0] = 0;
    OK(!PASSES(RETURN(ALLOW)), "the program is still to be found");
}

static void loaded(void)
{
    static struct {
        struct instruction first[4];
    } area = {{LOAD(NUMBER), EQ((uint32_t)SYS_fchmod, 0, 1), RETURN(FAIL_(1)), RETURN(ALLOW)}};

    HAVE(OP_HOOK);
    in.strings = (const char *)&area;
    steps[0].n[L_SECCOMP_filter] = sizeof(area);
    OK(filter_allows(&in, SYS_fchmod, 0, 0), "no filter forbids anything before it is loaded");
    in.filtered = 1;
    OK(!filter_allows(&in, SYS_fchmod, 0, 0) && filter_allows(&in, SYS_fcntl, 0, 0),
       "the plan's filter decides");
    steps[0].op = OP_HOOK;
    OK(!filter_allows(&in, SYS_fcntl, 0, 0), "a filter that is not known allows nothing");
}

int main(void)
{
    answers();
    instructions();
    arguments();
    calls();
    not_found();
    loaded();
    return tap_end();
}
