/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/store_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SESSIONS 10
#define FILTERS  6
#define IDS      12
#define TOPICS   6
#define MARKER   "marker"

struct entry {
    uint64_t seq, body;
    uint32_t number;
    uint16_t packet_id;
    uint8_t flags, step;
};

struct session {
    uint64_t id; /* 0: none */
    uint32_t expiry;
    struct {
        bool there;
        uint8_t flags;
        uint32_t number;
    } subs[FILTERS];
    bool inbound[IDS];
    uint64_t will; /* content; 0: none */
    struct entry *v;
    uint32_t n, cap;
    uint64_t next_seq;
};

struct world {
    struct session s[SESSIONS];
    struct {
        bool there;
        uint64_t seq;
    } retained[TOPICS];
    uint64_t marker;
};

struct model {
    uint64_t rng;
    uint64_t next_id;
    struct world now; /* after all units made */
    struct model_unit **units;
    uint32_t n, cap;
    _Atomic uint32_t acked, answered, failed;
    uint32_t waited; /* units whose answers model_wait() counts from */
    void (*on_ack)(void *arg, uint32_t index);
    void *on_ack_arg;
    uint64_t ended[8]; /* ids of sessions that were ended */
    uint32_t nended;
};

static uint64_t roll(struct model *m, uint64_t below)
{
    uint64_t z = (m->rng += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static void need(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "model: %s\n", what);
        abort();
    }
}

struct store_bytes model_bytes(uint64_t id, char *buf, size_t cap)
{
    /* Now and then larger than a piece, and than two, and around what goes with an entry. */
    const size_t n = id % 17 == 0   ? 5000
                     : id % 7 == 0  ? 2100
                     : id % 11 == 0 ? 1900 + id % 64
                                    : 10 + id % 90;

    need(n <= cap, "a small buffer");
    for (size_t i = 0; i < n; i++) {
        buf[i] = (char)('a' + (id + i * (id | 1)) % 26);
    }
    return (struct store_bytes){buf, n};
}

/* ---- the world ---- */

static struct session *find(struct world *w, uint64_t id)
{
    for (unsigned i = 0; i < SESSIONS; i++) {
        if (w->s[i].id == id) {
            return &w->s[i];
        }
    }
    return NULL;
}

static unsigned trailing_number(struct store_bytes b)
{
    unsigned v = 0;

    for (size_t i = 0; i < b.n; i++) {
        const char c = ((const char *)b.p)[i];
        v = c >= '0' && c <= '9' ? v * 10 + (unsigned)(c - '0') : 0;
    }
    return v;
}

static struct entry *entry_find(struct session *s, uint64_t seq)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->v[i].seq == seq) {
            return &s->v[i];
        }
    }
    return NULL;
}

static struct entry *entry_add(struct session *s, uint64_t seq)
{
    uint32_t i = s->n;

    if (s->n == s->cap) {
        s->cap = s->cap == 0 ? 16 : s->cap * 2;
        s->v = realloc(s->v, s->cap * sizeof(*s->v));
        need(s->v != NULL, "no memory");
    }
    for (; i > 0 && s->v[i - 1].seq > seq; i--) {
        s->v[i] = s->v[i - 1];
    }
    s->n++;
    s->v[i] = (struct entry){.seq = seq};
    return &s->v[i];
}

static void session_clear(struct session *s)
{
    struct entry *v = s->v;
    const uint32_t cap = s->cap;

    *s = (struct session){.v = v, .cap = cap};
}

static void apply_retained(struct world *w, const struct store_op *op)
{
    if (op->name.n == strlen(MARKER) && memcmp(op->name.p, MARKER, op->name.n) == 0) {
        w->marker = op->seq;
        return;
    }
    w->retained[trailing_number(op->name)].there = op->kind == ST_RETAINED_PUT;
    w->retained[trailing_number(op->name)].seq = op->seq;
}

