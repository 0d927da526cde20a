/* SPDX-License-Identifier: Apache-2.0 */
/*
 * liburcu is called out of line, so its barriers and futexes are invisible to ThreadSanitizer. The
 * marks below tell it the two things grace periods promise: what a reader did before its quiescent
 * state happens before a callback deferred earlier, and what a thread did before rcu_defer()
 * happens before the callback. Readers only release and callbacks only acquire on the shared tag,
 * so no race between readers is hidden.
 */
#include "routing/rcu.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <urcu/urcu-qsbr.h>

#if defined(__SANITIZE_THREAD__)
#define RCU_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RCU_TSAN 1
#endif
#endif

#ifdef RCU_TSAN
#include <sanitizer/tsan_interface.h>
#define RCU_RELEASE(tag) __tsan_release((void *)(tag))
#define RCU_ACQUIRE(tag) __tsan_acquire((void *)(tag))
#else
#define RCU_RELEASE(tag) ((void)(tag))
#define RCU_ACQUIRE(tag) ((void)(tag))
#endif

static_assert(offsetof(struct rcu_item, opaque) == 0, "the rcu_head comes first");
static_assert(sizeof(struct rcu_head) <= sizeof(((struct rcu_item *)0)->opaque),
              "opaque too small");

/* An address for the marks; the byte is never touched. */
static const char readers_tag;

/* What this thread is to liburcu, which aborts on wrong sequences instead of answering. */
enum rcu_state { RCU_NONE, RCU_ONLINE, RCU_OFFLINE };
static _Thread_local enum rcu_state self;

void rcu_register(void)
{
    assert(self == RCU_NONE);
    urcu_qsbr_register_thread();
    self = RCU_ONLINE;
}

void rcu_unregister(void)
{
    assert(self != RCU_NONE);
    RCU_RELEASE(&readers_tag);
    urcu_qsbr_unregister_thread();
    self = RCU_NONE;
}

void rcu_quiescent(void)
{
    assert(self == RCU_ONLINE);
    RCU_RELEASE(&readers_tag);
    urcu_qsbr_quiescent_state();
}

void rcu_offline(void)
{
    assert(self == RCU_ONLINE);
    RCU_RELEASE(&readers_tag);
    urcu_qsbr_thread_offline();
    self = RCU_OFFLINE;
}

void rcu_online(void)
{
    assert(self == RCU_OFFLINE);
    urcu_qsbr_thread_online();
    self = RCU_ONLINE;
}

static void run(struct rcu_head *head)
{
    struct rcu_item *item = (struct rcu_item *)head;

    /* liburcu registered this thread itself and keeps it online here: a callback may defer again.
     */
    self = RCU_ONLINE;
    RCU_ACQUIRE(item);
    RCU_ACQUIRE(&readers_tag);
    item->fn(item);
}

void rcu_defer(struct rcu_item *item, void (*fn)(struct rcu_item *))
{
    enum rcu_state was = self;

    item->fn = fn;
    /* liburcu wants the caller registered and online. Coming online needs no grace period: it never
     * waits. */
    if (was == RCU_NONE) {
        urcu_qsbr_register_thread();
    } else if (was == RCU_OFFLINE) {
        urcu_qsbr_thread_online();
    }
    RCU_RELEASE(item);
    urcu_qsbr_call_rcu((struct rcu_head *)item, run);
    if (was == RCU_NONE) {
        urcu_qsbr_unregister_thread();
    } else if (was == RCU_OFFLINE) {
        urcu_qsbr_thread_offline();
    }
}

struct drain {
    struct rcu_item item;
    pthread_mutex_t lock;
    pthread_cond_t came;
    bool is_over;
};

static void drained(struct rcu_item *item)
{
    struct drain *d = (struct drain *)item;

    pthread_mutex_lock(&d->lock);
    d->is_over = true;
    pthread_cond_signal(&d->came);
    pthread_mutex_unlock(&d->lock);
}

/*
 * All callbacks go through liburcu's one default queue, in order: when ours runs, those before have
 * run. (urcu_qsbr_barrier() does the same with memory and futexes that ThreadSanitizer cannot see.)
 */
void rcu_drain(void)
{
    struct drain d = {.lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER};

    assert(self != RCU_ONLINE); /* would wait for itself */
    rcu_defer(&d.item, drained);
    pthread_mutex_lock(&d.lock);
    while (!d.is_over) {
        pthread_cond_wait(&d.came, &d.lock);
    }
    pthread_mutex_unlock(&d.lock);
    pthread_mutex_destroy(&d.lock);
    pthread_cond_destroy(&d.came);
}
