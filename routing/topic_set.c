/* SPDX-License-Identifier: Apache-2.0 */
#include "routing/topic_set.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct topic_sep {
    uint16_t n;
    char text[];
};

static_assert(sizeof(struct topic_leaf) <= 640, "a leaf should fill a size class");

/* ---- order ---- */

/* The length of what a and b begin with alike. */
static size_t common(const char *a, const char *b, size_t n)
{
    size_t i = 0;
    uint64_t x;
    uint64_t y;

    for (; i + sizeof(x) <= n; i += sizeof(x)) {
        memcpy(&x, a + i, sizeof(x));
        memcpy(&y, b + i, sizeof(y));
        if (x != y) {
            break; /* the bytes say where, whatever the byte order */
        }
    }
    while (i < n && a[i] == b[i]) {
        i++;
    }
    return i;
}

/* '/' below everything. */
static int rank(char c)
{
    return c == '/' ? -1 : (unsigned char)c;
}

int topic_compare(const char *a, size_t an, const char *b, size_t bn)
{
    size_t min = an < bn ? an : bn;
    size_t same = common(a, b, min);

    if (same < min) {
        return rank(a[same]) - rank(b[same]);
    }
    return (an > bn) - (an < bn);
}

int topic_key_compare(const struct topic_key *k, const char *t, size_t n)
{
    size_t first = n < k->an ? n : k->an;
    int c = topic_compare(k->a, k->an, t, first);

    return c != 0 ? c : topic_compare(k->b, k->bn, t + first, n - first);
}

/* ---- directory ---- */

/* The leaf where a text belongs: the last one whose separator is not above it. */
static uint32_t leaf_of(const struct topic_set *s, const struct topic_key *k)
{
    uint32_t lo = 0;
    uint32_t hi = s->n;

    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct topic_sep *sep = s->dir[mid].sep;

        if (topic_key_compare(k, sep->text, sep->n) < 0) {
            hi = mid;
        } else {
            lo = mid;
        }
    }
    return lo;
}

static struct topic_key whole(const char *topic, size_t n)
{
    return (struct topic_key){topic, "", n, 0};
}

static uint32_t place_in(const struct topic_leaf *l, const struct topic_key *k)
{
    uint32_t lo = 0;
    uint32_t hi = l->n;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct message *m = l->messages[mid];

        if (topic_key_compare(k, message_topic(m), m->topic_n) <= 0) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return lo;
}

static size_t sep_bytes(const struct topic_sep *sep)
{
    return sep == NULL ? 0 : sizeof(*sep) + sep->n;
}

/* The shortest text above `left` and not above `right`. */
static struct topic_sep *sep_create(const struct message *left, const struct message *right)
{
    size_t min = left->topic_n < right->topic_n ? left->topic_n : right->topic_n;
    size_t n = common(message_topic(left), message_topic(right), min) + 1;
    struct topic_sep *sep = malloc(sizeof(*sep) + n);

    if (sep != NULL) {
        sep->n =
            (uint16_t)n; /* at most right's length: right is above left, so it does not end first */
        memcpy(sep->text, message_topic(right), n);
    }
    return sep;
}

/* Room for one more entry. */
static bool reserve(struct topic_set *s)
{
    uint32_t cap = s->cap == 0 ? 1 : s->cap < 8 ? s->cap * 2 : s->cap + s->cap / 4;
    struct topic_dir_entry *dir;

    if (s->n < s->cap) {
        return true;
    }
    dir = realloc(s->dir, cap * sizeof(*dir));
    if (dir == NULL) {
        return false;
    }
    s->bytes += (cap - s->cap) * sizeof(*dir);
    s->dir = dir;
    s->cap = cap;
    return true;
}

static struct topic_leaf *leaf_create(void)
{
    struct topic_leaf *l = malloc(sizeof(*l));

    if (l != NULL) {
        l->n = 0;
        l->soonest_ms = INT64_MAX;
    }
    return l;
}

/* There is room; sep and l become the set's. */
static void dir_insert(struct topic_set *s, uint32_t at, struct topic_sep *sep,
                       struct topic_leaf *l)
{
    memmove(&s->dir[at + 1], &s->dir[at], (s->n - at) * sizeof(*s->dir));
    s->dir[at] = (struct topic_dir_entry){sep, l};
    s->n++;
    s->bytes += sizeof(*l) + sep_bytes(sep);
}