static void apply_entry(struct session *s, const struct store_op *op)
{
    struct entry *e = entry_find(s, op->seq);

    if (op->kind == ST_ENTRY_PUT) {
        e = entry_add(s, op->seq);
        e->body = op->body;
        e->number = op->number;
        e->packet_id = op->packet_id;
        e->flags = op->flags;
    } else if (op->kind == ST_ENTRY_STEP && e != NULL) {
        e->packet_id = op->packet_id;
        e->step = op->flags;
    } else if (op->kind == ST_ENTRY_DEL && e != NULL) {
        memmove(e, e + 1, (size_t)(s->v + s->n - (e + 1)) * sizeof(*e));
        s->n--;
    }
}

static void apply(struct world *w, const struct store_op *op)
{
    struct session *s = op->session == 0 ? NULL : find(w, op->session);

    if (op->kind == ST_RETAINED_PUT || op->kind == ST_RETAINED_DEL) {
        apply_retained(w, op);
        return;
    }
    if (op->kind == ST_SESSION_PUT) {
        s = s == NULL ? find(w, 0) : s;
        need(s != NULL, "no room for a session");
        s->id = op->session;
        s->expiry = op->number;
    }
    if (s == NULL) {
        return; /* of a body, or of a session that is no more */
    }
    switch (op->kind) {
    case ST_SESSION_END:
        session_clear(s);
        break;
    case ST_SUB_PUT:
    case ST_SUB_DEL:
        s->subs[trailing_number(op->name)].there = op->kind == ST_SUB_PUT;
        s->subs[trailing_number(op->name)].flags = op->flags;
        s->subs[trailing_number(op->name)].number = op->number;
        break;
    case ST_INBOUND_PUT:
    case ST_INBOUND_DEL:
        s->inbound[op->packet_id] = op->kind == ST_INBOUND_PUT;
        break;
    case ST_WILL_PUT:
        s->will = op->number;
        break;
    case ST_WILL_DEL:
        s->will = 0;
        break;
    default:
        apply_entry(s, op);
        break;
    }
}

static void world_fini(struct world *w)
{
    for (unsigned i = 0; i < SESSIONS; i++) {
        free(w->s[i].v);
    }
    *w = (struct world){0};
}

/* ---- units ---- */

struct model *model_create(uint64_t seed)
{
    struct model *m = calloc(1, sizeof(*m));

    need(m != NULL, "no memory");
    m->rng = seed;
    m->next_id = 1;
    return m;
}

void model_destroy(struct model *m)
{
    for (uint32_t i = 0; i < m->n; i++) {
        free(m->units[i]);
    }
    free(m->units);
    world_fini(&m->now);
    free(m);
}

static void done(struct store_unit *u, enum store_rc rc)
{
    struct model_unit *mu = (struct model_unit *)u;
    struct model *m = mu->model;

    if (rc == ST_OK) {
        if (m->on_ack != NULL) {
            m->on_ack(m->on_ack_arg, mu->index);
        }
        need(atomic_load(&m->failed) > 0 || atomic_load(&m->acked) + 1 == mu->index,
             "answers are out of order");
        atomic_store(&m->acked, mu->index);
    } else {
        atomic_fetch_add(&m->failed, 1);
    }
    atomic_fetch_add(&m->answered, 1);
}

static struct store_op *add(struct model_unit *u, enum store_op_kind kind, uint64_t session)
{
    struct store_op *op = &u->ops[u->unit.nops++];

    need(u->unit.nops <= 16, "a unit with too many operations");
    *op = (struct store_op){.kind = kind, .session = session};
    return op;
}

static struct store_bytes text(struct model_unit *u, const char *what, uint64_t i)
{
    char *p = u->memory + u->used;
    int n = snprintf(p, sizeof(u->memory) - u->used, "%s%llu", what, (unsigned long long)i);

    u->used += (size_t)n;
    return (struct store_bytes){p, (size_t)n};
}

static struct store_bytes content(struct model_unit *u, uint64_t id)
{
    struct store_bytes b = model_bytes(id, u->memory + u->used, sizeof(u->memory) - u->used);

    u->used += b.n;
    return b;
}

static struct session *any_session(struct model *m)
{
    struct session *s = &m->now.s[roll(m, SESSIONS)];

    return s->id == 0 ? NULL : s;
}

