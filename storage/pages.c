/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file is mapped for reading, and the trees are walked from the newer of the two pages of
 * numbers at its beginning. The walk is bounded: a page that was seen is not entered again, and no
 * tree is deeper than it says. It goes on behind a damage, for those who want to save the rest.
 */
#include "storage/pages.h"

#include "storage/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER                                                                                     \
    16u /* of a page: number u64, pad u16, kind u16, end of the list u16, of the gap u16 */
#define NODE      8u /* of a row in a page: three halves of a number, then the length of the key */
#define BRANCH    1u
#define LEAF      2u
#define OVERFLOW  4u
#define META      8u
#define LARGE     1u /* of a row: its value has pages of its own */
#define TREE      2u /* its value is the record of a table */
#define INTEGER   8u /* of a table: keys are numbers in the native order */
#define TREE_SIZE 48u
#define MAGIC     0xbeefc0deu
#define NO_PAGE   UINT64_MAX
#define MAX_DEPTH 32u
#define MAX_KEY   511u
#define FIRST     2u /* page behind those of numbers */

struct tree {
    uint32_t pad;
    uint16_t flags, depth;
    uint64_t branches, leaves, large, rows, root;
};

struct numbers { /* of one of the two pages */
    uint32_t page_size;
    uint64_t last, txn;
    struct tree free, main;
};

struct walk {
    const char *file;
    const struct pages_visit *visit;
    const uint8_t *map;
    size_t size;
    size_t page_size;
    uint64_t last;
    uint64_t *seen;
    bool free_is_known; /* the list of free pages is whole */
    bool bad;
    char *err;
    size_t cap;
    /* The tree at hand. */
    const char *name;
    struct tree has;
    bool integer, is_main, is_free;
    unsigned damages;
};

static uint16_t u16(const uint8_t *p)
{
    return get_le16(p);
}

static const MDB_val none = {0, NULL};

static void damage(struct walk *w, uint64_t page, const char *how, MDB_val from, MDB_val to)
{
    char what[512];

    if (page == NO_PAGE) {
        snprintf(what, sizeof(what), "%s: damaged: %s: %s", w->file, w->name, how);
    } else {
        snprintf(what, sizeof(what), "%s: damaged: page %llu of %s %s", w->file,
                 (unsigned long long)page, w->name, how);
    }
    if (!w->bad) {
        snprintf(w->err, w->cap, "%s", what);
    }
    w->bad = true;
    w->damages++;
    if (w->visit != NULL && w->visit->damage != NULL) {
        w->visit->damage(w->visit->arg, w->name, what, from, to);
    }
}

/* Nobody wants to know more. */
static bool is_over(const struct walk *w)
{
    return w->bad && (w->visit == NULL || (w->visit->damage == NULL && w->visit->row == NULL));
}

static const uint8_t *page_at(const struct walk *w, uint64_t page)
{
    return w->map + page * w->page_size;
}

static bool in_file(const struct walk *w, uint64_t page, uint64_t n)
{
    const uint64_t pages = w->size / w->page_size;

    return page >= FIRST && page <= w->last && n <= w->last - page + 1 && page < pages &&
           n <= pages - page;
}

static bool was_seen(const struct walk *w, uint64_t page)
{
    return (w->seen[page / 64] >> page % 64 & 1) != 0;
}

/* False: one of them is in use already. */
static bool see(struct walk *w, uint64_t page, uint64_t n)
{
    bool fresh = true;

    for (uint64_t i = page; i < page + n; i++) {
        fresh = fresh && !was_seen(w, i);
        w->seen[i / 64] |= (uint64_t)1 << i % 64;
    }
    return fresh;
}

static int compare(const struct walk *w, MDB_val a, MDB_val b)
{
    const size_t n = a.mv_size < b.mv_size ? a.mv_size : b.mv_size;
    int c;

    if (w->integer) {
        const uint64_t x = get_le64(a.mv_data);
        const uint64_t y = get_le64(b.mv_data);
        return x < y ? -1 : x > y;
    }
    c = memcmp(a.mv_data, b.mv_data, n);
    return c != 0 ? c : a.mv_size < b.mv_size ? -1 : a.mv_size > b.mv_size;
}

/* ---- one page ---- */

