/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/course.h"

#include <stdlib.h>

#include "bench/load/client.h"

typedef void (*visit_fn)(struct course *c, uint32_t place);

static void count_place(struct course *c, uint32_t place)
{
    (void)place;
    c->n++;
}

/* `at` runs while places are filled in. */
static void put_place(struct course *c, uint32_t place)
{
    ((uint32_t *)c->places)[c->at++] = place;
}

static void visit_all(struct courses *cs, const struct courses_form *f, visit_fn visit)
{
    for (uint32_t p = 0; p < f->publishers; p++) {
        const struct stream *s = f->stream(f->context, p);

        for (uint32_t place = 0; place < s->topics_n; place++) {
            uint32_t topic = stream_number_of(s, place);

            for (uint32_t k = 0; k < f->each; k++) {
                visit(courses_at(cs, f->receiver(f->context, topic, k), p), place);
            }
        }
    }
}

void courses_init(struct courses *cs, const struct courses_form *f)
{
    uint64_t n = (uint64_t)f->receivers * f->publishers;
    uint64_t places = 0;

    *cs = (struct courses){.receivers = f->receivers, .publishers = f->publishers};
    cs->of = calloc(n, sizeof(*cs->of));
    if (cs->of == NULL) {
        die("out of memory");
    }
    visit_all(cs, f, count_place);
    for (uint64_t i = 0; i < n; i++) {
        places += cs->of[i].n;
    }
    cs->places = calloc(places, sizeof(*cs->places));
    if (cs->places == NULL) {
        die("out of memory");
    }
    places = 0;
    for (uint64_t i = 0; i < n; i++) {
        cs->of[i].places = cs->places + places;
        cs->of[i].cycle = f->stream(f->context, (uint32_t)(i % f->publishers))->topics_n;
        places += cs->of[i].n;
    }
    visit_all(cs, f, put_place);
    for (uint64_t i = 0; i < n; i++) {
        cs->of[i].at = 0;
    }
}

void courses_fini(struct courses *cs)
{
    free(cs->of);
    free(cs->places);
    *cs = (struct courses){.receivers = 0};
}
