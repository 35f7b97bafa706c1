/* What the files of the launcher share. */
#ifndef PYRUNC_LAUNCHER_H
#define PYRUNC_LAUNCHER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>

/* Written by freeze.py: all modules, the container-side program, the licences of it all. */
extern const struct _frozen pyrunc_frozen[];
struct pyrunc_part {
    const unsigned char *data;
    size_t size;
};
extern const struct pyrunc_part pyrunc_init, pyrunc_licenses;
/* Extension modules that the interpreter's archive does not hold, as shared libraries. */
struct pyrunc_library {
    const char *name;
    const unsigned char *data;
    size_t size;
};
extern const struct pyrunc_library pyrunc_libraries[];
/* The modules that hot verbs use: part of the snapshot (snapshot/snapshot.h). */
extern const char *const pyrunc_preload[];

/* module.c: the builtin module _pyrunc_launcher. */
PyObject *PyInit__pyrunc_launcher(void);
/* Complete an interpreter that is in its core phase; 0, or -1 with an exception set. */
int complete_interpreter(void);
extern int in_core_phase;

/* The shim's functions, generated from its headers (native/shim/gen_calls.py), for pyrunc.native. */
extern PyMethodDef pyrunc_calls[];

/* loader.c: a short way for `import pyrunc.x`.  Returns -1 with an exception set. */
int install_loader(void);

/* extension.c */
/* Whether there is an extension module of this name in pyrunc_libraries. */
const struct pyrunc_library *find_library(const char *name);
/* A new reference to it; NULL with an exception set. */
PyObject *load_library(const struct pyrunc_library *library);
/* The directory that holds the installed package (…/site-packages), checked; NULL with an exception set. */
const char *package_parent(void);

#endif
