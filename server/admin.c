/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three tables, and one loop over each. A round first sums the counters of all threads, then
 * makes each value's text and publishes those that are not what they were.
 *
 * Counters may wrap: differences are taken unsigned. A gauge is a sum of ups and downs and is read
 * as signed. Each thread's block is read at another moment, so values of one round may differ by
 * what happened meanwhile.
 */
#include "server/admin.h"

#include "noctule_version.h"
#include "server/load_average.h"
#include "server/shard/shard.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX          "$SYS/broker/"
#define TOPIC_MAX       80
#define TEXT_MAX        48
#define HOW_MANY(a)     (sizeof(a) / sizeof((a)[0]))
#define HISTOGRAM       "noctule/store/commit/below_us/" /* upper bounds, powers of two */
#define HISTOGRAM_FIRST 6u /* buckets that the first topic sums up: 64 us */
#define HISTOGRAM_ROWS  (STORE_BUCKETS + 1 - HISTOGRAM_FIRST)

struct shown {
    char text[TEXT_MAX]; /* as last published; "": never */
};

struct admin {
    struct admin_env env;
    int64_t start_ms;
    int64_t last_ms; /* of the last look at the loads */
    int64_t next_ms; /* of the next round */
    uint64_t heap, heap_max;
    int64_t clients_max;
    struct retained_stats retained;
    struct store_stats store;          /* of this round; zero without persistence */
    uint64_t commit_us[STORE_BUCKETS]; /* histogram of the commits before this round */
    int64_t commit_p50, commit_p99;    /* us, of the last round in which there were commits */
    uint64_t commits, commit_records, commit_messages; /* of that round */
    uint64_t sum[METRIC_NR];                           /* of this round, all threads */
    uint64_t connects;                                 /* CONNECT packets */
    struct load_average *loads;
    struct shown *shown;
};

/* ---- values that are more than one counter ---- */

static int64_t clients_total(const struct admin *a)
{
    return (int64_t)(a->sum[METRIC_CLIENTS_CONNECTED] + a->sum[METRIC_CLIENTS_DISCONNECTED]);
}

static int64_t clients_maximum(const struct admin *a)
{
    return a->clients_max;
}

static int64_t stored_count(const struct admin *a)
{
    return (int64_t)(a->sum[METRIC_QUEUED_MESSAGES] + a->retained.count);
}

static int64_t stored_bytes(const struct admin *a)
{
    return (int64_t)(a->sum[METRIC_QUEUED_BYTES] + a->retained.bytes);
}

static int64_t retained_count(const struct admin *a)
{
    return (int64_t)a->retained.count;
}

static int64_t shared_count(const struct admin *a)
{
    return (int64_t)shares_count(a->env.shared->shares);
}

static int64_t heap_current(const struct admin *a)
{
    return (int64_t)a->heap;
}

static int64_t heap_maximum(const struct admin *a)
{
    return (int64_t)a->heap_max;
}

static int64_t dropped(const struct admin *a)
{
    return (int64_t)(a->sum[METRIC_DROPPED_QUEUE_FULL] + a->sum[METRIC_DROPPED_OUTPUT_FULL] +
                     a->sum[METRIC_DROPPED_MEMORY] + a->sum[METRIC_DROPPED_TOO_LARGE] +
                     a->sum[METRIC_DROPPED_NO_MEMBER] + a->sum[METRIC_DROPPED_EXPIRED]);
}

static int64_t connects(const struct admin *a)
{
    return (int64_t)a->connects;
}

static void version(const struct admin *a, char *text)
{
    (void)a;
    snprintf(text, TEXT_MAX, "noctule version " NOCTULE_VERSION);
}

static void uptime(const struct admin *a, char *text)
{
    int64_t now_ms = clock_now_ms(a->env.shared->clock);

    snprintf(text, TEXT_MAX, "%" PRId64 " seconds", (now_ms - a->start_ms) / 1000);
}

