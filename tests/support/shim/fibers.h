/* The threads of a GPU thread group (a CUDA block, a Metal threadgroup) as fibers of one host thread.

   A fiber runs until it waits: at the group's barrier, or at an exchange between the lanes of its warp (simdgroup). It goes on when
   all others have arrived there. So a program that relies on an order that no barrier gives reads what is not written yet, in one of
   the orders that `fibers::order` chooses, and its result is wrong here as it may be on the device. Memory ordering is not checked.

     fibers::run(threads, lanes, [&] { ... });      every thread's work; null, or what went wrong
     fibers::thread()                               index of the running thread in its group
     fibers::barrier()                              all threads of the group
     fibers::exchange(value, lane)                  the value that `lane` of the own warp gave
     fibers::share(value, all)                      all lanes' values, in order (of 64 bytes at most)
     fibers::warp_barrier()                         all lanes of the warp

   Barriers and exchanges must be reached by all threads (all lanes) alike; where some have ended or wait elsewhere, the run fails. */
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

namespace fibers {

/* In what order threads are run between two waits: 0 ascending, 1 descending, more: shuffled, with this as the seed, and about half of the
   warps only when the others can go no further. */
inline unsigned order = 0;

/* A place where `expected` threads wait for each other; `round` counts how often they have met. */
struct Meeting {
    unsigned expected = 0, arrived = 0;
    unsigned long round = 0;
};

struct Fiber {
    jmp_buf at;
    ucontext_t start;
    std::unique_ptr<char[]> stack;
    bool started = false, done = false;
    const Meeting *waits = nullptr;
    unsigned long round = 0;
};

/* Lanes that exchange values. Two sets of slots: one may be written while the slower lanes still read the other. */
struct Warp {
    static constexpr size_t SLOT = 64;
    Meeting meeting;
    char slots[2][64][SLOT];
};

struct Group {
    std::vector<std::unique_ptr<Fiber>> pool;  // kept from run to run: a fiber is expensive to begin
    std::vector<Warp> warps;
    Meeting meeting;
    std::function<void()> body;
    unsigned threads = 0, lanes = 0, running = 0;
    jmp_buf scheduler;
    char failure[200];
};

inline Group group;

inline unsigned thread() { return group.running; }
inline unsigned lane() { return group.running % group.lanes; }

/* Back to the scheduler, until it chooses this fiber again. */
[[gnu::noinline]] inline void pause() {
    if (!_setjmp(group.pool[group.running]->at)) _longjmp(group.scheduler, 1);
}

[[gnu::noinline]] inline void resume(Fiber &fiber) {
    if (_setjmp(group.scheduler)) return;
    if (fiber.started) _longjmp(fiber.at, 1);
    fiber.started = true;
    setcontext(&fiber.start);
}

inline void wait(Meeting &meeting) {
    if (++meeting.arrived == meeting.expected) {
        meeting.arrived = 0;
        meeting.round++;
        return;
    }
    Fiber &self = *group.pool[group.running];
    self.waits = &meeting;
    self.round = meeting.round;
    pause();
    self.waits = nullptr;
}

inline void barrier() { wait(group.meeting); }
inline void warp_barrier() { wait(group.warps[group.running / group.lanes].meeting); }

/* Gives a value and waits for the other lanes; where their values lie. */
template <class T> const char (*give(T value))[Warp::SLOT] {
    static_assert(sizeof(T) <= Warp::SLOT);
    Warp &warp = group.warps[group.running / group.lanes];
    char(*slots)[Warp::SLOT] = warp.slots[warp.meeting.round & 1];
    memcpy(slots[lane()], &value, sizeof value);
    wait(warp.meeting);
    return slots;
}

template <class T> T exchange(T value, unsigned source) {
    unsigned count = group.warps[group.running / group.lanes].meeting.expected;
    const char(*slots)[Warp::SLOT] = give(value);
    if (source < count) memcpy(&value, slots[source], sizeof value);
    return value;
}

template <class T> void share(T value, T *all) {
    unsigned count = group.warps[group.running / group.lanes].meeting.expected;
    const char(*slots)[Warp::SLOT] = give(value);
    for (unsigned i = 0; i < count; i++) memcpy(&all[i], slots[i], sizeof value);
}

/* What every fiber does, run after run. */
inline void live() {
    for (;;) {
        group.body();
        group.pool[group.running]->done = true;
        pause();
    }
}

inline void begin(Fiber &fiber) {
    constexpr size_t STACK = 128 << 10;
    if (!fiber.stack) fiber.stack.reset(new char[STACK]);
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, live, 0);
    fiber.started = false;
    fiber.waits = nullptr;
}

/* Nobody can go on: say who waits where, and give up the fibers that are in the midst of something. */
inline const char *stuck() {
    unsigned ended = 0, exchanging = 0;
    for (unsigned i = 0; i < group.threads; i++) {
        Fiber &fiber = *group.pool[i];
        ended += fiber.done;
        exchanging += !fiber.done && fiber.waits != &group.meeting;
        begin(fiber);
    }
    snprintf(group.failure, sizeof group.failure,
             "threads wait for each other for ever: %u of %u are at the barrier, %u at an exchange between lanes, %u have ended",
             group.threads - ended - exchanging, group.threads, exchanging, ended);
    return group.failure;
}

inline const char *run(unsigned threads, unsigned lanes, std::function<void()> body) {
    static unsigned long random = 1;
    while (group.pool.size() < threads) {
        group.pool.emplace_back(new Fiber);
        begin(*group.pool.back());
    }
    group.threads = threads, group.lanes = lanes, group.body = std::move(body);
    group.meeting = Meeting{threads};
    group.warps.resize((threads + lanes - 1) / lanes);
    for (unsigned w = 0; w < group.warps.size(); w++) group.warps[w].meeting = Meeting{std::min(lanes, threads - w * lanes)};
    std::vector<unsigned> turns(threads);
    std::vector<char> lazy(group.warps.size());
    auto next = [] { return (random = random * 6364136223846793005ul + order) >> 33; };
    for (char &flag : lazy) flag = order > 1 && next() % 2;
    for (unsigned i = 0; i < threads; i++) {
        turns[i] = order == 1 ? threads - 1 - i : i;
        group.pool[i]->done = false;
    }
    for (unsigned left = threads; left;) {
        for (unsigned i = threads; order > 1 && i > 1; i--) std::swap(turns[i - 1], turns[next() % i]);
        bool moved = false;
        for (bool everyone : {false, true}) {
            if (moved) break;
            for (unsigned i : turns) {
                Fiber &fiber = *group.pool[i];
                if (fiber.done || (fiber.waits && fiber.waits->round == fiber.round)) continue;
                if (lazy[i / lanes] && !everyone) continue;
                group.running = i;
                resume(fiber);
                left -= fiber.done;
                moved = true;
            }
        }
        if (!moved) return stuck();
    }
    return nullptr;
}

}  // namespace fibers
