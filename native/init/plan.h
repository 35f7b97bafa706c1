/* The wire format between pyrunc (Python, on the host) and init (C, in the container).
 *
 * A plan is one sealed memfd: a header, an array of fixed-size steps, and a string area.  It
 * contains no pointers and no loops: init executes the steps once, in order.  It is native-endian,
 * because both sides run on the same machine.  The other side of the structs is
 * pyrunc/plan/encode.py, and of the messages pyrunc/handshake.py.
 */
#ifndef PYRUNC_PLAN_H
#define PYRUNC_PLAN_H

#include <stdint.h>

#include "plan_ops.h"

#define PLAN_MAGIC     0x4e505250u /* "PRPN" */
#define PLAN_MAX_STEPS 16384u
#define PLAN_MAX_SIZE  (64u << 20)
#define PLAN_NUMBERS   8
#define PLAN_STRINGS   4
#define NO_SLOT        0xffffffffu /* an unused descriptor slot */

struct plan_header {
    uint32_t magic;
    uint32_t abi;  /* PLAN_ABI of plan_ops.h */
    uint32_t size; /* of the whole plan, bytes */
    uint32_t nsteps;
    uint32_t nfds;      /* descriptors attached to PLAN; slot 0 is the plan itself */
    uint32_t npreserve; /* the container inherits descriptors 3 .. 3+npreserve-1 */
    uint32_t strings;   /* offset of the string area; its first and its last byte are NUL */
    uint32_t flags;     /* PLAN_* */
};

#define PLAN_TRACE 1u /* send STAMPS */
#define PLAN_AHEAD 2u /* the parent has nothing to do at MOUNTED and READY, and only sends the GO to READY */

struct plan_step {
    uint16_t op;
    uint16_t policy;
    uint32_t n[PLAN_NUMBERS];
    uint32_t s[PLAN_STRINGS]; /* offsets into the string area; 0 is the empty string */
};

/* Messages in both directions: fixed-size records over a SOCK_SEQPACKET socket.
 * docs/handshake.md has a diagram. tests/test_handshake.py tests every state with every message. */
enum msg_type {
    MSG_PLAN = 2, /* parent -> init: value = size; descriptors attached, slot 0 = the plan's memfd */
    MSG_MAP,      /* init -> parent: write setgroups, gid_map and uid_map of the sender, then GO */
    MSG_PID,      /* enter -> parent: value = pid of the container's init as enter sees it; enter exits */
    MSG_MOUNTED,  /* init -> parent: set limits, run prestart and createRuntime hooks, then GO */
    MSG_READY,    /* init -> parent: set rlimits, write the state, then GO */
    MSG_SECCOMP,  /* init -> parent: value = number of the notify descriptor in init, then GO */
    MSG_CREATED,  /* init -> parent: init only waits for start */
    MSG_GO,       /* parent -> init: continue */
    MSG_WARN,     /* init -> parent: like FAIL, but init continues */
    MSG_FAIL,     /* init -> parent, or into the error fifo after CREATED: init exits */
    MSG_PLACED,   /* enter -> parent: value = pid of its clone in the cgroup, which continues after GO */
    MSG_STAMPS, /* init -> parent, or into the error fifo; only if traced: value = number of times in detail */
    MSG_TREE /* init -> parent: BUILD: value = mount id, call = unique id or ""; UNMOUNT: value = 1 if detached */
};

/* The byte that `start` writes into the start fifo. */
#define START_PLAIN  '0'
#define START_TRACED '1' /* send STAMPS from now on */

#define MSG_CALL   24
#define MSG_DETAIL 208
/* STAMPS: u64 nanoseconds since 1970, the start of `step` and of the steps after it.  Each time
 * but the last starts a step that the next time ends. */
#define MSG_TIMES (MSG_DETAIL / 8)

struct msg {
    uint32_t type;
    uint32_t step; /* index of the current step; 0xffffffff: none */
    int32_t err;   /* errno, or 0 */
    uint32_t value;
    uint16_t arg;  /* string slot of the failed argument, plus 1; 0: none */
    uint16_t item; /* index into a list argument */
    uint32_t reserved;
    char call[MSG_CALL];     /* name of the failing call: "fsconfig" */
    char detail[MSG_DETAIL]; /* the kernel's message or ours; NUL-terminated */
};

_Static_assert(sizeof(struct plan_header) == 32, "plan header");
_Static_assert(sizeof(struct plan_step) == 52, "plan step");
_Static_assert(sizeof(struct msg) == 256, "message");

#endif