static void durability(const struct admin *a, char *text)
{
    snprintf(text, TEXT_MAX, "%s", a->env.durability);
}

static int64_t store_commits(const struct admin *a)
{
    return (int64_t)a->store.commits;
}

static int64_t store_records(const struct admin *a)
{
    return (int64_t)a->store.records;
}

static int64_t store_messages(const struct admin *a)
{
    return (int64_t)a->store.ops[ST_BODY_PUT];
}

static int64_t store_annihilated(const struct admin *a)
{
    return (int64_t)a->store.annihilated;
}

static int64_t store_pending(const struct admin *a)
{
    return (int64_t)a->store.pending;
}

static int64_t store_written(const struct admin *a)
{
    return (int64_t)a->store.journal_written;
}

static int64_t store_backlog_bytes(const struct admin *a)
{
    return (int64_t)a->store.journal_bytes;
}

static int64_t store_backlog_records(const struct admin *a)
{
    return (int64_t)a->store.journal_records;
}

static int64_t store_folds(const struct admin *a)
{
    return (int64_t)a->store.folds;
}

static int64_t store_lost(const struct admin *a)
{
    return (int64_t)a->store.lost;
}

static int64_t store_fold_us(const struct admin *a)
{
    return (int64_t)a->store.fold_us;
}

static int64_t store_oldest(const struct admin *a)
{
    return (int64_t)a->store.oldest_s;
}

/* Of the commits of the last round in which there were any. */
static void per_commit(const struct admin *a, double what, char *text)
{
    snprintf(text, TEXT_MAX, "%.2f", a->commits == 0 ? 0 : what / (double)a->commits);
}

static void records_per_commit(const struct admin *a, char *text)
{
    per_commit(a, (double)a->commit_records, text);
}

static void messages_per_commit(const struct admin *a, char *text)
{
    per_commit(a, (double)a->commit_messages, text);
}

static int64_t store_commit_p50(const struct admin *a)
{
    return a->commit_p50;
}

static int64_t store_commit_p99(const struct admin *a)
{
    return a->commit_p99;
}

static void store_health_text(const struct admin *a, char *text)
{
    const char *word = "ok";

    switch (a->store.health) {
    case ST_NOSPACE:
        word = "full";
        break;
    case ST_IO:
        word = "failed";
        break;
    case ST_OK:
    case ST_CLOSED:
    case ST_NOMEM:
        break;
    }
    snprintf(text, TEXT_MAX, "%s", word);
}

/* ---- the tables ---- */

enum kind { COUNTER, GAUGE, NUMBER, TEXT };

struct row {
    const char *topic; /* below $SYS/broker/ */
    enum kind kind;
    union {
        enum metric metric;                              /* COUNTER, GAUGE */
        int64_t (*number)(const struct admin *a);        /* NUMBER */
        void (*text)(const struct admin *a, char *text); /* TEXT */
    } from;
    const char *help;
};

/* clang-format off */
#define FROM_COUNTER(topic, metric, help) {topic, COUNTER, {METRIC_##metric}, help}
#define FROM_GAUGE(topic, metric, help)   {topic, GAUGE, {METRIC_##metric}, help}
#define FROM_NUMBER(topic, fn, help)      {topic, NUMBER, {.number = fn}, help}
#define FROM_TEXT(topic, fn, help)        {topic, TEXT, {.text = fn}, help}

