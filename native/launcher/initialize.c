/* The configuration of the interpreter: see launcher.h. */
#include "launcher.h"

#include "snapshot/snapshot.h"

static PyStatus set_paths(PyConfig *config)
{
    /* getpath computes none of the paths that are set, and with `home` it reads no file
     * (pyvenv.cfg, ._pth).  All modules are in the executable, so it has nothing to find.
     * CPython 3.14 looks for pyvenv.cfg in any case, and accepts no error but ENOENT.  No file
     * can be created in /proc. */
    wchar_t **const fields[] = {&config->home,       &config->executable,      &config->base_executable,
                                &config->prefix,     &config->base_prefix,     &config->exec_prefix,
                                &config->stdlib_dir, &config->base_exec_prefix};
    PyStatus status = PyConfig_SetString(config, &config->program_name, L"pyrunc");
    for (size_t i = 0; i < sizeof fields / sizeof *fields && !PyStatus_Exception(status); i++)
        status = PyConfig_SetString(config, fields[i], L"/proc/pyrunc/pyrunc");
    config->module_search_paths_set = 1;
    return status;
}

PyStatus initialize_interpreter(int whole)
{
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.pathconfig_warnings = 0;
    config.install_signal_handlers = 0; /* no KeyboardInterrupt in the middle of a rollback */
    config.configure_c_stdio = 0;
    if (snapshot_state() != SNAPSHOT_NONE) {
        config.use_hash_seed = 1; /* the hashes of strings are part of the snapshot */
        config.hash_seed = SNAPSHOT_HASH_SEED;
    }
#ifdef HAVE_CORE_PHASE
    config._init_main = whole;
#else
    (void)whole;
#endif
    PyStatus status = set_paths(&config);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    return status;
}