static void make_publish(struct model *m, struct model_unit *u)
{
    const uint64_t body = m->next_id++;
    struct store_op *op = add(u, ST_BODY_PUT, 0);
    const unsigned first = (unsigned)roll(m, SESSIONS);
    const unsigned n = (unsigned)roll(m, 4) + 1;

    op->body = body;
    op->name = text(u, "topic/", body % 5);
    op->data = content(u, body);
    for (unsigned i = 0; i < n; i++) {
        struct session *s = &m->now.s[(first + i) % SESSIONS];
        if (s->id == 0) {
            continue;
        }
        op = add(u, ST_ENTRY_PUT, s->id);
        op->seq = ++s->next_seq;
        op->body = body;
        op->flags = (uint8_t)(body & 7);
        op->number = (uint32_t)(body % 1000);
        op->packet_id = body % 3 == 0 ? (uint16_t)(op->seq & 0xffff) : 0;
    }
    if (m->nended > 0 && roll(m, 4) == 0) { /* came behind the end of its session */
        op = add(u, ST_ENTRY_PUT, m->ended[roll(m, m->nended)]);
        op->seq = 1000000 + body;
        op->body = body;
    }
}

static void make_removal(struct model *m, struct model_unit *u)
{
    struct session *s = any_session(m);
    const unsigned n = (unsigned)roll(m, 5) + 1;

    for (unsigned i = 0; s != NULL && i < n && i < s->n; i++) {
        const uint32_t at = roll(m, 4) == 0 ? (uint32_t)roll(m, s->n) : i;
        add(u, ST_ENTRY_DEL, s->id)->seq = s->v[at].seq;
    }
}

static void make_step(struct model *m, struct model_unit *u)
{
    struct session *s = any_session(m);
    struct store_op *op;

    if (s != NULL && s->n > 0) {
        op = add(u, ST_ENTRY_STEP, s->id);
        op->seq = s->v[roll(m, s->n)].seq;
        op->packet_id = (uint16_t)(roll(m, 60000) + 1);
        op->flags = (uint8_t)roll(m, 2);
    }
}

static void make_session(struct model *m, struct model_unit *u)
{
    const unsigned i = (unsigned)roll(m, SESSIONS);
    struct session *s = &m->now.s[i];
    struct store_op *op;

    if (s->id != 0 && roll(m, 3) == 0) {
        op = add(u, ST_SESSION_PUT, s->id); /* a new expiry */
        op->name = text(u, "client", s->id);
        op->number = (uint32_t)roll(m, 1000);
        return;
    }
    if (s->id != 0) {
        add(u, ST_SESSION_END, s->id);
        m->ended[m->nended < 8 ? m->nended++ : roll(m, 8)] = s->id;
    }
    op = add(u, ST_SESSION_PUT, m->next_id++);
    op->name = text(u, "client", op->session);
    op->number = (uint32_t)roll(m, 1000);
}

static void make_small(struct model *m, struct model_unit *u, unsigned what)
{
    struct session *s = any_session(m);
    const bool put = roll(m, 2) == 0;
    struct store_op *op;

    if (s == NULL) {
        return;
    }
    if (what == 0) {
        op = add(u, put ? ST_SUB_PUT : ST_SUB_DEL, s->id);
        op->name = text(u, "filter/+/", roll(m, FILTERS));
        op->flags = (uint8_t)roll(m, 64);
        op->number = (uint32_t)roll(m, 100);
    } else if (what == 1) {
        op = add(u, put ? ST_INBOUND_PUT : ST_INBOUND_DEL, s->id);
        op->packet_id = (uint16_t)roll(m, IDS);
    } else {
        op = add(u, put ? ST_WILL_PUT : ST_WILL_DEL, s->id);
        op->name = text(u, "will/", s->id);
        op->number = (uint32_t)roll(m, 1000) + 1;
        op->data = content(u, op->number);
    }
}

static void make_retained(struct model *m, struct model_unit *u)
{
    struct store_op *op = add(u, roll(m, 3) == 0 ? ST_RETAINED_DEL : ST_RETAINED_PUT, 0);

    op->name = text(u, "retained/", roll(m, TOPICS));
    op->seq = m->next_id++;
    op->data = content(u, op->seq);
}

