/* Makes one sync fail: the first of a file whose path contains the text in the file that FAIL_SYNC
   names; that file is then deleted. Loaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int fails(int fd) {
    char words[256] = {0}, link[64], path[512] = {0};
    const char *order = getenv("FAIL_SYNC");
    int file = order ? open(order, O_RDONLY) : -1;
    if (file < 0) return 0;
    ssize_t count = read(file, words, sizeof words - 1);
    close(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (count <= 0 || readlink(link, path, sizeof path - 1) < 0) return 0;
    return strstr(path, words) && unlink(order) == 0;
}
int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (fails(fd)) { errno = EIO; return -1; }
    return real(fd);
}
int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (fails(fd)) { errno = EIO; return -1; }
    return real(fd);
}
