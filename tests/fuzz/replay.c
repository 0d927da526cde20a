/* SPDX-License-Identifier: Apache-2.0 */
/* Gives a fuzz target the files named, and those in the folders named; at least one has to be
 * there. */
#include <dirent.h>
#include <limits.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static void replay_file(const char *path, size_t size)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = fuzz_room(size); /* exactly: a byte read past the end is seen */

    FUZZ_CHECK(f != NULL);
    FUZZ_CHECK(fread(data, 1, size, f) == size);
    fclose(f);
    fprintf(stderr, "%s\n", path); /* the last line before an abort tells which it was */
    LLVMFuzzerTestOneInput(data, size);
    free(data);
}

static unsigned replay(const char *path);

static unsigned replay_folder(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    unsigned files = 0;

    FUZZ_CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        char inner[PATH_MAX];

        if (entry->d_name[0] == '.') {
            continue;
        }
        FUZZ_CHECK(snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name) < PATH_MAX);
        files += replay(inner);
    }
    closedir(dir);
    return files;
}

static unsigned replay(const char *path)
{
    struct stat st;

    FUZZ_CHECK(stat(path, &st) == 0);
    if (S_ISDIR(st.st_mode)) {
        return replay_folder(path);
    }
    replay_file(path, (size_t)st.st_size);
    return 1;
}

int main(int argc, char **argv)
{
    unsigned files = 0;

    for (int i = 1; i < argc; i++) {
        files += replay(argv[i]);
    }
    fprintf(stderr, "%u files\n", files);
    return files > 0 ? 0 : 1;
}
