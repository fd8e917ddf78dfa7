/* A few threads that run one compiled model together.

   The caller does part 0, the others wait for its job: first spinning for SPIN_NS, then asleep. A call that finds them
   asleep runs alone, without a system call, and wakes them only when calls come close together, so that the next one finds
   them spinning. A thread that has not shown itself for a while (another program runs on its processor) counts as asleep.
   Nobody waits for a sleeping thread, and an idle model costs no processor time.

   The kernel may start a woken thread on the caller's own processor, in the caller's time, and not only where the others are
   busy. Such a thread moves to another one, if it has not just done so; else it goes back to sleep at once, and the next
   waking waits twice as long. A thread that finds others at work where it is leaves the calls alone for a while, since a
   caller would wait for it; it looks when it wakes, and when it has lost its processor for long.

   All this tells whether a team can run; whether it should, `_choice.h` finds out. */

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <time.h>

#define MAX_PARTS 8
#define SPIN_NS 60000
#define LEAD_NS 200000           /* so long before a call alone is over, those woken for the next one start to spin */
#define SLACK_NS 1000000         /* it may take half as long again as the last one, but at most so much longer */
#define CARRIED 6                /* tensors that fit the cache line of a job */
#define FRESH_NS 20000           /* a spinning thread not seen for so long was taken off its processor */
#define FIRST_PATIENCE_NS 100000 /* between a waking that came to nothing and the next; doubled each time */
#define LAST_PATIENCE_NS 1000000
#define MOVE_NS 100000000        /* between two moves of a thread: where all processors are busy, moving helps nobody */
#define LOOK_NS 1000000          /* so often a thread looks whether it was taken off its processor, */
#define LOST_NS 300000           /* for so long; */
#define STOPPED_NS 15000000      /* what lasted longer was no other program's turn: the process was stopped */
#define REST_NS 5000000          /* so long it then rests */
#ifndef TEAM_GAP
#define TEAM_GAP() /* tests put a pause here: between looking for sleepers and handing out the job */
#endif

typedef void (*part_function)(const unsigned char *weights, unsigned char *arena, const void *const *inputs,
                              void *const *outputs, int part, int parts, unsigned *flags);

#ifdef __linux__
#include "_choice.h"
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct Team Team;
typedef struct {
    _Alignas(64) Team *team;
    int part;
    pthread_t thread;
    int64_t moved_ns;           /* when it last moved to another processor */
    int64_t looked_ns, used_ns; /* when it last looked, and its processor time until then */
    int64_t rests_until_ns;
} Worker;

/* Lines of the cache by who writes them, and how often: a worker that starts on a job waits for one line to come over. */
struct Team {
    _Alignas(64) uint32_t ticket; /* number of the current job; raised when the job is ready */
    int16_t stop;
    int16_t inputs; /* so many of `tensor`, then the outputs; -1: there are more, and two arrays of them instead */
    unsigned char *arena;
    void *tensor[CARRIED];
    _Alignas(64) part_function run; /* these stay as they are */
    const unsigned char *weights;
    int parts, outputs;
    unsigned born;
    _Alignas(64) unsigned flags[MAX_PARTS * 16];
    _Alignas(64) int asleep; /* how many are, or are about to be */
    _Alignas(64) int64_t seen[MAX_PARTS * 8]; /* when each thread last showed itself spinning, a cache line each */
    _Alignas(64) int64_t rise_ns; /* those woken for the next call spin from then, */
    int64_t stay_ns;              /* and at least until then */
    int caller_cpu;               /* where the call ran that woke the others */
    _Alignas(64) int busy;        /* from here on the caller's alone */
    int way;                      /* the way that this call should take */
    int64_t left_ns;              /* when the last call ended, alone or not */
    int64_t ended_ns;             /* when all parts were last known to be done */
    int64_t began_ns, alone_ns;   /* when the last call began, and how long the last one took that ran alone */
    int64_t woken_ns, patience_ns;
    Choice choice;
    Worker worker[MAX_PARTS];
};

static unsigned forks; /* a child process has none of its parent's threads */
static void count_fork(void) { forks++; }

static inline int64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static inline int64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Leaves `cpu` for another processor that this thread may use, and returns 1; or 0 where it stays. */
static int left_processor(Worker *self, int cpu) {
    const int64_t now = now_ns();
    cpu_set_t all, others;
    if (now - self->moved_ns < MOVE_NS || sched_getaffinity(0, sizeof all, &all)) return 0;
    self->moved_ns = now;
    others = all;
    CPU_CLR(cpu, &others);
    if (!CPU_COUNT(&others) || sched_setaffinity(0, sizeof others, &others)) return 0;
    sched_setaffinity(0, sizeof all, &all); /* it may go anywhere again, but has no reason to */
    return 1;
}

