"""The team of threads by itself: when it forms, whom it waits for, and when calls had better run alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hasten

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("cc"), reason="Linux with a C compiler"
)

# The caller pauses after it saw nobody asleep until everybody is; then it hands out the job.
GAP = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define TEAM_GAP() usleep(2000)
#include "_team.h"
static int done[2];
static void run(const unsigned char *w, unsigned char *a, const void *const *i, void *const *o, int part, int parts,
                unsigned *flags) {
    (void)w, (void)a, (void)i, (void)o, (void)parts, (void)flags;
    __atomic_fetch_add(&done[part], 1, __ATOMIC_SEQ_CST);
    if (part == 0)
        while (__atomic_load_n(&done[1], __ATOMIC_SEQ_CST) < done[0]) sched_yield();
}
int main(void) {
    Team *team = team_new(run, NULL, 2, 0, 0);
    int together = 0;
    for (const int64_t until = now_ns() + 40000000000; now_ns() < until && together < 3;) {
        if (team_run(team, NULL, NULL, NULL)) together++;
        else team_left(team), usleep(1);
    }
    team_free(team);
    return together < 1;
}
"""


# Alone a call takes fifty times as long as a thread spins; one after the other, without a pause.
LONG = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include "_team.h"
static void run(const unsigned char *w, unsigned char *a, const void *const *i, void *const *o, int part, int parts,
                unsigned *flags) {
    (void)w, (void)a, (void)i, (void)o, (void)part, (void)parts, (void)flags;
}
int main(void) {
    Team *team = team_new(run, NULL, 2, 0, 0);
    int together = 0;
    for (int k = 0; k < 4000 && !together; k++) {
        if (team_run(team, NULL, NULL, NULL)) {
            together = 1;
            continue;
        }
        for (const int64_t until = now_ns() + 50 * SPIN_NS; now_ns() < until;) relax();
        team_left(team);
    }
    team_free(team);
    return !together;
}
"""


def ran(folder: Path, source: str) -> str:
    """Builds a program that includes the team, and runs it: what it prints; it fails where its answer is not 0."""
    (folder / "program.c").write_text(source)
    command = ["cc", "-O2", f"-I{Path(hasten.__file__).parent}", "program.c", "-o", "program", "-lpthread"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return subprocess.run([str(folder / "program")], check=True, timeout=60, capture_output=True, text=True).stdout


# Calls on a clock of its own, 20 a millisecond: what a call takes alone is 5 µs, what together changes with time.
CHOICE = r"""
#include <stdio.h>
#include "_choice.h"
static int64_t together_ns(int64_t now) {
    const int64_t second = now / 1000000000;
    return second < 1 ? 3000 : second < 3 ? 16000 : second < 5 ? 4900 : second < 7 ? 3000 : -1;
}
int main(void) {
    Choice choice = {.together = 1, .tried = -1};
    int64_t now = 1;
    int calls = 0, joined = 0, late = 0;
    for (int second = 0; second < 9;) {
        const int way = chosen_way(&choice, now, 45000);
        int64_t together = together_ns(now), taken = way && together > 0 ? together : 5000;
        taken += calls % 50 ? 0 : 100000; /* now and then another program runs */
        now += taken;
        if (!way || together > 0) learn(&choice, way, taken, now);
        calls++;
        joined += way;
        late += way && now % 1000000000 > 300000000;
        now += 45000;
        if (now / 1000000000 > second) {
            printf("%d %d %d %d\n", second++, calls, joined, late);
            calls = joined = late = 0;
        }
    }
    return 0;
}
"""


def test_calls_run_the_way_that_was_faster_a_moment_ago(tmp_path: Path) -> None:
    shares = [tuple(map(int, line.split())) for line in ran(tmp_path, CHOICE).splitlines()]
    joined = {second: together / calls for second, calls, together, _ in shares}
    assert joined[0] > 0.98, "together it takes three fifths"
    assert joined[1] < 0.05, "together it takes three times as long: found out before the next trial is due"
    assert joined[2] < 0.002
    assert joined[3] < 0.02 and joined[4] < 0.002, "on a par one thread is better"
    assert joined[6] > 0.98, "together it is faster again: found out by the next trial"
    assert joined[8] > 0.9, "the others do not come, and are asked for all the same: a call alone costs nothing more"
    trials = sum(late for second, _, _, late in shares if second in (2, 4))
    assert 0 < trials <= 48, "trials stay, and stay rare"


# Calls of 3 ms alone, 1.8 together, but for half a second in which the host keeps the two apart.
LONG = r"""
#include <stdio.h>
#include "_choice.h"
int main(void) {
    Choice choice = {.together = 1, .tried = -1};
    int64_t now = 1;
    for (int second = 0; second < 6; second++) {
        int calls = 0, joined = 0;
        for (; now < (second + 1) * 1000000000LL; calls++) {
            const int way = chosen_way(&choice, now, 2000);
            const int64_t taken = !way ? 3000000 : now > 300000000 && now < 800000000 ? 6000000 : 1800000;
            now += taken;
            learn(&choice, way, taken, now);
            joined += way;
            now += 2000;
        }
        printf("%d %d\n", calls, joined);
    }
    return 0;
}
"""


def test_long_calls_soon_run_together_again(tmp_path: Path) -> None:
    """A term of calls that take milliseconds would last for seconds."""
    shares = [tuple(map(int, line.split())) for line in ran(tmp_path, LONG).splitlines()]
    assert shares[0][1] < shares[0][0], "found out that the two are apart"
    assert all(joined > 0.97 * calls for calls, joined in shares[2:]), shares


# Blocks of 50 ms, each after a pause; for 10 ms threads of what ran before spin where the team's would.
BLOCKS = r"""
#include <stdio.h>
#include "_choice.h"
int main(void) {
    Choice choice = {.together = 1, .tried = -1};
    int64_t now = 1, left = 0;
    int calls = 0, joined = 0;
    for (int block = 0; block < 40; block++) {
        for (const int64_t start = now; now < start + 50000000; calls++) {
            const int way = chosen_way(&choice, now, now - left);
            now += !way ? 200000 : now < start + 10000000 ? 400000 : 120000;
            learn(&choice, way, !way ? 200000 : now < start + 10000000 ? 400000 : 120000, now);
            joined += way;
            left = now;
        }
        now += 150000000;
    }
    printf("%d %d\n", calls, joined);
    return 0;
}
"""


def test_what_still_runs_of_others_after_a_pause_decides_nothing(tmp_path: Path) -> None:
    calls, joined = map(int, ran(tmp_path, BLOCKS).split())
    assert joined > 0.95 * calls


def test_a_team_never_waits_for_one_that_fell_asleep(tmp_path: Path) -> None:
    ran(tmp_path, GAP)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor")
def test_a_team_forms_for_calls_longer_than_threads_spin(tmp_path: Path) -> None:
    ran(tmp_path, LONG)
