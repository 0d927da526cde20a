/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/queue.h"

#include "storage/bytes.h"

#define SINGLE       28u                 /* the value of a row of one entry, */
#define SINGLE_GROUP 32u                 /* of one that came through a shared group */
#define SEALED       ((uint64_t)1 << 63) /* in a row's first seq: it ends with its checksum */

void queue_key(uint8_t *k, uint64_t session, uint64_t seq)
{
    put_be64(k, session);
    put_be64(k + 8, seq);
}

/*
 * A value that is too large for the page of its key has a page of its own, whose number stands
 * behind the key and at that page's beginning. Of two pages that have changed places one may be an
 * older form of the other, valid as far as its bytes go.
 */
static bool is_in_place(MDB_val key, MDB_val val)
{
    const uint8_t *behind = (const uint8_t *)key.mv_data + key.mv_size;

    return val.mv_data == behind || memcmp((const uint8_t *)val.mv_data - 16, behind, 8) == 0;
}

bool queue_row_parse(struct queue_row *r, MDB_dbi queue, MDB_val key, MDB_val val)
{
    const uint8_t *k = key.mv_data;
    const uint8_t *v = val.mv_data;
    const bool sealed = val.mv_size >= 8 && (get_le64(v) & SEALED) != 0;
    const size_t n = val.mv_size - (sealed ? ROW_SUM : 0);

    if (key.mv_size != QUEUE_KEY || val.mv_size > QUEUE_ROW_MAX ||
        (sealed && (n < ENTRY_HEAD || !row_is_valid(queue, key, val))) ||
        (n < ENTRY_HEAD && n != SINGLE && n != SINGLE_GROUP)) {
        return false;
    }
    *r = (struct queue_row){.session = get_be64(k),
                            .seq = get_be64(k + 8),
                            .p = v,
                            .end = v + n,
                            .single = n < ENTRY_HEAD,
                            .sealed = sealed};
    return true;
}

bool queue_row_open(struct queue_row *r, MDB_dbi queue, MDB_val key, MDB_val val)
{
    return is_in_place(key, val) && queue_row_parse(r, queue, key, val);
}

size_t queue_row_seal(MDB_dbi queue, MDB_val key, uint8_t *p, size_t n)
{
    put_le64(p, get_le64(p) | SEALED);
    row_seal(queue, key, p, n);
    return n + ROW_SUM;
}

static void get_single(struct queue_row *r, struct queue_entry *e)
{
    const uint8_t *p = r->p;

    *e = (struct queue_entry){
        .seq = r->seq,
        .body = get_le64(p),
        .expires_ms = (int64_t)get_le64(p + 8),
        .number = get_le32(p + 16),
        .size = get_le32(p + 20),
        .packet_id = get_le16(p + 24),
        .flags = p[26],
        .step = p[27],
        .group = r->end - p == SINGLE_GROUP ? get_le32(p + SINGLE) : 0,
    };
    r->p = r->end;
}

int queue_row_next(struct queue_row *r, struct queue_entry *e)
{
    const uint8_t *p = r->p;

    if (p == r->end) {
        return MDB_NOTFOUND;
    }
    if (r->single) {
        get_single(r, e);
        return 0;
    }
    if (r->end - p < (ptrdiff_t)ENTRY_HEAD) {
        return MDB_CORRUPTED;
    }
    *e = (struct queue_entry){
        .seq = get_le64(p) & ~SEALED,
        .body = get_le64(p + 8),
        .expires_ms = (int64_t)get_le64(p + 16),
        .number = get_le32(p + 24),
        .size = get_le32(p + 28),
        .group = get_le32(p + 32),
        .packet_id = get_le16(p + 36),
        .flags = p[38],
        .step = p[39],
        .record_n = get_le16(p + 40),
        .record = p + ENTRY_HEAD,
    };
    if (r->end - p < (ptrdiff_t)queue_entry_size(e) || e->seq < r->seq) {
        return MDB_CORRUPTED;
    }
    r->p = p + queue_entry_size(e);
    return 0;
}

uint8_t *queue_entry_put(uint8_t *p, const struct queue_entry *e)
{
    put_le64(p, e->seq);
    put_le64(p + 8, e->body);
    put_le64(p + 16, (uint64_t)e->expires_ms);
    put_le32(p + 24, e->number);
    put_le32(p + 28, e->size);
    put_le32(p + 32, e->group);
    put_le16(p + 36, e->packet_id);
    p[38] = e->flags;
    p[39] = e->step;
    put_le16(p + 40, e->record_n);
    if (e->record_n > 0) {
        memcpy(p + ENTRY_HEAD, e->record, e->record_n);
    }
    return p + queue_entry_size(e);
}

static bool is_of(MDB_val key, uint64_t session)
{
    return key.mv_size == QUEUE_KEY && get_be64(key.mv_data) == session;
}

int queue_find(MDB_cursor *cur, uint64_t session, uint64_t seq, MDB_val *key, MDB_val *val)
{
    uint8_t k[QUEUE_KEY];
    MDB_val at = {sizeof(k), k};
    bool found;
    int rc;

    queue_key(k, session, seq);
    rc = mdb_cursor_get(cur, &at, val, MDB_SET_RANGE);
    if (rc != 0 && rc != MDB_NOTFOUND) {
        return rc;
    }
    found = rc == 0 && is_of(at, session);
    *key = at;
    if (found && get_be64((uint8_t *)at.mv_data + 8) == seq) {
        return 0;
    }
    rc = mdb_cursor_get(cur, key, val, rc == 0 ? MDB_PREV : MDB_LAST);
    if (rc == 0 && is_of(*key, session)) {
        return 0;
    }
    if (!found) {
        return rc == 0 ? MDB_NOTFOUND : rc;
    }
    /* Its first row lies above. */
    return rc == 0              ? mdb_cursor_get(cur, key, val, MDB_NEXT)
           : rc == MDB_NOTFOUND ? mdb_cursor_get(cur, key, val, MDB_FIRST)
                                : rc;
}