/* Whether this thread has its processor to itself: nobody runs there when it offers to wait. */
static int has_processor(void) {
    const int64_t before = now_ns();
    sched_yield();
    return now_ns() - before < FRESH_NS;
}

/* Whether, from one look to the next, somebody else had the processor for long: another program, or the host. */
static int lost_processor(Worker *self, int64_t now) {
    if (now - self->looked_ns < LOOK_NS) return 0;
    const int64_t used = clock_ns(CLOCK_THREAD_CPUTIME_ID), lost = now - self->looked_ns - (used - self->used_ns);
    self->looked_ns = now;
    self->used_ns = used;
    return lost > LOST_NS && lost < STOPPED_NS;
}

/* Sleeps until there is another job than `seen`, or until the call that woke it is nearly over. */
static void sleep_until_called(Worker *self, uint32_t seen) {
    Team *team = self->team;
    __atomic_fetch_add(&team->asleep, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&team->ticket, __ATOMIC_SEQ_CST) == seen) {
        syscall(SYS_futex, &team->ticket, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
        if (now_ns() < self->rests_until_ns) continue;
        const int cpu = __atomic_load_n(&team->caller_cpu, __ATOMIC_RELAXED);
        if (sched_getcpu() == cpu && !left_processor(self, cpu)) continue;
        if (!has_processor()) {
            self->rests_until_ns = now_ns() + REST_NS;
            continue;
        }
        const int64_t rest = __atomic_load_n(&team->rise_ns, __ATOMIC_RELAXED) - now_ns();
        const struct timespec nap = {rest / 1000000000, rest % 1000000000};
        if (rest > 0) syscall(SYS_futex, &team->ticket, FUTEX_WAIT_PRIVATE, seen, &nap, NULL, 0);
        break;
    }
    __atomic_fetch_sub(&team->asleep, 1, __ATOMIC_SEQ_CST);
    self->looked_ns = now_ns();
    self->used_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* Waits for the next job: spinning, then asleep. */
static void await(Worker *self, uint32_t seen) {
    Team *team = self->team;
    int64_t now = now_ns(), until = now + SPIN_NS;
    while (__atomic_load_n(&team->ticket, __ATOMIC_ACQUIRE) == seen) {
        __atomic_store_n(&team->seen[self->part * 8], now, __ATOMIC_RELAXED);
        for (int i = 0; i < 64 && __atomic_load_n(&team->ticket, __ATOMIC_ACQUIRE) == seen; i++) relax();
        now = now_ns();
        if (lost_processor(self, now) && !has_processor()) self->rests_until_ns = now_ns() + REST_NS;
        if (now < until && now >= self->rests_until_ns) continue;
        sleep_until_called(self, seen);
        now = now_ns();
        const int64_t stay = __atomic_load_n(&team->stay_ns, __ATOMIC_RELAXED);
        until = (stay > now ? stay : now) + SPIN_NS;
    }
}

static void *work(void *given) {
    Worker *self = given;
    Team *team = self->team;
    uint32_t seen = 0;
    self->looked_ns = now_ns();
    for (;;) {
        await(self, seen);
        seen = __atomic_load_n(&team->ticket, __ATOMIC_ACQUIRE);
        if (team->stop) return NULL;
        void *const *in = team->inputs < 0 ? team->tensor[0] : team->tensor;
        void *const *out = team->inputs < 0 ? team->tensor[1] : team->tensor + team->inputs;
        team->run(team->weights, team->arena, (const void *const *)in, out, self->part, team->parts, team->flags);
    }
}

static void wake(Team *team) { syscall(SYS_futex, &team->ticket, FUTEX_WAKE_PRIVATE, MAX_PARTS, NULL, NULL, 0); }

/* Wakes the others for the next call, unless the last waking is still under way or came to nothing lately. */
static void call_together(Team *team, int64_t now) {
    if (now - team->woken_ns < team->patience_ns) return;
    team->woken_ns = now;
    team->patience_ns = team->patience_ns ? team->patience_ns * 2 : FIRST_PATIENCE_NS;
    if (team->patience_ns > LAST_PATIENCE_NS) team->patience_ns = LAST_PATIENCE_NS;
    const int64_t slack = team->alone_ns / 2 < SLACK_NS ? team->alone_ns / 2 : SLACK_NS;
    __atomic_store_n(&team->rise_ns, now + team->alone_ns - LEAD_NS, __ATOMIC_RELAXED);
    __atomic_store_n(&team->stay_ns, now + team->alone_ns + slack, __ATOMIC_RELAXED);
    __atomic_store_n(&team->caller_cpu, sched_getcpu(), __ATOMIC_RELAXED);
    wake(team);
}

static void team_free(Team *team) {
    if (!team) return;
    if (team->born == forks) {
        team->stop = 1;
        __atomic_fetch_add(&team->ticket, 1, __ATOMIC_SEQ_CST);
        wake(team);
        for (int i = 1; i < team->parts; i++) pthread_join(team->worker[i].thread, NULL);
    }
    free(team);
}

/* A team of `parts` for a model with so many tensors, or NULL where its threads cannot be had. */
static Team *team_new(part_function run, const unsigned char *weights, int parts, int inputs, int outputs) {
    static int registered;
    if (!registered) registered = pthread_atfork(NULL, NULL, count_fork) == 0;
    void *memory = NULL;
    if (parts > MAX_PARTS || posix_memalign(&memory, 64, sizeof(Team))) return NULL;
    Team *team = memory;
    memset(team, 0, sizeof(Team));
    team->run = run;
    team->weights = weights;
    team->inputs = (int16_t)(inputs + outputs > CARRIED ? -1 : inputs);
    team->outputs = outputs;
    team->born = forks;
    team->choice = (Choice){.together = 1, .tried = -1};
    team->parts = 1;
    for (int i = 1; i < parts; i++) {
        team->worker[i] = (Worker){.team = team, .part = i, .moved_ns = -MOVE_NS};
        if (pthread_create(&team->worker[i].thread, NULL, work, &team->worker[i])) {
            team_free(team);
            return NULL;
        }
        team->parts = i + 1;
    }
    return team;
}

/* Runs the model with the team and returns 1, or returns 0 at once: then run it alone, for the team is not ready or slower.
   One call at a time: `busy` is the caller's, under the GIL. */
static inline int team_run(Team *team, unsigned char *arena, const void *const *in, void *const *out) {
    const int64_t now = team->began_ns = now_ns();
    team->way = chosen_way(&team->choice, now, now - team->left_ns);
    if (!team->way) return 0;
    if (__atomic_load_n(&team->asleep, __ATOMIC_SEQ_CST)) {
        if (now - team->left_ns < SPIN_NS && team->born == forks) call_together(team, now);
        return 0;
    }
    if (team->born != forks) return 0;
    if (now - team->ended_ns > FRESH_NS) /* right after a call all are known to be there: no cache line to fetch */
        for (int part = 1; part < team->parts; part++)
            if (now - __atomic_load_n(&team->seen[part * 8], __ATOMIC_RELAXED) > FRESH_NS) return 0;
    team->patience_ns = 0;
    team->arena = arena;
    if (team->inputs < 0) {
        team->tensor[0] = (void *)in;
        team->tensor[1] = (void *)out;
    } else {
        for (int i = 0; i < team->inputs; i++) team->tensor[i] = (void *)in[i];
        for (int i = 0; i < team->outputs; i++) team->tensor[team->inputs + i] = out[i];
    }
    TEAM_GAP();
    __atomic_fetch_add(&team->ticket, 1, __ATOMIC_SEQ_CST);
    /* One may have fallen asleep since it was looked at, without seeing this job, and its part would be waited for
       without end. */
    if (__atomic_load_n(&team->asleep, __ATOMIC_SEQ_CST)) wake(team);
    team->run(team->weights, arena, in, out, 0, team->parts, team->flags);
    team->ended_ns = team->left_ns = now_ns();
    learn(&team->choice, 1, team->ended_ns - now, team->ended_ns);
    return 1;
}

/* Told after a call that ran alone. */
static inline void team_left(Team *team) {
    team->left_ns = now_ns();
    team->alone_ns = team->left_ns - team->began_ns;
    if (!team->way) learn(&team->choice, 0, team->alone_ns, team->left_ns);
}

#else /* no futex: one thread */

typedef struct {
    int busy;
} Team;
static Team *team_new(part_function run, const unsigned char *weights, int parts, int inputs, int outputs) {
    (void)run, (void)weights, (void)parts, (void)inputs, (void)outputs;
    return NULL;
}
static void team_free(Team *team) { (void)team; }
static inline int team_run(Team *team, unsigned char *arena, const void *const *in, void *const *out) {
    (void)team, (void)arena, (void)in, (void)out;
    return 0;
}
static inline void team_left(Team *team) { (void)team; }
#endif
