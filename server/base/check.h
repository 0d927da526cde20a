/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - assertions that a hot path cannot afford.
 *
 * check() is assert() where NOCTULE_CHECKS is on: in every build but the release, where what it
 * costs was measured (bench/METHOD.md). What would corrupt memory or the store if it were wrong is
 * an assert(), which stays.
 */
#ifndef NOCTULE_BASE_CHECK_H
#define NOCTULE_BASE_CHECK_H

#include <assert.h>

#ifdef NOCTULE_CHECKS
#define check(cond) assert(cond)
#else
#define check(cond) ((void)sizeof(!(cond)))
#endif

#endif