static const struct row rows[] = {
    FROM_TEXT("version", version, "name and version of the broker"),
    FROM_TEXT("uptime", uptime, "time since the start"),
    FROM_NUMBER("clients/total", clients_total, "sessions, connected or not"),
    FROM_NUMBER("clients/maximum", clients_maximum, "the most clients connected at a time"),
    FROM_GAUGE("clients/connected", CLIENTS_CONNECTED, "clients connected"),
    FROM_GAUGE("clients/active", CLIENTS_CONNECTED, "an older name of clients/connected"),
    FROM_GAUGE("clients/disconnected", CLIENTS_DISCONNECTED, "sessions without a connection"),
    FROM_GAUGE("clients/inactive", CLIENTS_DISCONNECTED, "an older name of clients/disconnected"),
    FROM_COUNTER("clients/expired", CLIENTS_EXPIRED, "sessions ended by their expiry"),
    FROM_COUNTER("messages/received", MESSAGES_RECEIVED, "packets received, of any type"),
    FROM_COUNTER("messages/sent", MESSAGES_SENT, "packets sent, of any type"),
    FROM_NUMBER("messages/stored", stored_count, "an older name of store/messages/count"),
    FROM_NUMBER("store/messages/count", stored_count, "messages retained, queued and in flight"),
    FROM_NUMBER("store/messages/bytes", stored_bytes, "bytes of those"),
    FROM_TEXT("store/durability", durability, "what survives a restart: memory (nothing) or disk"),
    FROM_GAUGE("subscriptions/count", SUBSCRIPTIONS, "subscriptions"),
    FROM_NUMBER("shared_subscriptions/count", shared_count, "members of shared subscriptions"),
    FROM_NUMBER("retained messages/count", retained_count, "retained messages, these included"),
    FROM_COUNTER("publish/messages/received", PUBLISH_RECEIVED, "PUBLISH packets received"),
    FROM_COUNTER("publish/messages/sent", PUBLISH_SENT, "PUBLISH packets sent"),
    FROM_NUMBER("publish/messages/dropped", dropped, "messages dropped, for any reason"),
    FROM_COUNTER("publish/bytes/received", PUBLISH_BYTES_RECEIVED, "payload bytes received"),
    FROM_COUNTER("publish/bytes/sent", PUBLISH_BYTES_SENT, "payload bytes sent"),
    FROM_COUNTER("bytes/received", BYTES_RECEIVED, "bytes received"),
    FROM_COUNTER("bytes/sent", BYTES_SENT, "bytes sent"),
    FROM_NUMBER("heap/current", heap_current, "bytes allocated"),
    FROM_NUMBER("heap/maximum", heap_maximum, "the most bytes allocated at a time"),

    FROM_COUNTER("noctule/dropped/queue_full", DROPPED_QUEUE_FULL, "a session's queue was full"),
    FROM_COUNTER("noctule/dropped/output_full", DROPPED_OUTPUT_FULL,
                 "QoS 0 for a client that does not read"),
    FROM_COUNTER("noctule/dropped/memory", DROPPED_MEMORY, "memory_limit"),
    FROM_COUNTER("noctule/dropped/too_large", DROPPED_TOO_LARGE, "above a packet size"),
    FROM_COUNTER("noctule/dropped/no_member", DROPPED_NO_MEMBER, "a shared group without members"),
    FROM_COUNTER("noctule/dropped/expired", DROPPED_EXPIRED, "message expiry"),
    FROM_COUNTER("noctule/sockets/refused", SOCKETS_REFUSED, "connections closed at accept"),
    FROM_COUNTER("noctule/sockets/failed", ACCEPT_FAILED, "failures to accept: descriptors, memory"),
    FROM_COUNTER("noctule/connect/timeout", CONNECT_TIMEOUT, "connections without a CONNECT in time"),
    FROM_COUNTER("noctule/connect/refused", CONNECT_REFUSED, "CONNECTs answered with an error"),
    FROM_COUNTER("noctule/clients/taken_over", CLIENTS_TAKEN_OVER, "replaced by a newer connection"),
    FROM_COUNTER("noctule/clients/keepalive", KEEPALIVE_TIMEOUTS, "closed for silence"),
    FROM_COUNTER("noctule/clients/protocol_error", PROTOCOL_ERRORS, "closed for illegal packets"),
    FROM_COUNTER("noctule/clients/slow", SLOW_CONSUMERS_CLOSED, "closed as slowest at memory_limit"),
    FROM_COUNTER("noctule/publish/paused", PAUSED_MEMORY, "publishers held back: memory_limit"),
    FROM_COUNTER("noctule/wills/sent", WILLS_SENT, "wills published"),
    FROM_GAUGE("noctule/queued/messages", QUEUED_MESSAGES, "messages queued and in flight"),
    FROM_GAUGE("noctule/queued/bytes", QUEUED_BYTES, "bytes of those"),
    FROM_COUNTER("noctule/store/units", STORE_UNITS, "units handed to the store"),
};