struct model_unit *model_next(struct model *m)
{
    struct model_unit *u = calloc(1, sizeof(*u));
    const uint64_t what = roll(m, 100);

    need(u != NULL, "no memory");
    if (m->n == m->cap) {
        m->cap = m->cap == 0 ? 256 : m->cap * 2;
        m->units = realloc(m->units, m->cap * sizeof(*m->units));
        need(m->units != NULL, "no memory");
    }
    m->units[m->n++] = u;
    u->unit.done = done;
    u->unit.ops = u->ops;
    u->model = m;
    u->index = m->n;
    if (what < 40) {
        make_publish(m, u);
    } else if (what < 66) {
        make_removal(m, u);
    } else if (what < 74) {
        make_step(m, u);
    } else if (what < 82) {
        make_session(m, u);
    } else if (what < 95) {
        make_small(m, u, (unsigned)roll(m, 3));
    } else {
        make_retained(m, u);
    }
    u->marked = roll(m, 10) < 7;
    if (u->marked) {
        struct store_op *op = add(u, ST_RETAINED_PUT, 0);
        op->name = (struct store_bytes){MARKER, strlen(MARKER)};
        op->seq = u->index;
    }
    for (uint32_t i = 0; i < u->unit.nops; i++) {
        apply(&m->now, &u->ops[i]);
    }
    return u;
}

uint32_t model_acked(const struct model *m)
{
    return atomic_load(&m->acked);
}

uint32_t model_made(const struct model *m)
{
    return m->n;
}

uint32_t model_failed(const struct model *m)
{
    return atomic_load(&m->failed);
}

void model_on_ack(struct model *m, void (*fn)(void *arg, uint32_t index), void *arg)
{
    m->on_ack = fn;
    m->on_ack_arg = arg;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}

void model_wait(struct model *m)
{
    while (atomic_load(&m->answered) < m->waited) {
        nap();
    }
}

void model_run(struct model *m, struct store *s, uint32_t n, uint32_t flight)
{
    for (uint32_t i = 0; i < n; i++) {
        struct model_unit *u = model_next(m);

        while (m->waited - atomic_load(&m->answered) >= flight) {
            nap();
        }
        m->waited++;
        if (store_submit(s, &u->unit) != ST_OK) {
            need(false, "submit");
        }
    }
    model_wait(m);
}

void model_cut(struct model *m, uint32_t n)
{
    const uint64_t next_id = m->next_id;

    world_fini(&m->now);
    for (uint32_t i = n; i < m->n; i++) {
        free(m->units[i]);
    }
    m->n = n;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < m->units[i]->unit.nops; k++) {
            const struct store_op *op = &m->units[i]->ops[k];
            struct session *s;
            apply(&m->now, op);
            s = op->kind == ST_ENTRY_PUT ? find(&m->now, op->session) : NULL;
            if (s != NULL && s->next_seq < op->seq) {
                s->next_seq = op->seq;
            }
        }
    }
    m->next_id = next_id;
    atomic_store(&m->acked, n);
    atomic_store(&m->failed, 0);
    m->waited = atomic_load(&m->answered);
}

/* ---- comparison ---- */

struct seen {
    struct world w;
    bool bad;
    char why[256];
};

#define WRONG(s, ...)                                                                              \
    do {                                                                                           \
        if (!(s)->bad) {                                                                           \
            (s)->bad = true;                                                                       \
            snprintf((s)->why, sizeof((s)->why), __VA_ARGS__);                                     \
        }                                                                                          \
    } while (0)

static bool on_session(void *arg, const struct store_session *ss)
{
    struct seen *seen = arg;
    struct session *s = find(&seen->w, 0);

    if (s == NULL) {
        WRONG(seen, "too many sessions");
        return true;
    }
    s->id = ss->session;
    s->expiry = ss->expiry_s;
    s->next_seq = ss->next_seq;
    s->cap = 0;
    if (trailing_number(ss->client_id) != ss->session) {
        WRONG(seen, "session %llu: another client's", (unsigned long long)ss->session);
    }
    s->n = (uint32_t)ss->count;
    if (ss->count > 0 && ss->first_seq >= ss->next_seq) {
        WRONG(seen, "session %llu: first seq", (unsigned long long)ss->session);
    }
    return true;
}

