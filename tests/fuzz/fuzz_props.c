/* SPDX-License-Identifier: Apache-2.0 */
/* A byte for the place, then a block. Walked item by item and put together again it is the same
 * block. */
#include "server/codec/frame.h"
#include "server/codec/props.h"
#include "tests/fuzz/fuzz.h"

/* By the item's own length and parts, not by the table under test. */
static size_t put_again(uint8_t *p, const struct prop_item *item)
{
    if (item->id == PROP_USER_PROPERTY) {
        return prop_put_pair(p, item->key, item->value);
    }
    if (item->id == PROP_SUBSCRIPTION_ID) {
        return prop_put_varint(p, item->id, item->number);
    }
    if (item->value.p != NULL) {
        return prop_put_string(p, item->id, item->value);
    }
    switch (item->whole.n) {
    case 2:
        return prop_put_byte(p, item->id, (uint8_t)item->number);
    case 3:
        return prop_put_u16(p, item->id, (uint16_t)item->number);
    default:
        return prop_put_u32(p, item->id, item->number);
    }
}

static void check_views(const struct props *p, struct span in)
{
    const struct span views[] = {p->raw,          p->content_type,     p->response_topic,
                                 p->auth_data,    p->correlation_data, p->assigned_client_id,
                                 p->auth_method,  p->response_info,    p->server_reference,
                                 p->reason_string};

    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
        fuzz_check_view(views[i], in);
    }
}

static void check_walk(const struct props *p)
{
    uint8_t *again = fuzz_room(p->raw.n);
    struct prop_item item;
    uint64_t present = 0;
    size_t done = 0;
    size_t at = 0;

    while (props_next(p->raw, &at, &item)) {
        FUZZ_CHECK(item.whole.p == p->raw.p + done);
        FUZZ_CHECK(done + item.whole.n == at && at <= p->raw.n);
        FUZZ_CHECK(put_again(again + done, &item) == item.whole.n);
        present |= UINT64_C(1) << item.id;
        done = at;
    }
    FUZZ_CHECK(done == p->raw.n);
    FUZZ_CHECK(done == 0 || memcmp(again, p->raw.p, done) == 0);
    FUZZ_CHECK(present == p->present);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span in;
    struct props p;
    const char *why = NULL;
    size_t used = 0;
    enum dec_rc rc;

    if (size < 1) {
        return 0;
    }
    in = span_of(data + 1, size - 1);
    rc = props_decode(&p, in, (enum prop_place)(data[0] % (PROPS_AUTH + 1)), &used, &why);
    FUZZ_CHECK((rc == DEC_OK) == (why == NULL));
    FUZZ_CHECK(used <= in.n);
    if (rc == DEC_OK) {
        FUZZ_CHECK(used == varint_size((uint32_t)p.raw.n) + p.raw.n);
        check_views(&p, in);
        check_walk(&p);
    }
    return 0;
}
