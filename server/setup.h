/* SPDX-License-Identifier: Apache-2.0 */
/*
 * setup.h - builds the broker's modules bottom to top and tears them down in reverse.
 *
 * Threads    all three: the main thread. No signal is delivered to the threads they start.
 * Ownership  the broker belongs to the caller until setup_stop(). config and log are borrowed until
 *            setup_stop(); after a reload that took, the config handed over then is, and the older
 * one is to be freed only after setup_stop() too: a thread may still look at it. Errors     0, or
 * the process's exit code; the reason has been logged. After a failed start *out is NULL; after a
 * failed reload the broker goes on with what it had.
 */
#ifndef NOCTULE_SETUP_H
#define NOCTULE_SETUP_H

#include "server/config.h"

struct broker;

int setup_start(const struct config *config, struct log *log, struct broker **out);

/* `config` comes from config_keep_running(): what cannot change while running has not. */
int setup_reload(struct broker *broker, const struct config *config);

/* Orderly: listeners closed, clients disconnected, store ended. */
int setup_stop(struct broker *broker);

#endif