static void seen_op(struct seen *seen, struct store_op op)
{
    if (op.session != 0 && find(&seen->w, op.session) == NULL) {
        WRONG(seen, "something of session %llu, which is not there",
              (unsigned long long)op.session);
        return;
    }
    apply(&seen->w, &op);
}

static bool on_sub(void *arg, uint64_t session, struct store_bytes filter, uint8_t flags,
                   uint32_t sub_id)
{
    seen_op(arg, (struct store_op){.kind = ST_SUB_PUT,
                                   .session = session,
                                   .name = filter,
                                   .flags = flags,
                                   .number = sub_id});
    return true;
}

static bool on_inbound(void *arg, uint64_t session, uint16_t packet_id)
{
    seen_op(arg,
            (struct store_op){.kind = ST_INBOUND_PUT, .session = session, .packet_id = packet_id});
    return true;
}

static bool right_bytes(struct store_bytes b, uint64_t id)
{
    char buf[8192];
    const struct store_bytes want = model_bytes(id, buf, sizeof(buf));

    return b.n == want.n && memcmp(b.p, want.p, b.n) == 0;
}

static bool on_will(void *arg, const struct store_op *will)
{
    if (!right_bytes(will->data, will->number)) {
        WRONG((struct seen *)arg, "a will's payload");
    }
    seen_op(arg, *will);
    return true;
}

static bool on_retained(void *arg, const struct store_op *retained)
{
    if (retained->data.n > 0 && !right_bytes(retained->data, retained->seq)) {
        WRONG((struct seen *)arg, "a retained payload");
    }
    seen_op(arg, *retained);
    return true;
}

static void page_done(struct store_page *p)
{
    atomic_store((_Atomic bool *)(void *)((char *)p + sizeof(*p)), true);
}

struct page_wait {
    struct store_page page;
    _Atomic bool done;
};

static void compare_entry(struct seen *seen, const struct entry *want,
                          const struct store_entry *got, uint64_t session)
{
    if (want->seq != got->seq || want->body != got->body || want->number != got->number ||
        want->packet_id != got->packet_id || want->flags != got->flags || want->step != got->step) {
        WRONG(seen, "session %llu: entry %llu instead of %llu, or its fields",
              (unsigned long long)session, (unsigned long long)got->seq,
              (unsigned long long)want->seq);
    }
    if (!right_bytes(got->data, got->body)) {
        WRONG(seen, "session %llu: payload of entry %llu", (unsigned long long)session,
              (unsigned long long)got->seq);
    }
}

static void compare_queue(struct seen *seen, const struct session *want, struct store *s)
{
    uint64_t from = 0;
    uint32_t at = 0;
    bool more = true;

    while (more && !seen->bad) {
        struct page_wait w = {.page = {.done = page_done,
                                       .session = want->id,
                                       .from_seq = from,
                                       .max_entries = 7,
                                       .max_bytes = 3000}};
        if (store_read(s, &w.page) != ST_OK) {
            WRONG(seen, "read refused");
            return;
        }
        while (!atomic_load(&w.done)) {
            nap();
        }
        if (w.page.rc != ST_OK) {
            WRONG(seen, "read: %d", (int)w.page.rc);
        }
        for (uint32_t i = 0; i < w.page.n && !seen->bad; i++, at++) {
            if (at >= want->n) {
                WRONG(seen, "session %llu: entry %llu too many", (unsigned long long)want->id,
                      (unsigned long long)w.page.entries[i].seq);
                break;
            }
            compare_entry(seen, &want->v[at], &w.page.entries[i], want->id);
            from = w.page.entries[i].seq + 1;
        }
        more = w.page.more;
        if (more && w.page.n == 0) {
            WRONG(seen, "an empty page with more behind it");
        }
        store_page_free(&w.page);
    }
    if (at != want->n) {
        WRONG(seen, "session %llu: %u entries instead of %u", (unsigned long long)want->id, at,
              want->n);
    }
}

