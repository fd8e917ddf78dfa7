/* Which way calls are run, alone or together: the one that was faster a moment ago.

   A team may be slower than one thread: a virtual machine's processors are two cores that share a cache at one time, two far
   apart at another, two threads of one core at a third. So now and then a few calls are timed both ways, and those to come
   are run the faster way. The other way costs a few calls of some thousands. Both give the same bits. */

#include <stdint.h>

#define TRIED 8                 /* calls each way of which the medians are compared; */
#define TRIED_LONG 3            /* of long ones, which vary less, so few that the next trial may come sooner */
#define LONG_NS 200000
#define CLEARLY 16              /* a team must save this part of the time of one thread */
#define FIRST_TERM_NS 10000000  /* until the next trial, and at least so many calls (fewer of long ones, as is tried); */
#define FIRST_TERM_CALLS 1024
#define LAST_TERM_NS 640000000  /* doubled each time that nothing changes, up to these */
#define LAST_TERM_CALLS 4096
#define PAUSE_NS 1000000        /* after no call for so long caches are cold, and threads of what ran before may still spin */
#define SETTLED_NS 20000000     /* (LiteRT's do for some 10 ms): trials wait until then */
#define TRIAL_NS 20000000       /* a trial that takes longer, and as long as so many calls, is given up: */
#define TRIAL_CALLS 128         /* the others do not come */

/* `together`: how calls run now. */
typedef struct {
    int together;
    int tried; /* calls timed in this trial: as they run now, then the other way; -1: there is none */
    int each;  /* as many each way */
    int64_t next_ns, term_ns;      /* when the next trial is due, and how long that is from the last */
    int64_t began_ns, resumed_ns;  /* when this one began, and the first call after a pause */
    int64_t promised_ns, usual_ns; /* what a call took when this way was chosen, and what it takes now */
    int64_t taken_ns[2 * TRIED];
} Choice;

static int64_t median_ns(int64_t *of, int count) {
    for (int i = 1; i < count; i++)
        for (int k = i; k > 0 && of[k - 1] > of[k]; k--) {
            const int64_t before = of[k - 1];
            of[k - 1] = of[k];
            of[k] = before;
        }
    return of[count / 2];
}

static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static inline int tries(int64_t usual_ns) { return usual_ns > LONG_NS ? TRIED_LONG : TRIED; }

/* From now on calls run this way, until the next trial. */
static void choose(Choice *choice, int together, int64_t usual_ns, int64_t now) {
    const int64_t share_ns = usual_ns * tries(usual_ns) / TRIED;
    const int64_t first = larger(FIRST_TERM_NS, FIRST_TERM_CALLS * share_ns);
    const int64_t last = larger(LAST_TERM_NS, LAST_TERM_CALLS * share_ns), doubled = larger(2 * choice->term_ns, first);
    choice->term_ns = together != choice->together ? first : doubled < last ? doubled : last;
    choice->together = together;
    choice->promised_ns = choice->usual_ns = usual_ns;
    choice->tried = -1;
    choice->next_ns = now + choice->term_ns;
}

/* Whether the call that begins now, so long after the last one, should run together. */
static inline int chosen_way(Choice *choice, int64_t now, int64_t idle_ns) {
    if (idle_ns > PAUSE_NS) {
        choice->resumed_ns = now;
        choice->tried = -1;
    }
    if (choice->tried < 0 && choice->usual_ns && now >= choice->next_ns && now - choice->resumed_ns > SETTLED_NS) {
        choice->tried = 0;
        choice->each = tries(choice->usual_ns);
        choice->began_ns = now;
    }
    if (choice->tried >= 0 && now - choice->began_ns > TRIAL_NS + TRIAL_CALLS * choice->usual_ns)
        choose(choice, choice->together, choice->usual_ns, now);
    return choice->tried < choice->each ? choice->together : !choice->together;
}

/* A call has run that way and took so long. */
static inline void learn(Choice *choice, int way, int64_t taken_ns, int64_t now) {
    if (!choice->usual_ns) choose(choice, choice->together, taken_ns, now); /* the first call: there was reason for its way */
    if (choice->tried < 0) {
        choice->usual_ns += (taken_ns > choice->usual_ns ? choice->usual_ns : -choice->usual_ns) >> 6; /* a median */
        if (choice->usual_ns > choice->promised_ns + (choice->promised_ns >> 2)) choice->next_ns = now;
        return;
    }
    choice->taken_ns[choice->tried++] = taken_ns;
    const int each = choice->each;
    if (choice->tried < 2 * each) return;
    const int64_t now_so = median_ns(choice->taken_ns, each), otherwise = median_ns(choice->taken_ns + each, each);
    const int64_t alone = way ? now_so : otherwise, together = way ? otherwise : now_so;
    const int joins = together < alone - alone / CLEARLY; /* on a par one thread has the shorter tail */
    choose(choice, joins, joins ? together : alone, now);
}
