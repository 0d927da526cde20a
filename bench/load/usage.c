/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/usage.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static FILE *open_proc(pid_t pid, const char *task, const char *file)
{
    char path[128];

    if (task != NULL) {
        snprintf(path, sizeof(path), "/proc/%d/task/%.16s/%s", (int)pid, task, file);
    } else {
        snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    }
    return fopen(path, "re");
}

/* Adds "Name:  123" lines of a status file to the fields they belong to. */
static void read_status(struct usage *u, pid_t pid, const char *task)
{
    char line[256];
    FILE *f = open_proc(pid, task, "status");

    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        char *colon = strchr(line, ':');
        uint64_t v;

        if (colon == NULL) {
            continue;
        }
        *colon = '\0';
        v = strtoull(colon + 1, NULL, 10);
        if (task != NULL) {
            if (strstr(line, "ctxt_switches") != NULL) {
                u->switches += v;
            }
        } else if (strcmp(line, "VmHWM") == 0) {
            u->max_rss_kb = v;
        } else if (strcmp(line, "VmRSS") == 0) {
            u->rss_kb = v;
        } else if (strcmp(line, "RssAnon") == 0) {
            u->anonymous_kb = v;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
}

static void read_schedstat(struct usage *u, pid_t pid, const char *task)
{
    FILE *f = open_proc(pid, task, "schedstat");
    uint64_t ns;

    if (f != NULL) {
        if (fscanf(f, "%" SCNu64, &ns) == 1) {
            u->cpu_ns += ns;
        }
        fclose(f);
    }
}

/* utime and stime: fields 14 and 15, counted behind the name, which may hold anything. */
static uint64_t stat_cpu_ns(pid_t pid)
{
    char text[1024];
    FILE *f = open_proc(pid, NULL, "stat");
    size_t n = f == NULL ? 0 : fread(text, 1, sizeof(text) - 1, f);
    unsigned long long utime = 0;
    unsigned long long stime = 0;
    char *p;

    if (f != NULL) {
        fclose(f);
    }
    text[n] = '\0';
    p = strrchr(text, ')');
    if (p == NULL || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &utime,
                            &stime) != 2) {
        return 0;
    }
    return (uint64_t)(utime + stime) * 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
}

bool usage_read(struct usage *out, pid_t pid)
{
    char path[64];
    DIR *tasks;
    struct dirent *e;

    *out = (struct usage){.cpu_ns = 0};
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    tasks = opendir(path);
    if (tasks == NULL) {
        return false;
    }
    while ((e = readdir(tasks)) != NULL) {
        if (e->d_name[0] != '.') {
            read_schedstat(out, pid, e->d_name);
            read_status(out, pid, e->d_name);
        }
    }
    closedir(tasks);
    read_status(out, pid, NULL);
    if (out->cpu_ns == 0) {
        out->cpu_ns = stat_cpu_ns(pid);
    }
    return true;
}

uint64_t usage_own_cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
