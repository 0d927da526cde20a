/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_config.c - any bytes as a configuration file: refused with a message, or a configuration
 * that holds. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(int cond)
{
    if (!cond) {
        abort();
    }
}

static void check(const struct config *c)
{
    need(c->nlisteners > 0);
    need(c->shards >= 1 && c->shards <= CONFIG_MAX_SHARDS);
    need(c->acceptors >= 1 && c->memory_limit > 0 && c->max_topic_levels > 0);
    need(c->max_inflight_messages >= 1 && c->max_inflight_messages <= UINT16_MAX);
    need((c->log_dest & LOG_TO_FILE) == 0 || c->log_file != NULL);
    for (size_t i = 0; i < c->nlisteners; i++) {
        const struct listener_config *l = &c->listeners[i];

        need((l->port == 0) == (l->unix_path != NULL));
        need(l->max_qos <= 2 && l->auto_id_prefix != NULL);
        need(l->accept_protocol_versions != 0);
    }
}

/* A configuration that was read once reads the same again: nothing needs a restart. */
static void check_reload(const struct config *c, const uint8_t *data, size_t size)
{
    struct config *again;
    char names[64];
    char err[64];

    need(config_parse((const char *)data, size, "fuzz", NULL, &again, err, sizeof(err)) == 0);
    need(config_keep_running(c, again, names, sizeof(names)) && names[0] == '\0');
    config_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *c;
    char err[96];

    memset(err, 'x', sizeof(err));
    if (config_parse((const char *)data, size, "fuzz", NULL, &c, err, sizeof(err)) == 0) {
        check(c);
        check_reload(c, data, size);
        config_free(&c);
    } else {
        need(c == NULL && memchr(err, '\0', sizeof(err)) != NULL && strlen(err) > 0);
        need(strchr(err, '\n') == NULL);
    }
    return 0;
}