struct node {
    MDB_val key;
    uint16_t flags;
    uint64_t number; /* branch: the page below; leaf: bytes of the value */
    const uint8_t *value;
};

static uint32_t nodes_of(const uint8_t *p)
{
    return (u16(p + 12) - HEADER) / 2u;
}

static void node_at(const uint8_t *p, uint32_t i, bool leaf, struct node *n)
{
    const uint8_t *at = p + u16(p + HEADER + (size_t)i * 2);

    n->flags = u16(at + 4);
    n->key = (MDB_val){u16(at + 6), (void *)(uintptr_t)(at + NODE)};
    n->number = u16(at) | (uint64_t)u16(at + 2) << 16 | (leaf ? 0 : (uint64_t)n->flags << 32);
    n->value = at + NODE + n->key.mv_size;
}

/* Bytes of the page that the row at this offset takes; 0: it is not inside. */
static size_t node_size(const struct walk *w, const uint8_t *p, size_t at, bool leaf)
{
    size_t n;

    if (at % 2 != 0 || at < u16(p + 14) || at + NODE > w->page_size) {
        return 0;
    }
    n = NODE + u16(p + at + 6);
    if (leaf) {
        n += (u16(p + at + 4) & LARGE) != 0 ? 8 : u16(p + at) | (size_t)u16(p + at + 2) << 16;
    }
    n = (n + 1) & ~(size_t)1;
    return n <= w->page_size - at ? n : 0;
}

/* What the rows' places say: they fill the page from the gap to its end. NULL: they do. */
static const char *check_form(const struct walk *w, const uint8_t *p, uint64_t page, bool leaf)
{
    const size_t lower = u16(p + 12);
    const size_t upper = u16(p + 14);
    size_t sum = 0;

    if (get_le64(p) != page) {
        return "is another one";
    }
    if (u16(p + 10) != (leaf ? LEAF : BRANCH)) {
        return "is of another kind";
    }
    if (lower < HEADER + 2 || lower % 2 != 0 || lower > upper || upper > w->page_size) {
        return "has no valid header";
    }
    for (uint32_t i = 0; i < nodes_of(p); i++) {
        const size_t n = node_size(w, p, u16(p + HEADER + (size_t)i * 2), leaf);
        if (n == 0) {
            return "has a row outside of it";
        }
        sum += n;
    }
    return sum == w->page_size - upper ? NULL : "has rows that do not fill it";
}

static bool is_key(const struct walk *w, MDB_val key)
{
    return key.mv_size > 0 && key.mv_size <= MAX_KEY && (!w->integer || key.mv_size == 8);
}

/* Ascending, from `from` on (size 0: any) and below `to`. The first of a branch stands for all that
 * is lower. */
static const char *check_keys(const struct walk *w, const uint8_t *p, bool leaf, MDB_val from,
                              MDB_val to)
{
    MDB_val before = from;

    for (uint32_t i = leaf ? 0 : 1; i < nodes_of(p); i++) {
        struct node n;
        int c;
        node_at(p, i, leaf, &n);
        if (!is_key(w, n.key) || (leaf && (n.flags & ~(w->is_main ? TREE : LARGE)) != 0)) {
            return "has a row that is not valid";
        }
        c = before.mv_size == 0 ? 1 : compare(w, n.key, before);
        if (c < 0 || (c == 0 && (i > 0 || !leaf)) ||
            (to.mv_size > 0 && compare(w, n.key, to) >= 0)) {
            return "has rows out of order";
        }
        before = n.key;
    }
    return NULL;
}

/* ---- rows ---- */

/* Pages of a large value. A list of free pages may have got shorter, and kept its pages. */
static uint64_t large_pages(const struct walk *w, uint64_t page, uint64_t bytes)
{
    const uint64_t n = (HEADER - 1 + bytes) / w->page_size + 1;

    if ((n > 1 || w->is_free) && in_file(w, page, n) && get_le32(page_at(w, page) + 12) > n) {
        return get_le32(page_at(w, page) + 12);
    }
    return n;
}

static bool is_large_header(const struct walk *w, uint64_t page, uint64_t n)
{
    const uint8_t *p = page_at(w, page);

    return get_le64(p) == page && u16(p + 10) == OVERFLOW && get_le32(p + 12) == n;
}