static void dir_remove(struct topic_set *s, uint32_t at)
{
    s->bytes -= sizeof(struct topic_leaf) + sep_bytes(s->dir[at].sep);
    free(s->dir[at].leaf);
    free(s->dir[at].sep);
    s->n--;
    memmove(&s->dir[at], &s->dir[at + 1], (s->n - at) * sizeof(*s->dir));
    if (at == 0 && s->n > 0) { /* the first leaf takes everything below it */
        s->bytes -= sep_bytes(s->dir[0].sep);
        free(s->dir[0].sep);
        s->dir[0].sep = NULL;
    }
}

void topic_set_fini(struct topic_set *s)
{
    for (uint32_t i = 0; i < s->n; i++) {
        free(s->dir[i].leaf);
        free(s->dir[i].sep);
    }
    free(s->dir);
    *s = (struct topic_set){0};
}

/* ---- leaves ---- */

static uint8_t print_of(uint64_t hash)
{
    return (uint8_t)(hash >> 56);
}

/* How entries move when [at, at + n) of `from` go to `to`'s place `into`. */
static void move_entries(struct topic_leaf *to, uint32_t into, const struct topic_leaf *from,
                         uint32_t at, uint32_t n)
{
    memmove(&to->messages[into], &from->messages[at], n * sizeof(to->messages[0]));
    memmove(&to->prints[into], &from->prints[at], n);
}

static void note_expiry(struct topic_leaf *l, const struct message *m)
{
    if (m->expires_ms != 0 && m->expires_ms < l->soonest_ms) {
        l->soonest_ms = m->expires_ms;
    }
}

static void leaf_insert(struct topic_leaf *l, uint32_t at, uint8_t print, struct message *m)
{
    move_entries(l, at + 1, l, at, l->n - at);
    l->messages[at] = m;
    l->prints[at] = print;
    l->n++;
    note_expiry(l, m);
}

static void leaf_remove(struct topic_leaf *l, uint32_t at)
{
    l->n--;
    move_entries(l, at, l, at + 1, l->n - at);
}

/*
 * Parts leaf i in two. Topics that come in ascending order leave full leaves behind: an insertion
 * at the very end begins a new leaf with the last entry alone.
 */
static bool split(struct topic_set *s, uint32_t i, bool at_end)
{
    struct topic_leaf *l = s->dir[i].leaf;
    uint32_t keep = at_end ? l->n - 1u : l->n / 2u;
    struct topic_sep *sep = sep_create(l->messages[keep - 1], l->messages[keep]);
    struct topic_leaf *right = leaf_create();

    if (sep == NULL || right == NULL || !reserve(s)) {
        free(sep);
        free(right);
        return false;
    }
    right->n = (uint16_t)(l->n - keep);
    right->soonest_ms = l->soonest_ms;
    move_entries(right, 0, l, keep, right->n);
    l->n = (uint16_t)keep;
    dir_insert(s, i + 1, sep, right);
    return true;
}

static bool add_first_leaf(struct topic_set *s)
{
    struct topic_leaf *l = leaf_create();

    if (l == NULL || !reserve(s)) {
        free(l);
        return false;
    }
    dir_insert(s, 0, NULL, l);
    return true;
}

/* Joins leaf i with its right neighbour if both are nearly empty together. */
static bool try_join(struct topic_set *s, uint32_t i)
{
    struct topic_leaf *l = s->dir[i].leaf;
    struct topic_leaf *right;

    if (i + 1 >= s->n) {
        return false;
    }
    right = s->dir[i + 1].leaf;
    if (l->n + right->n > TOPIC_LEAF / 2) {
        return false;
    }
    move_entries(l, l->n, right, 0, right->n);
    l->n = (uint16_t)(l->n + right->n);
    if (right->soonest_ms < l->soonest_ms) {
        l->soonest_ms = right->soonest_ms;
    }
    dir_remove(s, i + 1);
    return true;
}

/* After removals from leaf i. */
static void tidy(struct topic_set *s, uint32_t i)
{
    if (s->dir[i].leaf->n == 0) {
        dir_remove(s, i);
    } else if (!try_join(s, i) && i > 0) {
        (void)try_join(s, i - 1);
    }
}

/* ---- entries ---- */