/* With persistence only. */
static const struct row store_rows[] = {
    FROM_NUMBER("noctule/store/commits", store_commits, "commits to the journal"),
    FROM_NUMBER("noctule/store/records", store_records, "records in those"),
    FROM_NUMBER("noctule/store/messages", store_messages, "messages handed to the store"),
    FROM_NUMBER("noctule/store/oldest", store_oldest, "age of the oldest queued message, seconds"),
    FROM_TEXT("noctule/store/commit/records", records_per_commit, "records in a commit"),
    FROM_TEXT("noctule/store/commit/messages", messages_per_commit, "messages in a commit"),
    FROM_NUMBER("noctule/store/annihilated", store_annihilated, "gone before they were written"),
    FROM_NUMBER("noctule/store/pending", store_pending, "units waiting for their commit"),
    FROM_NUMBER("noctule/store/commit/p50_us", store_commit_p50, "half of the commits took less"),
    FROM_NUMBER("noctule/store/commit/p99_us", store_commit_p99, "99 of 100 commits took less"),
    FROM_NUMBER("noctule/store/journal/written", store_written, "bytes written to the journal"),
    FROM_NUMBER("noctule/store/journal/bytes", store_backlog_bytes, "bytes not folded yet"),
    FROM_NUMBER("noctule/store/journal/records", store_backlog_records, "records not folded yet"),
    FROM_NUMBER("noctule/store/folds", store_folds, "folds of the journal into the state"),
    FROM_NUMBER("noctule/store/fold/last_us", store_fold_us, "how long the last fold took"),
    FROM_NUMBER("noctule/store/lost", store_lost, "what a damaged store has lost at this start"),
    FROM_TEXT("noctule/store/health", store_health_text, "ok, full or failed"),
};

/* Each shown as three averages per minute, below TOPIC/1min and so on; COUNTER or NUMBER. */
static const struct row loads[] = {
    FROM_COUNTER("load/messages/received", MESSAGES_RECEIVED, "packets received, of any type"),
    FROM_COUNTER("load/messages/sent", MESSAGES_SENT, "packets sent, of any type"),
    FROM_NUMBER("load/publish/dropped", dropped, "messages dropped"),
    FROM_COUNTER("load/publish/received", PUBLISH_RECEIVED, "PUBLISH packets received"),
    FROM_COUNTER("load/publish/sent", PUBLISH_SENT, "PUBLISH packets sent"),
    FROM_COUNTER("load/bytes/received", BYTES_RECEIVED, "bytes received"),
    FROM_COUNTER("load/bytes/sent", BYTES_SENT, "bytes sent"),
    FROM_COUNTER("load/sockets", SOCKETS_OPENED, "connections accepted"),
    FROM_NUMBER("load/connections", connects, "CONNECT packets"),
};
/* clang-format on */

#define TOPICS                                                                                     \
    (HOW_MANY(rows) + HOW_MANY(store_rows) + HISTOGRAM_ROWS + HOW_MANY(loads) * LOAD_WINDOWS)

/* ---- a round ---- */

static void add_block(struct admin *a, const struct metrics *m)
{
    for (unsigned i = 0; i < METRIC_NR; i++) {
        a->sum[i] += metric_get(m, (enum metric)i);
    }
}

