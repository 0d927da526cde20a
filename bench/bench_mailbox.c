/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_mailbox [ITEMS | --counts] - pushes into one mailbox: by one thread alone, by several at
 * once with a consumer, in chains, and a ball to and fro between two that sleep (the whole
 * wake-up).
 */
#include "bench/micro.h"
#include "routing/mailbox.h"

#include <poll.h>
#include <pthread.h>

#define PRODUCERS 3u
#define CHAIN     32u

static struct mail *make_items(unsigned n)
{
    struct mail *items = calloc(n, sizeof(*items));

    MICRO_NEED(items != NULL);
    return items;
}

/* Push 64, take 64: what a turn of a shard does to another that is awake. */
static double alone_ns(unsigned items_n, unsigned chain)
{
    static struct mailbox mb;
    struct mail items[64];
    double begin;
    size_t n;

    MICRO_NEED(mailbox_init(&mb));
    begin = micro_cpu_ns();
    for (unsigned i = 0; i < items_n; i += 64) {
        for (unsigned k = 0; k < 64; k += chain) {
            for (unsigned j = k; j + 1 < k + chain; j++) {
                items[j].next = &items[j + 1];
            }
            mailbox_push_chain(&mb, &items[k], &items[k + chain - 1], chain);
        }
        MICRO_NEED(mailbox_take(&mb, &n) == &items[0] && n == 64);
    }
    begin = micro_cpu_ns() - begin;
    mailbox_fini(&mb);
    return begin / items_n;
}

struct producer {
    struct mailbox *mb;
    struct mail *items;
    unsigned n;
    double cpu_ns;
};

static void *produce(void *arg)
{
    struct producer *p = arg;
    double begin = micro_cpu_ns();

    for (unsigned i = 0; i < p->n; i++) {
        mailbox_push(p->mb, &p->items[i]);
    }
    p->cpu_ns = micro_cpu_ns() - begin;
    return NULL;
}

static void wait_mail(struct mailbox *mb)
{
    struct pollfd fd = {.fd = mb->event_fd, .events = POLLIN};
    bool readable = false;

    if (mailbox_prepare_sleep(mb)) {
        MICRO_NEED(poll(&fd, 1, 10000) == 1);
        readable = true;
    }
    mailbox_awake(mb, readable);
}

/* CPU per item pushed, and wall time per item from first to last. */
static double together_ns(unsigned each, double *wall_ns)
{
    static struct mailbox mb;
    struct producer p[PRODUCERS];
    pthread_t threads[PRODUCERS];
    double begin = micro_now_ns();
    double cpu = 0;
    size_t total = 0;

    MICRO_NEED(mailbox_init(&mb));
    for (unsigned i = 0; i < PRODUCERS; i++) {
        p[i] = (struct producer){&mb, make_items(each), each, 0};
        MICRO_NEED(pthread_create(&threads[i], NULL, produce, &p[i]) == 0);
    }
    while (total < (size_t)PRODUCERS * each) {
        size_t n;

        wait_mail(&mb);
        (void)mailbox_take(&mb, &n);
        total += n;
    }
    *wall_ns = (micro_now_ns() - begin) / (PRODUCERS * each);
    for (unsigned i = 0; i < PRODUCERS; i++) {
        pthread_join(threads[i], NULL);
        cpu += p[i].cpu_ns;
        free(p[i].items);
    }
    mailbox_fini(&mb);
    return cpu / (PRODUCERS * each);
}

struct pair {
    struct mailbox boxes[2];
    struct mail ball;
    unsigned rounds;
};

static void catch_ball(struct mailbox *mb)
{
    size_t n;

    while (mailbox_take(mb, &n) == NULL) {
        wait_mail(mb);
    }
}

static void *answer(void *arg)
{
    struct pair *p = arg;

    for (unsigned i = 0; i < p->rounds; i++) {
        catch_ball(&p->boxes[1]);
        mailbox_push(&p->boxes[0], &p->ball);
    }
    return NULL;
}

static double wakeup_ns(unsigned rounds)
{
    static struct pair p;
    pthread_t other;
    double begin;

    p.rounds = rounds;
    MICRO_NEED(mailbox_init(&p.boxes[0]) && mailbox_init(&p.boxes[1]));
    MICRO_NEED(pthread_create(&other, NULL, answer, &p) == 0);
    begin = micro_now_ns();
    for (unsigned i = 0; i < rounds; i++) {
        mailbox_push(&p.boxes[1], &p.ball);
        catch_ball(&p.boxes[0]);
    }
    begin = micro_now_ns() - begin;
    pthread_join(other, NULL);
    mailbox_fini(&p.boxes[0]);
    mailbox_fini(&p.boxes[1]);
    return begin / (2 * rounds);
}

/* ---- --counts: only what one thread does alone is the same every time ---- */

static void count_single(void *arg, unsigned n)
{
    (void)arg;
    (void)alone_ns(n, 1);
}

static void count_chained(void *arg, unsigned n)
{
    (void)arg;
    (void)alone_ns(n, CHAIN);
}

static int counts(void)
{
    micro_begin("mailbox");
    micro_simple("push_take", 64000, count_single, NULL);
    micro_simple("push_take_chain", 64000, count_chained, NULL);
    micro_end();
    return 0;
}

static int measure(unsigned items)
{
    double single = alone_ns(items, 1);
    double chained = alone_ns(items, CHAIN);
    double wall = 0;
    double together = together_ns(items / 4, &wall);

    printf("{\"bench\": \"mailbox\", \"push_take_ns\": %.1f, \"push_take_chain%u_ns\": %.1f, "
           "\"contended_producers\": %u, \"contended_push_cpu_ns\": %.1f, \"contended_wall_ns\": "
           "%.1f, "
           "\"wakeup_one_way_ns\": %.0f}\n",
           single, CHAIN, chained, PRODUCERS, together, wall, wakeup_ns(items / 80));
    return 0;
}

int main(int argc, char **argv)
{
    if (micro_wants_counts(argc, argv)) {
        return counts();
    }
    return measure(argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) & ~63u : 4000000);
}