static void compare_session(struct seen *seen, const struct session *want, bool loaded)
{
    const struct session *got = find(&seen->w, want->id);

    if (got == NULL) {
        WRONG(seen, "session %llu is missing", (unsigned long long)want->id);
        return;
    }
    if (got->expiry != want->expiry || got->will != want->will) {
        WRONG(seen, "session %llu: expiry or will", (unsigned long long)want->id);
    }
    for (unsigned i = 0; i < FILTERS; i++) {
        if (got->subs[i].there != want->subs[i].there ||
            (got->subs[i].there && (got->subs[i].flags != want->subs[i].flags ||
                                    got->subs[i].number != want->subs[i].number))) {
            WRONG(seen, "session %llu: subscription %u", (unsigned long long)want->id, i);
        }
    }
    for (unsigned i = 0; i < IDS; i++) {
        if (got->inbound[i] != want->inbound[i]) {
            WRONG(seen, "session %llu: QoS 2 id %u", (unsigned long long)want->id, i);
        }
    }
    if (loaded && got->n != want->n) {
        WRONG(seen, "session %llu: counts %u entries instead of %u", (unsigned long long)want->id,
              got->n, want->n);
    }
    if (loaded && want->n > 0 && got->next_seq <= want->v[want->n - 1].seq) {
        WRONG(seen, "session %llu: next seq", (unsigned long long)want->id);
    }
}

static void compare(struct seen *seen, const struct world *want, struct store *s)
{
    for (unsigned i = 0; i < SESSIONS && !seen->bad; i++) {
        if (want->s[i].id != 0) {
            compare_session(seen, &want->s[i], true);
            compare_queue(seen, &want->s[i], s);
        }
        if (seen->w.s[i].id != 0 &&
            find((struct world *)(uintptr_t)want, seen->w.s[i].id) == NULL) {
            WRONG(seen, "session %llu should not be there", (unsigned long long)seen->w.s[i].id);
        }
    }
    for (unsigned i = 0; i < TOPICS && !seen->bad; i++) {
        if (seen->w.retained[i].there != want->retained[i].there ||
            (want->retained[i].there && seen->w.retained[i].seq != want->retained[i].seq)) {
            WRONG(seen, "retained message %u", i);
        }
    }
}

bool model_check_queues(struct model *m, struct store *s)
{
    struct seen seen = {0};

    for (unsigned i = 0; i < SESSIONS && !seen.bad; i++) {
        if (m->now.s[i].id != 0) {
            compare_queue(&seen, &m->now.s[i], s);
        }
    }
    if (seen.bad) {
        fprintf(stderr, "model: %s\n", seen.why);
    }
    return !seen.bad;
}

int64_t model_check(struct model *m, struct store *s, uint32_t lo, uint32_t hi)
{
    const struct store_load l = {.session = on_session,
                                 .sub = on_sub,
                                 .inbound = on_inbound,
                                 .will = on_will,
                                 .retained = on_retained};
    struct seen seen = {0};
    struct store_load mine = l;
    struct world w = {0};
    int64_t found = -1;

    mine.arg = &seen;
    if (store_load(s, &mine) != ST_OK) {
        WRONG(&seen, "load");
    }
    if (seen.bad) {
        fprintf(stderr, "model: %s\n", seen.why);
        return -1;
    }
    /* From the last marker on, units without one may or may not be there. */
    for (uint32_t k = 0; k <= hi && k <= m->n && found < 0; k++) {
        if (k > 0) {
            for (uint32_t i = 0; i < m->units[k - 1]->unit.nops; i++) {
                apply(&w, &m->units[k - 1]->ops[i]);
            }
        }
        if (k < lo || w.marker != seen.w.marker) {
            continue;
        }
        seen.bad = false;
        compare(&seen, &w, s);
        found = seen.bad ? -1 : (int64_t)k;
    }
    if (found < 0) {
        fprintf(stderr, "model: marker %llu, expected %u to %u: %s\n",
                (unsigned long long)seen.w.marker, lo, hi, seen.bad ? seen.why : "no such prefix");
    }
    for (unsigned i = 0; i < SESSIONS; i++) {
        seen.w.s[i].v = NULL;
    }
    world_fini(&w);
    return found;
}