/* The value of a row; NULL: its pages are not good. */
static const uint8_t *open_large(struct walk *w, const struct node *n, const char **how)
{
    const uint64_t page = get_le64(n->value);
    const uint64_t pages = in_file(w, page, 1) ? large_pages(w, page, n->number) : 1;

    if (!in_file(w, page, pages)) {
        *how = "has a value that is not in the file";
        return NULL;
    }
    if (!see(w, page, pages)) {
        *how = "has a value in a page that is used twice";
        return NULL;
    }
    w->has.large += pages;
    if ((pages > 1 || w->is_free || (w->visit != NULL && w->visit->all)) &&
        !is_large_header(w, page, pages)) {
        *how = "has a value in a page that is another one";
        return NULL;
    }
    return page_at(w, page) + HEADER;
}

/* The numbers of a list are in the file, descend, and nobody has them. */
static bool see_free(struct walk *w, const uint8_t *p, uint64_t bytes)
{
    const uint64_t n = bytes >= 8 ? get_le64(p) : 0;
    uint64_t before = NO_PAGE;

    if (bytes < 8 || n > bytes / 8 - 1) {
        return false;
    }
    for (uint64_t i = 1; i <= n; i++) {
        const uint64_t page = get_le64(p + i * 8);
        if (page < FIRST || page > w->last || page >= before || !see(w, page, 1)) {
            return false;
        }
        before = page;
    }
    return true;
}

static void walk_tree(struct walk *w, const char *name, const struct tree *t);

/* A row of the table of tables. */
static void see_table(struct walk *w, const struct node *n, const char **how)
{
    const struct walk outer = *w;
    char name[64];
    struct tree t;

    if (n->flags != TREE || n->number != TREE_SIZE || n->key.mv_size >= sizeof(name)) {
        *how = "has a row that is no table";
        return;
    }
    memcpy(name, n->key.mv_data, n->key.mv_size);
    name[n->key.mv_size] = '\0';
    t = (struct tree){.pad = get_le32(n->value),
                      .flags = u16(n->value + 4),
                      .depth = u16(n->value + 6),
                      .branches = get_le64(n->value + 8),
                      .leaves = get_le64(n->value + 16),
                      .large = get_le64(n->value + 24),
                      .rows = get_le64(n->value + 32),
                      .root = get_le64(n->value + 40)};
    walk_tree(w, name, &t);
    w->name = outer.name;
    w->has = outer.has;
    w->integer = outer.integer;
    w->is_main = outer.is_main;
}

static void see_row(struct walk *w, uint64_t page, const struct node *n)
{
    const char *how = NULL;
    const uint8_t *value = n->value;

    w->has.rows++;
    if (w->is_main) {
        see_table(w, n, &how);
    } else if ((n->flags & LARGE) != 0) {
        value = open_large(w, n, &how);
    }
    if (how == NULL && w->is_free && !see_free(w, value, n->number)) {
        how = "has a list of free pages that is not valid";
    }
    if (how != NULL) {
        damage(w, page, how, n->key, n->key);
    }
    if (!w->is_main && !w->is_free && w->visit != NULL && w->visit->row != NULL) {
        w->visit->row(w->visit->arg, w->name, n->key,
                      (MDB_val){n->number, (void *)(uintptr_t)(how == NULL ? value : NULL)});
    }
}

/* ---- a tree ---- */

/* The pages below are asked for together, where the disk has to give them. */
static void read_ahead(const struct walk *w, const uint8_t *p)
{
    for (uint32_t i = 0; i < nodes_of(p); i++) {
        struct node n;
        node_at(p, i, false, &n);
        if (in_file(w, n.number, 1)) {
            (void)madvise((void *)(uintptr_t)page_at(w, n.number), w->page_size, MADV_WILLNEED);
        }
    }
}

