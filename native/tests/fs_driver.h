/* The state of fs_driver, and the commands of its scripts. */
#ifndef PYRUNC_FS_DRIVER_H
#define PYRUNC_FS_DRIVER_H

#include "../init/fsapi.h"

#include <stdio.h>

extern struct init in;
extern FILE *out;       /* output */
extern int console_end; /* our end of the console socket */
extern int parent;      /* the process outside the namespaces */
/* The results of the last command `ids`, for UNMOUNT: the mount id, and the unique one. */
extern struct sys_statx ids[2];

/* Run a command of n fields, including its name.  Aborts if it does not exist. */
void run_command(char **f, int n);

#endif
