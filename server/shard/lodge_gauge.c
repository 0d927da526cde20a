/* SPDX-License-Identifier: Apache-2.0 */
#include "server/shard/lodge.h"

/* Thousandths of a processor. What fits is the sum of those that are apart: together they cost a
 * third less, at such loads, so the two limits are further from each other than they look. */
#define FITS_LOAD       600u
#define FULL_LOAD       750u
#define PRESSED_LOAD    300u
#define PRESSED_PERIODS 6 /* in a row */
#define LONG_NS         100000
#define CALM_PERIODS    3 /* before it asks */
#define LONE_PERIODS    3 /* before it is sent home */
/* Periods before it counts calm ones again. */
#define HOME_FULL 32
#define HOME_LONE 16

void lodge_gauge_begin(struct lodge_gauge *g, int64_t now_ms, int64_t cpu_ns)
{
    g->since_ms = now_ms;
    g->cpu_ns = cpu_ns;
    g->waits = 0;
    g->sleeps = 0;
}

uint32_t lodge_gauge_end(struct lodge_gauge *g, int64_t now_ms, int64_t cpu_ns, bool *pressed)
{
    const int64_t ms = now_ms - g->since_ms;
    const int64_t ns = cpu_ns - g->cpu_ns;
    const uint32_t load = ms <= 0 || ns <= 0 ? 0 : (uint32_t)(ns / ms / 1000);

    /* So much to do between two waits that a wake-up costs little of it, or no wait at all: then
     * it would do more on threads of its own. */
    g->pressed = load > PRESSED_LOAD && ns > (int64_t)g->sleeps * LONG_NS ? g->pressed + 1 : 0;
    *pressed = g->pressed >= PRESSED_PERIODS;
    lodge_gauge_begin(g, now_ms, cpu_ns);
    return load;
}

bool lodge_fits(struct lodge_gauge *g, uint32_t load, uint32_t host_load)
{
    if (g->calm >= 0 && load + host_load > FITS_LOAD) {
        g->calm = 0;
        return false;
    }
    g->calm++;
    if (g->calm < CALM_PERIODS) {
        return false;
    }
    g->calm = 0;
    return true;
}

bool lodge_is_full(uint32_t load, bool pressed)
{
    return load > FULL_LOAD || pressed;
}

bool lodge_is_active(uint32_t turns, uint32_t waits)
{
    return turns > waits / 32;
}

bool lodge_is_lonely(struct lodge_gauge *g, unsigned active)
{
    g->calm = active > 1 ? 0 : g->calm + 1;
    if (g->calm < LONE_PERIODS) {
        return false;
    }
    g->calm = 0;
    return true;
}

void lodge_gauge_sent_home(struct lodge_gauge *g, bool full)
{
    g->calm = full ? -HOME_FULL : -HOME_LONE;
}