static void walk_page(struct walk *w, uint64_t page, unsigned depth, MDB_val from, MDB_val to)
{
    const bool leaf = depth == 1;
    const uint8_t *p;
    const char *how;

    if (is_over(w)) {
        return;
    }
    if (!in_file(w, page, 1) || !see(w, page, 1)) {
        damage(w, page, in_file(w, page, 1) ? "is used twice" : "is not in the file", from, to);
        return;
    }
    p = page_at(w, page);
    how = check_form(w, p, page, leaf);
    how = how != NULL ? how : check_keys(w, p, leaf, from, to);
    if (how != NULL) {
        damage(w, page, how, from, to);
        return;
    }
    w->has.branches += !leaf;
    w->has.leaves += leaf;
    if (depth == 2 && w->visit != NULL && w->visit->all) {
        read_ahead(w, p);
    }
    for (uint32_t i = 0; i < nodes_of(p); i++) {
        struct node n;
        node_at(p, i, leaf, &n);
        if (leaf) {
            see_row(w, page, &n);
        } else {
            struct node next = {.key = to};
            if (i + 1 < nodes_of(p)) {
                node_at(p, i + 1, false, &next);
            }
            walk_page(w, n.number, depth - 1, i == 0 ? from : n.key, next.key);
        }
    }
}

/* Which keys a table has follows from its name, where we know that. */
static bool has_right_flags(const char *name, const struct tree *t)
{
    return t->flags ==
           (strcmp(name, "log") == 0 || strcmp(name, "the free pages") == 0 ? INTEGER : 0);
}

static void walk_tree(struct walk *w, const char *name, const struct tree *t)
{
    const unsigned damages = w->damages;

    w->name = name;
    w->has = (struct tree){0};
    w->integer = (t->flags & INTEGER) != 0;
    w->is_main = strcmp(name, "the table of tables") == 0;
    w->is_free = strcmp(name, "the free pages") == 0;
    if (!has_right_flags(name, t) || (!w->is_free && !w->is_main && t->pad != 0) ||
        t->depth >= MAX_DEPTH || (t->root == NO_PAGE) != (t->depth == 0)) {
        damage(w, NO_PAGE, "its record is not valid", none, none);
        return;
    }
    if (t->depth > 0) {
        walk_page(w, t->root, t->depth, none, none);
    }
    if (w->damages == damages && (w->has.rows != t->rows || w->has.branches != t->branches ||
                                  w->has.leaves != t->leaves || w->has.large != t->large)) {
        damage(w, NO_PAGE, "it has not the pages and rows that it says", none, none);
    }
}

/* Whole pages of rows that no tree leads to any more. */
static void give_orphans(struct walk *w)
{
    const uint64_t pages = w->size / w->page_size;

    w->is_main = w->is_free = w->integer = false;
    for (uint64_t page = FIRST; page <= w->last && page < pages; page++) {
        const uint8_t *p = page_at(w, page);
        if (was_seen(w, page) || check_form(w, p, page, true) != NULL ||
            check_keys(w, p, true, none, none) != NULL) {
            continue;
        }
        for (uint32_t i = 0; i < nodes_of(p); i++) {
            struct node n;
            const uint8_t *value;
            node_at(p, i, true, &n);
            value = n.value;
            if ((n.flags & LARGE) != 0) {
                const uint64_t at = get_le64(n.value);
                value = n.number <= w->page_size - HEADER && in_file(w, at, 1) &&
                                !was_seen(w, at) && is_large_header(w, at, 1)
                            ? page_at(w, at) + HEADER
                            : NULL;
            }
            w->visit->row(w->visit->arg, NULL, n.key,
                          (MDB_val){n.number, (void *)(uintptr_t)value});
        }
    }
}

/* ---- the two pages of numbers ---- */

static struct tree tree_of(const uint8_t *p)
{
    return (struct tree){.pad = get_le32(p),
                         .flags = u16(p + 4),
                         .depth = u16(p + 6),
                         .branches = get_le64(p + 8),
                         .leaves = get_le64(p + 16),
                         .large = get_le64(p + 24),
                         .rows = get_le64(p + 32),
                         .root = get_le64(p + 40)};
}

static bool read_numbers(const uint8_t *p, unsigned page, struct numbers *n)
{
    *n = (struct numbers){.free = tree_of(p + 40),
                          .main = tree_of(p + 40 + TREE_SIZE),
                          .last = get_le64(p + 40 + 2 * TREE_SIZE),
                          .txn = get_le64(p + 40 + 2 * TREE_SIZE + 8)};
    n->page_size = n->free.pad;
    return get_le64(p) == page && u16(p + 10) == META && get_le32(p + HEADER) == MAGIC &&
           get_le32(p + HEADER + 4) == 1 && (n->txn == 0 || n->txn % 2 == page) &&
           n->page_size >= 1024 && n->page_size <= 32768 &&
           (n->page_size & (n->page_size - 1)) == 0 && n->main.pad == 0 && n->last >= 1;
}

