/* SPDX-License-Identifier: Apache-2.0 */
/* utf8.h - string rules of MQTT: well-formed UTF-8 without surrogates [MQTT-1.5.4-1] and U+0000
 * [MQTT-1.5.4-2]. */
#ifndef NOCTULE_CODEC_UTF8_H
#define NOCTULE_CODEC_UTF8_H

#include "server/base/span.h"

/* True for a string MQTT allows. Has a fast path for ASCII (this runs on every topic of every
 * PUBLISH). */
bool utf8_is_valid(struct span s);

/* True for well-formed UTF-8, U+0000 allowed: a payload that says it is text [MQTT-3.3.2-4]. */
bool utf8_is_valid_payload(struct span s);

/* What utf8_scan() may find. */
#define UTF8_ILL_FORMED 1u /* the scan ends there */
#define UTF8_NUL        2u
#define UTF8_WILDCARD   4u /* '+' or '#' */
#define UTF8_CONTROL    8u /* U+0001 to U+001F, U+007F to U+009F, or a noncharacter [1.5.4] */

/* One pass for topic names and filters: bits of the above, 0 for a plain string. As fast as
 * utf8_is_valid(). */
unsigned utf8_scan(struct span s);
/* The same of a string that may hold '+' and '#': they are not looked for. */
unsigned utf8_scan_text(struct span s);

#endif
