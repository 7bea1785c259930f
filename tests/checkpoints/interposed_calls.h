/* What interposers of the C library's calls share: the call behind one, and the mode of an open that has one. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>

#define NEXT(name) static __typeof__(name) *next; if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define OPEN_MODE                          \
    int mode = 0;                          \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list arguments;                 \
        va_start(arguments, flags);        \
        mode = va_arg(arguments, int);     \
        va_end(arguments);                 \
    }