/* Below which so many of a hundred lie, between the bounds of its bucket by its place in it. */
static int64_t percentile(const uint64_t *counts, uint64_t total, unsigned percent)
{
    const double rank = (double)total * percent / 100;
    double seen = 0;

    for (unsigned i = 0; i < STORE_BUCKETS; i++) {
        const double n = (double)counts[i];
        if (n > 0 && seen + n >= rank) {
            return (int64_t)((double)(1ull << i) * (1 + (rank - seen) / n));
        }
        seen += n;
    }
    return 0;
}

static void read_store(struct admin *a)
{
    const struct store_stats was = a->store;
    uint64_t counts[STORE_BUCKETS];
    uint64_t total = 0;

    store_stats(a->env.shared->store, &a->store);
    for (unsigned i = 0; i < STORE_BUCKETS; i++) {
        counts[i] = a->store.commit_us[i] - a->commit_us[i];
        total += counts[i];
    }
    memcpy(a->commit_us, a->store.commit_us, sizeof(a->commit_us));
    if (total > 0) {
        a->commit_p50 = percentile(counts, total, 50);
        a->commit_p99 = percentile(counts, total, 99);
        a->commits = a->store.commits - was.commits;
        a->commit_records = a->store.records - was.records;
        a->commit_messages = a->store.ops[ST_BODY_PUT] - was.ops[ST_BODY_PUT];
    }
}

static void sum_up(struct admin *a)
{
    const struct broker_shared *b = a->env.shared;

    memset(a->sum, 0, sizeof(a->sum));
    for (unsigned i = 0; i < a->env.nacceptors; i++) {
        add_block(a, &a->env.acceptors[i]);
    }
    a->connects = a->sum[METRIC_MESSAGES_RECEIVED]; /* acceptors receive nothing else */
    for (unsigned i = 0; i < b->nshards; i++) {
        add_block(a, shard_metrics(b->shards[i]));
    }
    retained_stats(b->retained, &a->retained);
    if (store_keeps(b->store)) {
        read_store(a);
    }
}

static uint64_t value_of(const struct admin *a, const struct row *r)
{
    return r->kind == NUMBER ? (uint64_t)r->from.number(a) : a->sum[r->from.metric];
}

static void text_of(const struct admin *a, const struct row *r, char *text)
{
    switch (r->kind) {
    case COUNTER:
        snprintf(text, TEXT_MAX, "%" PRIu64, a->sum[r->from.metric]);
        break;
    case GAUGE:
    case NUMBER:
        snprintf(text, TEXT_MAX, "%" PRId64, (int64_t)value_of(a, r));
        break;
    case TEXT:
        r->from.text(a, text);
        break;
    }
}

static void publish(struct admin *a, struct shown *s, const char *topic, const char *text)
{
    struct message *m;

    if (strcmp(s->text, text) == 0) {
        return;
    }
    m = message_create(topic, strlen(topic), text, strlen(text), NULL, 0);
    if (m == NULL) {
        return;
    }
    m->retain = true;
    m->is_own = true;
    memcpy(s->text, text, TEXT_MAX);
    shard_publish(a->env.shared->shards[0], m);
}

static void publish_rows(struct admin *a, const struct row *r, size_t n, struct shown *s)
{
    for (size_t i = 0; i < n; i++) {
        char topic[TOPIC_MAX];
        char text[TEXT_MAX] = "";

        snprintf(topic, sizeof(topic), PREFIX "%s", r[i].topic);
        text_of(a, &r[i], text);
        publish(a, &s[i], topic, text);
    }
}

/* How many commits took less than so many us, ever; the last bucket has no upper bound. */
static void publish_histogram(struct admin *a)
{
    struct shown *s = a->shown + HOW_MANY(rows) + HOW_MANY(store_rows);
    uint64_t below = 0;

    for (unsigned i = 0; i < STORE_BUCKETS; i++) {
        char topic[TOPIC_MAX];
        char text[TEXT_MAX];

        below += a->store.commit_us[i];
        if (i + 1 < HISTOGRAM_FIRST) {
            continue;
        }
        if (i + 1 == STORE_BUCKETS) {
            snprintf(topic, sizeof(topic), PREFIX HISTOGRAM "all");
        } else {
            snprintf(topic, sizeof(topic), PREFIX HISTOGRAM "%llu", 2ull << i);
        }
        snprintf(text, sizeof(text), "%" PRIu64, below);
        publish(a, s++, topic, text);
    }
}