/* LMDB takes the one with the higher number; each commit writes the other one. */
static const char *pick_numbers(struct walk *w, struct numbers *best, struct numbers *older)
{
    struct numbers n[2];
    size_t at;
    bool good[2];

    good[0] = w->size >= 2048 && read_numbers(w->map, 0, &n[0]);
    at = good[0] ? n[0].page_size : 4096;
    good[1] = w->size >= at + 2048 && read_numbers(w->map + at, 1, &n[1]);
    if (!good[0] && !good[1]) {
        return "neither of its first two pages is valid";
    }
    at = good[1] && (!good[0] || n[1].txn > n[0].txn);
    *best = n[at];
    *older = good[1 - at] ? n[1 - at] : n[at];
    if (!good[0] || !good[1]) {
        return "one of its first two pages is not valid";
    }
    return n[0].page_size == n[1].page_size &&
                   (n[0].txn == n[1].txn ? n[0].txn == 0
                                         : n[0].txn + 1 == n[1].txn || n[1].txn + 1 == n[0].txn)
               ? NULL
               : "its first two pages contradict each other";
}

static int walk_all(struct walk *w)
{
    struct numbers n = {0};
    struct numbers older;
    const char *how;
    unsigned damages;

    w->name = "numbers";
    how = pick_numbers(w, &n, &older);
    if (how != NULL) {
        damage(w, NO_PAGE, how, none, none);
    }
    if (n.page_size == 0 || is_over(w)) {
        return 0;
    }
    w->page_size = n.page_size;
    w->last = n.last;
    if (w->last > w->size / w->page_size + 64) { /* LMDB need not write the last few */
        w->name = "numbers";
        damage(w, NO_PAGE, "the file is shorter than its pages", none, none);
        w->last = w->size / w->page_size;
    }
    if (w->visit != NULL && w->visit->cut_off != NULL && w->size < (w->last + 1) * w->page_size) {
        *w->visit->cut_off = (w->last + 1) * w->page_size - w->size;
    }
    w->seen = calloc(w->last / 64 + 1, 8);
    if (w->seen == NULL) {
        return ENOMEM;
    }
    walk_tree(w, "the table of tables", &n.main);
    if (w->has.rows == 0 && n.main.depth > 0 && w->visit != NULL && w->visit->all) {
        /* As it was one transaction before: what that freed has not been used again. */
        memset(w->seen, 0, (w->last / 64 + 1) * 8);
        n.free = older.free;
        walk_tree(w, "the table of tables", &older.main);
    }
    damages = w->damages;
    walk_tree(w, "the free pages", &n.free);
    w->free_is_known = w->damages == damages && how == NULL;
    if (w->visit != NULL && w->visit->all && w->visit->row != NULL && w->bad &&
        (w->free_is_known || w->visit->stale)) {
        give_orphans(w);
    }
    free(w->seen);
    return 0;
}

static int map_file(struct walk *w)
{
    const int fd = open(w->file, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *p = NULL;
    int rc = 0;

    if (fd < 0) {
        return errno == ENOENT ? 0 : errno;
    }
    if (fstat(fd, &st) != 0) {
        rc = errno;
    } else if (st.st_size > 0) {
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        rc = p == MAP_FAILED ? errno : 0;
    }
    w->map = rc == 0 ? p : NULL;
    w->size = rc == 0 ? (size_t)st.st_size : 0;
    close(fd);
    return rc;
}

int pages_check(const char *file, const struct pages_visit *visit, char *err, size_t cap)
{
    struct walk w = {.file = file, .visit = visit, .err = err, .cap = cap};
    int rc = map_file(&w);

    if (rc == 0 && w.map != NULL) {
        rc = walk_all(&w);
        munmap((void *)(uintptr_t)w.map, w.size);
    }
    if (rc != 0) {
        snprintf(err, cap, "%s: %s", file, strerror(rc));
    }
    return rc == 0 && w.bad ? MDB_CORRUPTED : rc;
}
