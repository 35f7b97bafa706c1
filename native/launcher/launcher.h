/* What the files of the launcher share. */
#ifndef PYRUNC_LAUNCHER_H
#define PYRUNC_LAUNCHER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>

/* Written by freeze.py: pyrunc's modules, and the container-side program. */
extern const struct _frozen pyrunc_frozen[];
extern const unsigned char pyrunc_init_image[];
extern const size_t pyrunc_init_size;
/* The modules that hot verbs use: part of the snapshot (snapshot/snapshot.h). */
extern const char *const pyrunc_preload[];

/* module.c: the builtin module _pyrunc_launcher. */
PyObject *PyInit__pyrunc_launcher(void);
/* Complete an interpreter that is in its core phase; 0, or -1 with an exception set. */
int complete_interpreter(void);
extern int in_core_phase;

/* The shim's functions, generated from its headers (gen_calls.py): for pyrunc.interpreter.quick. */
extern PyMethodDef pyrunc_calls[];

/* loader.c: a short way for `import pyrunc.x`.  Returns -1 with an exception set. */
int install_loader(void);

/* extension.c */
/* An extension module of the standard library; NULL without an exception when it is not one. */
PyObject *load_extension(const char *name);
/* The directory that holds the installed package (…/site-packages), checked; NULL with an exception set. */
const char *package_parent(void);

#endif