static void publish_loads(struct admin *a)
{
    struct shown *s = a->shown + HOW_MANY(rows) + HOW_MANY(store_rows) + HISTOGRAM_ROWS;

    for (size_t i = 0; i < HOW_MANY(loads); i++) {
        for (unsigned w = 0; w < LOAD_WINDOWS; w++) {
            char topic[TOPIC_MAX];
            char text[TEXT_MAX] = "";

            snprintf(topic, sizeof(topic), PREFIX "%s/%s", loads[i].topic, load_average_window(w));
            snprintf(text, sizeof(text), "%.2f", a->loads[i].per_minute[w]);
            publish(a, s++, topic, text);
        }
    }
}

/* The first round is too short to tell a rate: it shows zeros. */
static void update_loads(struct admin *a, int64_t now_ms)
{
    if (a->next_ms == 0) {
        return;
    }
    for (size_t i = 0; i < HOW_MANY(loads); i++) {
        load_average_update(&a->loads[i], value_of(a, &loads[i]),
                            (double)(now_ms - a->last_ms) / 1000.0);
    }
    a->last_ms = now_ms;
}

/* Looked at between rounds, too: a peak may be short. */
static void note_peaks(struct admin *a, uint64_t in_use)
{
    const struct broker_shared *b = a->env.shared;
    uint64_t connected = 0;

    for (unsigned i = 0; i < b->nshards; i++) {
        connected += metric_get(shard_metrics(b->shards[i]), METRIC_CLIENTS_CONNECTED);
    }
    if ((int64_t)connected > a->clients_max) {
        a->clients_max = (int64_t)connected;
    }
    a->heap = in_use;
    if (in_use > a->heap_max) {
        a->heap_max = in_use;
    }
}

void admin_run(struct admin *a, uint64_t in_use)
{
    const struct config *cfg =
        atomic_load_explicit(&a->env.shared->config, memory_order_acquire); /* setup_reload()'s */
    int64_t now_ms = clock_now_ms(a->env.shared->clock);
    int64_t interval_ms = (int64_t)cfg->sys_interval * 1000;

    note_peaks(a, in_use);
    if (interval_ms == 0) {
        return;
    }
    if (a->next_ms > now_ms + interval_ms) { /* a reload made it shorter */
        a->next_ms = now_ms + interval_ms;
    }
    if (now_ms < a->next_ms) {
        return;
    }
    sum_up(a);
    update_loads(a, now_ms);
    publish_rows(a, rows, HOW_MANY(rows), a->shown);
    if (store_keeps(a->env.shared->store)) {
        publish_rows(a, store_rows, HOW_MANY(store_rows), a->shown + HOW_MANY(rows));
        publish_histogram(a);
    }
    publish_loads(a);
    a->next_ms = now_ms + interval_ms;
}

/* ---- life ---- */

struct admin *admin_create(const struct admin_env *env)
{
    struct admin *a = calloc(1, sizeof(*a));

    if (a == NULL) {
        return NULL;
    }
    a->env = *env;
    a->start_ms = clock_now_ms(env->shared->clock);
    a->last_ms = a->start_ms;
    a->loads = calloc(HOW_MANY(loads), sizeof(*a->loads));
    a->shown = calloc(TOPICS, sizeof(*a->shown));
    if (a->loads == NULL || a->shown == NULL) {
        admin_destroy(a);
        return NULL;
    }
    return a;
}

void admin_destroy(struct admin *a)
{
    if (a != NULL) {
        free(a->loads);
        free(a->shown);
        free(a);
    }
}
