/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/queue.h"

#include "storage/bytes.h"

#define SINGLE       28u /* the value of a row of one entry, */
#define SINGLE_GROUP 32u /* of one that came through a shared group */

void queue_key(uint8_t *k, uint64_t session, uint64_t seq)
{
    put_be64(k, session);
    put_be64(k + 8, seq);
}

bool queue_row_open(struct queue_row *r, MDB_val key, MDB_val val)
{
    const uint8_t *k = key.mv_data;

    if (key.mv_size != QUEUE_KEY ||
        (val.mv_size < ENTRY_HEAD && val.mv_size != SINGLE && val.mv_size != SINGLE_GROUP)) {
        return false;
    }
    *r = (struct queue_row){.session = get_be64(k),
                            .seq = get_be64(k + 8),
                            .p = val.mv_data,
                            .end = (const uint8_t *)val.mv_data + val.mv_size,
                            .single = val.mv_size < ENTRY_HEAD};
    return true;
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
        .seq = get_le64(p),
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