/* The entry's place in the leaf, or l->n. */
static uint32_t find_in(const struct topic_leaf *l, uint8_t print, const char *topic, size_t n)
{
    const uint8_t *p = l->prints;
    const uint8_t *end = l->prints + l->n;

    while ((p = memchr(p, print, (size_t)(end - p))) != NULL) {
        const struct message *m = l->messages[p - l->prints];

        if (m->topic_n == n && memcmp(message_topic(m), topic, n) == 0) {
            return (uint32_t)(p - l->prints);
        }
        p++;
    }
    return l->n;
}

struct message *topic_set_find(const struct topic_set *s, uint64_t hash, const char *topic,
                               size_t n, struct topic_pos *p)
{
    struct topic_key k = whole(topic, n);
    const struct topic_leaf *l;

    if (s->n == 0) {
        return NULL;
    }
    p->leaf = leaf_of(s, &k);
    l = s->dir[p->leaf].leaf;
    p->at = find_in(l, print_of(hash), topic, n);
    return p->at == l->n ? NULL : l->messages[p->at];
}

bool topic_set_add(struct topic_set *s, uint64_t hash, struct message *m)
{
    struct topic_key k = whole(message_topic(m), m->topic_n);
    uint32_t i;
    uint32_t at;

    if (s->n == 0 && !add_first_leaf(s)) {
        return false;
    }
    i = leaf_of(s, &k);
    at = place_in(s->dir[i].leaf, &k);
    if (s->dir[i].leaf->n == TOPIC_LEAF) {
        if (!split(s, i, i + 1 == s->n && at == TOPIC_LEAF)) {
            return false;
        }
        i = leaf_of(s, &k);
        at = place_in(s->dir[i].leaf, &k);
    }
    leaf_insert(s->dir[i].leaf, at, print_of(hash), m);
    return true;
}

void topic_set_replace(struct topic_set *s, struct topic_pos p, struct message *m)
{
    s->dir[p.leaf].leaf->messages[p.at] = m;
    note_expiry(s->dir[p.leaf].leaf, m);
}

void topic_set_remove(struct topic_set *s, struct topic_pos p)
{
    leaf_remove(s->dir[p.leaf].leaf, p.at);
    tidy(s, p.leaf);
}

/* ---- walking ---- */

struct topic_pos topic_set_seek(const struct topic_set *s, const struct topic_key *k)
{
    struct topic_pos p = {0, 0};

    if (s->n > 0) {
        p.leaf = leaf_of(s, k);
        p.at = place_in(s->dir[p.leaf].leaf, k);
    }
    return p;
}

struct message *topic_set_at(const struct topic_set *s, struct topic_pos *p)
{
    if (p->leaf < s->n && p->at >= s->dir[p->leaf].leaf->n) {
        p->leaf++; /* no leaf is empty */
        p->at = 0;
    }
    return p->leaf < s->n ? s->dir[p->leaf].leaf->messages[p->at] : NULL;
}

static bool has_expired(const struct message *m, int64_t now_ms)
{
    return m->expires_ms != 0 && m->expires_ms <= now_ms;
}

/* Takes up to max expired messages out of a leaf; its soonest_ms becomes exact. */
static size_t expire_leaf(struct topic_leaf *l, int64_t now_ms, struct message **out, size_t max)
{
    size_t n = 0;
    uint32_t kept = 0;

    l->soonest_ms = INT64_MAX;
    for (uint32_t i = 0; i < l->n; i++) {
        struct message *m = l->messages[i];

        if (n < max && has_expired(m, now_ms)) {
            out[n++] = m;
            continue;
        }
        l->messages[kept] = m;
        l->prints[kept++] = l->prints[i];
        note_expiry(l, m);
    }
    l->n = (uint16_t)kept;
    return n;
}

size_t topic_set_expire(struct topic_set *s, uint32_t *at, uint32_t *leaves, int64_t now_ms,
                        struct message **out, size_t max)
{
    size_t n = 0;

    for (; *at<s->n && * leaves> 0 && n < max; --*leaves) {
        struct topic_leaf *l = s->dir[*at].leaf;
        uint32_t had = s->n;

        if (l->soonest_ms <= now_ms) {
            n += expire_leaf(l, now_ms, out + n, max - n);
            if (l->soonest_ms <= now_ms) {
                break; /* max reached, and this leaf has more */
            }
            tidy(s, *at);
        }
        *at +=
            s->n == had; /* else another leaf has come here, or what is left moved into this one */
    }
    return n;
}
